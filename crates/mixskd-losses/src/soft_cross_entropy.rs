//! Cross-entropy with a distribution as the target.

use candle_core::Tensor;

use crate::precision::raised;
use crate::{Result, check};

/// Cross-entropy with soft targets: `−mean_i Σ_c t_ic·log softmax(logits_i)_c`
/// (Hinton et al. 2015; label smoothing, PS-KD and BAKE are this with targets of their own).
///
/// Reduction: sum over classes, batch mean. Temperature: none. Detached: the targets. They need not sum to one.
///
/// # Shapes
/// - `logits`, `targets`: `[batch, class]`, any float types
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (batch, classes) = check::logits("soft_cross_entropy", "logits", logits)?;
    check::exactly("soft_cross_entropy", "targets", targets, &[batch, classes])?;
    let logits = raised(logits)?;
    let targets = targets.detach().to_dtype(logits.dtype())?;
    Ok(mixskd_kernels::soft_cross_entropy(&logits, &targets)?)
}
