//! Convolution and batch norm as one op of candle's.
//!
//! Together they need no gradient of the map between them: it goes from one kernel to the next.

use candle_core::{CpuStorage, Tensor};

use crate::conv::{self, Geometry};
use crate::norm::{self, BatchStats, Normalise, Wanted};
use crate::record::{self, Differentiable};
use crate::simd::Element;
use crate::storage::{self, by_dtype};
use crate::{Conv2dConfig, Result, batch_norm_train, conv2d, shape};

/// `act(batch_norm(conv2d(x, weight)) + residual)` in training: [`conv2d`] and [`batch_norm_train`] with
/// `[scale, shift]` as the norm's weight and bias, the same bits in fewer passes.
///
/// # Shapes
/// - `x`: `[batch, height, width, in]`
/// - `weight`: `[out, in / groups, kernel_h, kernel_w]`
/// - `scale`, `shift`: `[out]`
/// - `residual`, result: `[batch, out_h, out_w, out]`
///
/// # Errors
/// When a shape does not fit, or the window does not fit the padded input.
pub fn conv_norm_train(
    x: &Tensor,
    weight: &Tensor,
    config: Conv2dConfig,
    [scale, shift]: [&Tensor; 2],
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    let geometry = Geometry::new(x, weight.dims(), config)?;
    let mut all = vec![x, weight, scale, shift];
    all.extend(residual);
    if !storage::has_kernel(&all) || geometry.is_empty() {
        let y = conv2d(x, weight, config)?;
        return batch_norm_train(&y, scale, shift, eps, residual, relu);
    }
    let out = [geometry.out_c];
    shape::exactly("batch_norm", "per-channel tensor", scale, &out)?;
    shape::exactly("batch_norm", "per-channel tensor", shift, &out)?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let map = conv2d(&x.detach(), &weight.detach(), config)?;
    if let Some(residual) = residual {
        shape::exactly("batch_norm", "residual", residual, map.dims())?;
    }
    let (normalise, stats) = norm::by_own_statistics(&map, eps, relu)?;
    let op = ConvNorm {
        geometry,
        x: x.clone(),
        weight: weight.clone(),
        params: Tensor::stack(&[&scale.detach(), &shift.detach()], 0)?,
        residual: residual.is_some_and(Tensor::track_op),
        map,
        normalise,
    };
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let y = by_dtype!(x.dtype(), T => op.forward::<T>(residual.as_ref()))?;
    let shape = op.map.shape().clone();
    let mut inputs = vec![&x, &weight, scale, shift];
    inputs.extend(residual.as_ref());
    Ok((record::record(&inputs, op, (y, shape))?, stats))
}

struct ConvNorm {
    geometry: Geometry,
    x: Tensor,
    weight: Tensor,
    /// Scale and shift, `[2, out]`.
    params: Tensor,
    /// Whether there is a residual that wants a gradient.
    residual: bool,
    /// What the convolution gave.
    map: Tensor,
    normalise: Normalise,
}

impl ConvNorm {
    fn forward<T: Element>(&self, residual: Option<&Tensor>) -> candle_core::Result<CpuStorage> {
        let y = storage::with_slice::<T, _>(&self.map, |map| {
            storage::with_slice::<T, _>(&self.params, |params| {
                storage::with_optional::<T, _>(residual, |residual| {
                    Ok(self.normalise.forward(map, params, residual))
                })
            })
        })?;
        Ok(T::to_cpu_storage_owned(y))
    }

    fn backward<T: Element>(
        &self,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<Vec<Option<Tensor>>> {
        let (g, x, weight) = (&self.geometry, &self.x, &self.weight);
        let wanted = Wanted {
            x: x.track_op() || weight.track_op(),
            residual: self.residual,
        };
        let (d_map, d_params, d_residual) =
            self.normalise
                .gradients::<T>(&self.map, &self.params, y, dy, wanted)?;
        let (mut dx, mut d_weight) = (None, None);
        if let Some(d_map) = d_map {
            storage::with_slice::<T, _>(&d_map, |dy| {
                if x.track_op() {
                    let data = storage::with_slice(weight, |w| Ok(conv::input_gradient(g, dy, w)))?;
                    dx = Some(Tensor::from_vec(data, x.shape(), x.device())?);
                }
                if weight.track_op() {
                    let data = storage::with_slice(x, |x| Ok(conv::weight_gradient(g, x, dy)))?;
                    d_weight = Some(Tensor::from_vec(data, weight.shape(), x.device())?);
                }
                Ok(())
            })?;
        }
        let one = |at| d_params.as_ref().map(|d| d.get(at)).transpose();
        Ok(vec![dx, d_weight, one(0)?, one(1)?, d_residual])
    }
}

impl Differentiable for ConvNorm {
    fn name(&self) -> &'static str {
        "mixskd-conv-norm"
    }

    fn gradients(&self, y: &Tensor, dy: &Tensor) -> candle_core::Result<Vec<Option<Tensor>>> {
        by_dtype!(y.dtype(), T => self.backward::<T>(y, dy))
    }
}
