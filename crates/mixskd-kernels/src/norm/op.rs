//! The candle op behind both batch norms.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use crate::par;
use crate::simd::Element;
use crate::storage::{self, by_dtype};

use super::apply::{self, Incoming, Lines};

/// `act(weight · (x − mean) · inv_std + bias + residual)` with given statistics. Inputs are `x`, weight and bias stacked to
/// `[2, channel]`, and the residual if there is one.
pub(crate) struct Normalise {
    pub(super) mean: Vec<f64>,
    pub(super) inv_std: Vec<f64>,
    pub(super) relu: bool,
    /// Whether the statistics are those of `x` itself, so that its gradient flows through them too.
    pub(super) own_statistics: bool,
}

/// The gradients of `x`, of `[weight, bias]` and of the residual.
type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

/// Which gradients of maps are wanted; that of weight and bias always is.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) x: bool,
    pub(crate) residual: bool,
}

impl Normalise {
    /// The output; `params` are weight and bias, one after the other.
    pub(crate) fn forward<T: Element>(
        &self,
        x: &[T],
        params: &[T],
        residual: Option<&[T]>,
    ) -> Vec<T> {
        let (weight, bias) = params.split_at(self.mean.len());
        let scale: Vec<f64> = std::iter::zip(weight, &self.inv_std)
            .map(|(w, s)| w.to_f64() * s)
            .collect();
        let centre: Vec<T> = cast(&self.mean);
        // What rounding took off the mean goes into the shift.
        let shift: Vec<T> = (0..scale.len())
            .map(|c| T::of(bias[c].to_f64() + (centre[c].to_f64() - self.mean[c]) * scale[c]))
            .collect();
        let lines = Lines {
            centre: &centre,
            scale: &cast(&scale),
            shift: &shift,
        };
        apply::forward(x, residual, lines, self.relu)
    }

    /// The gradients of an output `y` that was made from `x`, contiguous, and `params`, `[2, channel]`.
    pub(crate) fn gradients<T: Element>(
        &self,
        x: &Tensor,
        params: &Tensor,
        y: &Tensor,
        dy: &Tensor,
        wanted: Wanted,
    ) -> Result<Gradients> {
        let dy = dy.contiguous()?;
        let channels = self.mean.len();
        let weight: Vec<T> = params.get(0)?.to_vec1()?;
        let keep = wanted.residual;
        storage::with_slice::<T, _>(x, |x_data| {
            storage::with_slice::<T, _>(y, |y_data| {
                storage::with_slice::<T, _>(&dy, |dy_data| {
                    let g = Incoming {
                        dy: dy_data,
                        y: self.relu.then_some(y_data),
                    };
                    let mut kept = None;
                    let centre: Vec<T> = cast(&self.mean);
                    let (sum, product) = if keep {
                        let mut sums = (vec![], vec![]);
                        // SAFETY: `reduce` writes the masked gradient in full.
                        let data = unsafe {
                            par::filled(x_data.len(), |kept| {
                                sums = apply::reduce(g, x_data, &centre, Some(kept));
                            })
                        };
                        kept = Some(data);
                        sums
                    } else {
                        apply::reduce(g, x_data, &centre, None)
                    };
                    let count = (x_data.len() / channels) as f64;
                    let mut d_params = vec![T::default(); 2 * channels];
                    let mut coefficients = [(); 3].map(|()| vec![T::default(); channels]);
                    for c in 0..channels {
                        let scale = weight[c].to_f64() * self.inv_std[c];
                        d_params[c] = T::of(product[c] * self.inv_std[c]);
                        d_params[channels + c] = T::of(sum[c]);
                        coefficients[0][c] = T::of(scale);
                        if self.own_statistics {
                            let slope =
                                -scale * self.inv_std[c] * self.inv_std[c] * product[c] / count;
                            coefficients[1][c] = T::of(slope);
                            coefficients[2][c] = T::of(-scale * sum[c] / count);
                        }
                    }
                    let dx = if wanted.x {
                        let g = match &kept {
                            Some(kept) => Incoming { dy: kept, y: None },
                            None => g,
                        };
                        let [scale, slope, shift] = &coefficients;
                        let lines = Lines {
                            centre: &centre,
                            scale: slope,
                            shift,
                        };
                        let dx = apply::backward(g, x_data, scale, lines);
                        Some(Tensor::from_vec(dx, x.shape(), x.device())?)
                    } else {
                        None
                    };
                    let d_params = Tensor::from_vec(d_params, (2, channels), x.device())?;
                    let d_residual = kept
                        .map(|kept| Tensor::from_vec(kept, x.shape(), x.device()))
                        .transpose()?;
                    Ok((dx, Some(d_params), d_residual))
                })
            })
        })
    }
}

fn cast<T: Element>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&v| T::of(v)).collect()
}

impl CustomOp2 for Normalise {
    fn name(&self) -> &'static str {
        "mixskd-batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        params: &CpuStorage,
        params_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), T => {
            let params = storage::slice::<T>(params, params_layout)?;
            let y = self.forward::<T>(storage::slice(x, x_layout)?, params, None);
            Ok(storage::own(y, x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        params: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        by_dtype!(x.dtype(), T => {
            let wanted = Wanted { x: x.track_op(), residual: false };
            let (dx, d_params, _) = self.gradients::<T>(x, params, y, dy, wanted)?;
            Ok((dx, d_params))
        })
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "mixskd-batch-norm-residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        params: &CpuStorage,
        params_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), T => {
            let params = storage::slice::<T>(params, params_layout)?;
            let residual = storage::slice::<T>(residual, residual_layout)?;
            let y = self.forward::<T>(storage::slice(x, x_layout)?, params, Some(residual));
            Ok(storage::own(y, x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        params: &Tensor,
        residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<Gradients> {
        let wanted = Wanted {
            x: x.track_op(),
            residual: residual.track_op(),
        };
        by_dtype!(x.dtype(), T => self.gradients::<T>(x, params, y, dy, wanted))
    }
}
