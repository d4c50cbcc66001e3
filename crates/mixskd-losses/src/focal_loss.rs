//! Cross-entropy that looks at what is still wrong.

use candle_core::Tensor;

use crate::log_softmax::{at_label, log_softmax};
use crate::{Error, Result, check};

/// `−mean_i (1 − p_i)^γ·log p_i`, `p_i` the probability of the label (Lin et al., Focal Loss for Dense Object Detection,
/// ICCV 2017, equation 4, without its class weights).
///
/// Reduction: batch mean. Temperature: none. Detached: nothing; the gradient flows through the factor, too.
///
/// # Shapes
/// - `logits`: `[batch, class]`
/// - `labels`: `[batch]`, u32, below the number of classes
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit, labels are not u32, or `gamma` is neither 0 nor a finite number from 1: in between, the gradient
/// is infinite where a label is certain.
pub fn focal_loss(logits: &Tensor, labels: &Tensor, gamma: f64) -> Result<Tensor> {
    let (batch, _) = check::logits("focal_loss", "logits", logits)?;
    check::labels("focal_loss", "labels", labels, batch)?;
    if gamma != 0.0 && !(gamma >= 1.0 && gamma.is_finite()) {
        return Err(Error::Range {
            key: "gamma",
            value: gamma,
            hint: "the focal loss takes 0 (plain cross-entropy) or a number from 1; the paper uses 2",
        });
    }
    let log_p = at_label(&log_softmax(logits)?, labels)?;
    let each = if gamma == 0.0 {
        log_p
    } else {
        // 1 − p, which rounding may leave below 0.
        let missed = (1.0 - log_p.exp()?)?.relu()?;
        (missed.powf(gamma)? * log_p)?
    };
    Ok(each.mean_all()?.neg()?)
}
