//! Binary cross-entropy of a discriminator that tells interpolated feature maps from mixes' feature maps.

use candle_core::Tensor;

use crate::precision::raised;
use crate::{Error, Result, check};

/// Binary cross-entropy of a discriminator's logits, told to answer "interpolated" for `interpolated` and "mixed" for
/// `mixed` (MixSKD, Yang et al. 2022, the adversarial loss).
///
/// The last dimension decides how a logit is read; `σ` is the logistic function:
/// - one logit: `−½·mean log σ(interpolated) − ½·mean log(1 − σ(mixed))`;
/// - two logits (as the released code has it): two yes-or-no questions, "interpolated?" and "mixed?", with targets `(1, 0)`
///   and `(0, 1)`, the binary cross-entropy averaged over all `2·batch·2` answers.
///
/// Reduction: mean over both batches and the answers. Temperature: none. Detached: nothing; where the gradient may go is
/// the caller's choice ([`DiscriminatorMode`](crate::DiscriminatorMode)). Stable for any finite logit.
///
/// # Shapes
/// - `interpolated`, `mixed`: `[batch, 1]` or `[batch, 2]`
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit.
pub fn discriminator_loss(interpolated: &Tensor, mixed: &Tensor) -> Result<Tensor> {
    const OP: &str = "discriminator_loss";
    let (batch, answers) = check::logits(OP, "interpolated", interpolated)?;
    check::exactly(OP, "mixed", mixed, &[batch, answers])?;
    // A logit u whose answer should be yes costs softplus(−u), and softplus(u) otherwise.
    let sign: &[f32] = match answers {
        1 => &[-1.0],
        2 => &[-1.0, 1.0],
        _ => {
            return Err(Error::Shape {
                op: OP,
                what: "interpolated".into(),
                wanted: "[batch, 1] or [batch, 2]".into(),
                got: interpolated.dims().to_vec(),
            });
        }
    };
    let (interpolated, mixed) = (raised(interpolated)?, raised(mixed)?);
    if let Some(loss) = mixskd_kernels::discriminator_loss(&interpolated, &mixed)? {
        return Ok(loss);
    }
    let sign = Tensor::new(sign, interpolated.device())?.to_dtype(interpolated.dtype())?;
    let yes = softplus(&interpolated.broadcast_mul(&sign)?)?.mean_all()?;
    let no = softplus(&mixed.broadcast_mul(&sign.neg()?)?)?.mean_all()?;
    Ok(((yes + no)? * 0.5)?)
}

/// `log(1 + eᵘ)` as `m + log(e^(u−m) + e^(−m))`, `m = max(u, 0)` a constant to the gradient. The textbook form with `|u|`
/// has the wrong gradient at `u = 0`.
fn softplus(u: &Tensor) -> Result<Tensor> {
    let m = u.detach().relu()?;
    let sum = ((u - &m)?.exp()? + m.neg()?.exp()?)?;
    Ok((sum.log()? + m)?)
}
