//! Cross-entropy with smoothed labels.

use candle_core::Tensor;

use crate::precision::raised;
use crate::{Result, check, cross_entropy, soft_cross_entropy};

/// `−mean_i Σ_c t_ic·log p_ic` with `t_ic = (1 − ε)·[c = y_i] + ε/C` (Szegedy et al., Rethinking the Inception Architecture,
/// CVPR 2016, section 7).
///
/// Reduction: batch mean. Temperature: none. Detached: nothing; labels have no gradient.
///
/// # Shapes
/// - `logits`: `[batch, class]`
/// - `labels`: `[batch]`, u32, below the number of classes
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit, labels are not u32, or `epsilon` is not from 0 to 1.
pub fn label_smoothing(logits: &Tensor, labels: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (batch, classes) = check::logits("label_smoothing", "logits", logits)?;
    check::labels("label_smoothing", "labels", labels, batch)?;
    check::fraction("epsilon", epsilon)?;
    let even = (raised(logits)?.ones_like()? / classes as f64)?;
    let own = (cross_entropy(logits, labels)? * (1.0 - epsilon))?;
    Ok((own + (soft_cross_entropy(logits, &even)? * epsilon)?)?)
}
