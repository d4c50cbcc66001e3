//! Convolution and batch norm as one op of candle's.
//!
//! Apart, the map between the two gets a gradient of its own in candle's store, which is made of zeros, added to and kept:
//! passes over memory that no arithmetic needs. Together, the gradient goes from one kernel to the next.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Tensor, bail};

use crate::conv::{self, Geometry};
use crate::norm::{self, BatchStats, Normalise, Wanted};
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
    let params = Tensor::stack(&[scale, shift], 0)?;
    let gradients = Slot::default();
    let token = weight.apply_op2(&params, Parameters(gradients.clone()))?;
    let op = ConvNorm {
        geometry,
        weight: weight.detach(),
        wants_weight: weight.track_op(),
        params: params.detach(),
        map,
        normalise,
        gradients,
    };
    let y = match residual {
        Some(residual) => x.apply_op3(&token, &residual.contiguous()?, op)?,
        None => x.apply_op2(&token, op)?,
    };
    Ok((y, stats))
}

/// Gradients of the weight and of scale and shift, on their way from [`ConvNorm`] to [`Parameters`].
type Slot = Arc<Mutex<Option<(Option<Tensor>, Tensor)>>>;

/// Stands for a weight and its norm's scale and shift, so that one op can have more than three inputs: a single element
/// that [`ConvNorm`] takes as an input. The gradients come through the slot.
struct Parameters(Slot);

impl CustomOp2 for Parameters {
    fn name(&self) -> &'static str {
        "mixskd-conv-norm-parameters"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(weight.dtype(), T => Ok(storage::own(vec![T::default()], 1)))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.take() {
            Some((weight, params)) => Ok((weight, Some(params))),
            None => bail!("{}: no gradient has arrived", self.name()),
        }
    }
}

struct ConvNorm {
    geometry: Geometry,
    /// Detached.
    weight: Tensor,
    wants_weight: bool,
    /// Scale and shift, `[2, out]`, detached.
    params: Tensor,
    /// What the convolution gave.
    map: Tensor,
    normalise: Normalise,
    gradients: Slot,
}

impl ConvNorm {
    fn forward<T: Element>(&self, residual: Option<&[T]>) -> candle_core::Result<CpuStorage> {
        let y = storage::with_slice::<T, _>(&self.map, |map| {
            storage::with_slice::<T, _>(&self.params, |params| {
                Ok(self.normalise.forward(map, params, residual))
            })
        })?;
        Ok(T::to_cpu_storage_owned(y))
    }

    /// The gradients of `x` and the residual; the others go to the slot.
    fn gradients<T: Element>(
        &self,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
        residual: bool,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let g = &self.geometry;
        let wanted = Wanted {
            x: x.track_op() || self.wants_weight,
            residual,
        };
        let (d_map, d_params, d_residual) =
            self.normalise
                .gradients::<T>(&self.map, &self.params, y, dy, wanted)?;
        let (mut dx, mut d_weight) = (None, None);
        if let Some(d_map) = d_map {
            storage::with_slice::<T, _>(&d_map, |dy| {
                if x.track_op() {
                    let data =
                        storage::with_slice(&self.weight, |w| Ok(conv::input_gradient(g, dy, w)))?;
                    dx = Some(Tensor::from_vec(data, x.shape(), x.device())?);
                }
                if self.wants_weight {
                    let data = storage::with_slice(x, |x| Ok(conv::weight_gradient(g, x, dy)))?;
                    d_weight = Some(Tensor::from_vec(data, self.weight.shape(), x.device())?);
                }
                Ok(())
            })?;
        }
        if let Some(d_params) = d_params {
            let mut slot = self
                .gradients
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *slot = Some((d_weight, d_params));
        }
        Ok((dx, d_residual))
    }
}

impl CustomOp2 for ConvNorm {
    fn name(&self) -> &'static str {
        "mixskd-conv-norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        token: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = by_dtype!(token.dtype(), T => self.forward::<T>(None))?;
        Ok((y, self.map.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        token: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, _) = by_dtype!(x.dtype(), T => self.gradients::<T>(x, y, dy, false))?;
        Ok((dx, Some(token.detach())))
    }
}

impl CustomOp3 for ConvNorm {
    fn name(&self) -> &'static str {
        "mixskd-conv-norm-residual"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        token: &CpuStorage,
        _: &Layout,
        residual: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = by_dtype!(token.dtype(), T => {
            self.forward::<T>(Some(storage::slice(residual, layout)?))
        })?;
        Ok((y, self.map.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        token: &Tensor,
        residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let residual = residual.track_op();
        let (dx, d_residual) = by_dtype!(x.dtype(), T => self.gradients::<T>(x, y, dy, residual))?;
        Ok((dx, Some(token.detach()), d_residual))
    }
}
