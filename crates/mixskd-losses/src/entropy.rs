//! How undecided a prediction is.

use candle_core::Tensor;

use crate::log_softmax::log_softmax;
use crate::{Result, check};

/// `−mean_i Σ_c p_ic·log p_ic`, `p = softmax(logits)`, in nats. `CE − β·entropy` is the confidence penalty of Pereyra et al.
/// (Regularizing Neural Networks by Penalizing Confident Output Distributions, 2017, equation 3).
///
/// Reduction: sum over classes, batch mean. Temperature: none. Detached: nothing.
///
/// # Shapes
/// - `logits`: `[batch, class]`
/// - result: `[]`
///
/// # Errors
/// When the shape does not fit.
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let (batch, _) = check::logits("entropy", "logits", logits)?;
    let log_p = log_softmax(logits)?;
    Ok(((log_p.exp()? * &log_p)?.sum_all()? * (-1.0 / batch as f64))?)
}
