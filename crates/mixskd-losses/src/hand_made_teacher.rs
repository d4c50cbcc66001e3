//! Divergence from a teacher that nobody trained.

use candle_core::{DType, Device, Tensor};

use crate::{Result, check, kl_divergence};

/// `KL_T(logits ‖ t)` with a hand-made teacher `t` that gives `1 − ε` to the label and `ε/(C − 1)` to each other class (Yuan et
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
pub fn hand_made_teacher(
    logits: &Tensor,
    labels: &Tensor,
    epsilon: f64,
    temperature: f64,
) -> Result<Tensor> {
    let (batch, classes) = check::logits("hand_made_teacher", "logits", logits)?;
    check::labels("hand_made_teacher", "labels", labels, batch)?;
    check::open_fraction("epsilon", epsilon)?;
    let other = (epsilon / classes.saturating_sub(1).max(1) as f64).ln();
    let own = (1.0 - epsilon).ln();
    // One row for each class, of which every sample takes its label's.
    let rows = (0..classes * classes)
        .map(|at| {
            if at / classes == at % classes {
                own
            } else {
                other
            }
        })
        .collect::<Vec<f64>>();
    let rows = Tensor::from_vec(rows, (classes, classes), &Device::Cpu)?;
    // Metal knows no f64.
    let rows = if logits.device().is_metal() {
        rows.to_dtype(DType::F32)?
    } else {
        rows
    };
    let teacher = rows.to_device(logits.device())?.index_select(labels, 0)?;
    // The teacher is given in f64: rounded to the logits' type, it would be another one.
    let student = logits.to_dtype(teacher.dtype())?;
    let loss = kl_divergence(&student, &teacher, temperature)?;
    Ok(loss.to_dtype(crate::precision::compute_dtype(logits.dtype()))?)
}
