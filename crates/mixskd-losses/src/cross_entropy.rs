//! Cross-entropy with integer labels.

use candle_core::Tensor;

use crate::precision::raised;
use crate::{Result, check};

/// Cross-entropy of the softmax with one label a sample: `−mean_i log p_i(y_i)`, `p = softmax(logits)`
/// (MixSKD, Yang et al. 2022, the task loss).
///
/// Reduction: batch mean. Temperature: none. Detached: nothing; labels have no gradient.
///
/// # Shapes
/// - `logits`: `[batch, class]`
/// - `labels`: `[batch]`, u32, below the number of classes
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit, labels are not u32, or (on the CPU) a label is out of range.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
///
/// let logits = Tensor::new(&[[2.0f64, 0.0]], &Device::Cpu)?;
/// let labels = Tensor::new(&[0u32], &Device::Cpu)?;
/// let loss = mixskd_losses::cross_entropy(&logits, &labels)?.to_scalar::<f64>()?;
/// assert!((loss - (1.0 + (-2.0f64).exp()).ln()).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (batch, _) = check::logits("cross_entropy", "logits", logits)?;
    check::labels("cross_entropy", "labels", labels, batch)?;
    Ok(mixskd_kernels::cross_entropy(&raised(logits)?, labels)?)
}
