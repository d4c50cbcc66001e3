//! Cross-entropy with smoothed labels.

use candle_core::Tensor;

use crate::log_softmax::{at_label, log_softmax};
use crate::{Result, check};

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
    let (batch, _) = check::logits("label_smoothing", "logits", logits)?;
    check::labels("label_smoothing", "labels", labels, batch)?;
    check::fraction("epsilon", epsilon)?;
    let log_p = log_softmax(logits)?;
    let own = (at_label(&log_p, labels)?.mean_all()? * (epsilon - 1.0))?;
    Ok((own - (log_p.mean_all()? * epsilon)?)?)
}
