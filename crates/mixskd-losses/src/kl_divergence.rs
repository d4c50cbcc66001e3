//! Kullback–Leibler divergence from a detached teacher at a temperature.

use candle_core::Tensor;

use crate::log_softmax::log_softmax;
use crate::{Result, check};

/// `KL_T(student ‖ teacher) = T²·mean_i Σ_c p_ic·(log p_ic − log q_ic)`, `p = softmax(teacher / T)`,
/// `q = softmax(student / T)` (Hinton et al. 2015; MixSKD, Yang et al. 2022, the probability losses).
///
/// Reduction: sum over classes, batch mean. Temperature: both sides are divided by `T`, the sum is multiplied by `T²`, so
/// that the gradient's size does not depend on `T`. Detached: the teacher. Never negative but for rounding.
///
/// # Shapes
/// - `student`, `teacher`: `[batch, class]`, logits
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or `temperature` is not a finite number above 0.
pub fn kl_divergence(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let (batch, classes) = check::logits("kl_divergence", "student", student)?;
    check::exactly("kl_divergence", "teacher", teacher, &[batch, classes])?;
    check::temperature(temperature)?;
    let log_q = log_softmax(&(student / temperature)?)?;
    let log_p = log_softmax(&(teacher.detach() / temperature)?)?;
    let divergence = (log_p.exp()? * (&log_p - log_q)?)?.sum_all()?;
    Ok((divergence * (temperature * temperature / batch as f64))?)
}
