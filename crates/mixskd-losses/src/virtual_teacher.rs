//! Divergence from a teacher that nobody trained.

use candle_core::{DType, Device, Tensor};

use crate::{Result, check, kl_divergence};

/// `KL_T(logits ‖ t)` with a virtual teacher `t`, designed by hand, that gives `1 − ε` to the label and `ε/(C − 1)` to each other class (Yuan et
/// al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020, section 5.2). The teacher's logits
/// are the logarithms of its probabilities, so that its temperature means what a network's does; the authors' code softens the
/// probabilities themselves, and leaves the network's without temperature.
///
/// Reduction, temperature scaling and detached side: as in [`kl_divergence`].
///
/// # Shapes
/// - `logits`: `[batch, class]`
/// - `labels`: `[batch]`, u32, below the number of classes
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit, labels are not u32 or out of range, `epsilon` is not strictly between 0 and 1, or `temperature`
/// is not a finite number above 0.
pub fn virtual_teacher(
    logits: &Tensor,
    labels: &Tensor,
    epsilon: f64,
    temperature: f64,
) -> Result<Tensor> {
    let (batch, classes) = check::logits("virtual_teacher", "logits", logits)?;
    check::labels("virtual_teacher", "labels", labels, batch)?;
    check::open_fraction("epsilon", epsilon)?;
    let other = (epsilon / classes.saturating_sub(1).max(1) as f64).ln();
    let own = (1.0 - epsilon).ln();
    let device = logits.device();
    // Metal knows no f64.
    let dtype = if device.is_metal() {
        DType::F32
    } else {
        DType::F64
    };
    let all = |value: f64| {
        let value = Tensor::new(value, &Device::Cpu)?.to_dtype(dtype)?;
        value.to_device(device)?.broadcast_as((batch, classes))
    };
    let indices = Tensor::arange(0, classes as u32, device)?;
    let is_own = indices.broadcast_eq(&labels.unsqueeze(1)?)?;
    let teacher = is_own.where_cond(&all(own)?, &all(other)?)?;
    // The teacher is given in f64: rounded to the logits' type, it would be another one.
    let student = logits.to_dtype(teacher.dtype())?;
    let loss = kl_divergence(&student, &teacher, temperature)?;
    Ok(loss.to_dtype(crate::precision::compute_dtype(logits.dtype()))?)
}
