//! Kullback–Leibler divergence from a detached teacher at a temperature.

use candle_core::Tensor;

use crate::precision::raised;
use crate::{Result, check};

/// `KL_T(student ‖ teacher) = T²·mean_i Σ_c p_ic·(log p_ic − log q_ic)`, `p = softmax(teacher / T)`,
/// `q = softmax(student / T)` (Hinton et al. 2015; MixSKD, Yang et al. 2022, the probability losses).
///
/// Reduction: sum over classes, batch mean. Temperature: both sides are divided by `T`, the sum is multiplied by `T²`, so
/// that the gradient's size does not depend on `T`. Detached: the teacher. Never negative but for rounding; computed in f64.
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
    let student = raised(student)?;
    let teacher = teacher.detach().to_dtype(student.dtype())?;
    Ok(mixskd_kernels::kl_divergence(
        &student,
        &teacher,
        temperature,
    )?)
}
