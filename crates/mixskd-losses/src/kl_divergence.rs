//! Kullback–Leibler divergence from a teacher at a temperature.

use candle_core::Tensor;

use crate::log_softmax::log_softmax;
use crate::precision::{compute_dtype, doubled, raised};
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

/// The value of [`kl_divergence`], with a gradient for both sides: the teacher is pulled to the student as well.
///
/// Reduction and temperature scaling: as in [`kl_divergence`]. Detached: nothing. Computed in f64.
///
/// # Shapes
/// - `student`, `teacher`: `[batch, class]`, logits
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or `temperature` is not a finite number above 0.
pub fn kl_divergence_attached(
    student: &Tensor,
    teacher: &Tensor,
    temperature: f64,
) -> Result<Tensor> {
    let (batch, classes) = check::logits("kl_divergence_attached", "student", student)?;
    check::exactly(
        "kl_divergence_attached",
        "teacher",
        teacher,
        &[batch, classes],
    )?;
    check::temperature(temperature)?;
    let log_p = log_softmax(&(doubled(teacher)? / temperature)?)?;
    from_logarithms(student, &log_p.exp()?, &log_p, temperature)
}

/// `T²·mean_i Σ_c p_ic·(log p_ic − log q_ic)`, `q = softmax(student / T)`, p and its logarithm in [`doubled`]'s type.
pub(crate) fn from_logarithms(
    student: &Tensor,
    p: &Tensor,
    log_p: &Tensor,
    temperature: f64,
) -> Result<Tensor> {
    let log_q = log_softmax(&(doubled(student)? / temperature)?)?;
    let divergence = (p * (log_p - log_q)?)?.sum_all()?;
    let scaled = (divergence * (temperature * temperature / student.dim(0)? as f64))?;
    Ok(scaled.to_dtype(compute_dtype(student.dtype()))?)
}
