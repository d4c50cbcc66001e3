//! The logarithm of the softmax, shared by every loss on logits.

use candle_core::{D, Tensor};

use crate::Result;
use crate::precision::raised;

/// `z − max z − log Σ_c exp(z_c − max z)` along the last axis. Half-precision input is raised to f32.
///
/// The maximum is a constant to the gradient: it cancels, and candle's own gradient of a maximum is wrong at ties.
pub(crate) fn log_softmax(z: &Tensor) -> Result<Tensor> {
    let z = raised(z)?;
    let shifted = z.broadcast_sub(&z.detach().max_keepdim(D::Minus1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&log_sum)?)
}

/// `[batch]`: each row's entry at its label.
pub(crate) fn at_label(log_p: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(log_p.gather(&labels.unsqueeze(1)?, 1)?.squeeze(1)?)
}
