//! Batch normalisation with the residual sum and ReLU that follow it.

use candle_core::Tensor;

use crate::{Result, compose, shape};

/// PyTorch's default ε, added to the variance.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// Batch statistics of one training step, detached; the layer folds them into its running averages.
#[derive(Debug, Clone)]
pub struct BatchStats {
    /// Mean per channel, `[channel]`.
    pub mean: Tensor,
    /// Biased variance per channel (divided by the count), `[channel]`; it normalised the batch.
    pub var: Tensor,
    /// Samples per channel: batch · height · width. The running variance takes `var · count / (count − 1)`.
    pub count: usize,
}

fn check(x: &Tensor, channels: &[&Tensor], residual: Option<&Tensor>) -> Result<()> {
    let (_, _, _, c) = shape::nhwc("batch_norm", "input", x)?;
    for t in channels {
        shape::exactly("batch_norm", "per-channel tensor", t, &[c])?;
    }
    match residual {
        Some(r) => shape::exactly("batch_norm", "residual", r, x.dims()),
        None => Ok(()),
    }
}

/// Normalises by the batch's own statistics, scales, shifts, adds `residual` and applies ReLU where asked:
/// `act(weight · (x − mean) / √(var + eps) + bias + residual)` (Ioffe & Szegedy 2015).
///
/// # Shapes
/// - `x`, `residual`, result: `[batch, height, width, channel]`
/// - `weight`, `bias`: `[channel]`
///
/// # Errors
/// When a shape does not fit.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    check(x, &[weight, bias], residual)?;
    compose::batch_norm_train(x, weight, bias, eps, residual, relu)
}

/// Like [`batch_norm_train`], by running statistics (inference).
///
/// # Shapes
/// - `x`, `residual`, result: `[batch, height, width, channel]`
/// - `weight`, `bias`, `mean`, `var`: `[channel]`
///
/// # Errors
/// When a shape does not fit.
pub fn batch_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    check(x, &[weight, bias, mean, var], residual)?;
    compose::batch_norm_eval(x, weight, bias, mean, var, eps, residual, relu)
}
