//! Cross-entropy of mixed images with both of their labels.

use candle_core::Tensor;

use crate::precision::raised;
use crate::{Result, check};

/// mixCE: `mean_i [λ_i·CE_i(y_i) + (1 − λ_i)·CE_i(y_π(i))]`, `CE_i(y) = −log softmax(logits_i)_y`
/// (Zhang et al., mixup, 2018; MixSKD, Yang et al. 2022).
///
/// Reduction: batch mean. Temperature: none. Detached: λ.
///
/// # Shapes
/// - `logits`: `[batch, class]`, of the mixed images
/// - `labels`, `partner_labels`: `[batch]`, u32: `y` and `y[π]`
/// - `lambda`: `[batch]`, any float type; one value repeated where λ is drawn per batch
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit, labels are not u32, or (on the CPU) a label is out of range.
pub fn mix_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    partner_labels: &Tensor,
    lambda: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "mix_cross_entropy";
    let (batch, _) = check::logits(OP, "logits", logits)?;
    check::labels(OP, "labels", labels, batch)?;
    check::labels(OP, "partner_labels", partner_labels, batch)?;
    check::exactly(OP, "lambda", lambda, &[batch])?;
    let logits = raised(logits)?;
    Ok(mixskd_kernels::mix_cross_entropy(
        &logits,
        labels,
        partner_labels,
        lambda,
    )?)
}
