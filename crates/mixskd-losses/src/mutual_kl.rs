//! Heads that teach each other.

use candle_core::Tensor;

use crate::{Error, Result, kl_divergence};

/// `Σ_{i≠j} KL_T(z_i ‖ sg z_j)` over every ordered pair of heads (Sun et al., Deeply-supervised Knowledge Synergy, CVPR 2019,
/// equation 5). With one head it is 0.
///
/// Reduction, temperature scaling and detached side: as in [`kl_divergence`], summed over pairs.
///
/// # Shapes
/// - `heads`: at least one of `[batch, class]`
/// - result: `[]`
///
/// # Errors
/// When there is no head, a shape does not fit, or `temperature` is not a finite number above 0.
pub fn mutual_kl(heads: &[Tensor], temperature: f64) -> Result<Tensor> {
    let Some(first) = heads.first() else {
        return Err(Error::Shape {
            op: "mutual_kl",
            what: "heads".into(),
            wanted: "one tensor at least".into(),
            got: vec![0],
        });
    };
    // Also what one head alone gives: 0.
    let mut total = kl_divergence(&first.detach(), first, temperature)?.zeros_like()?;
    for (i, student) in heads.iter().enumerate() {
        for (j, teacher) in heads.iter().enumerate() {
            if i != j {
                total = (total + kl_divergence(student, teacher, temperature)?)?;
            }
        }
    }
    Ok(total)
}
