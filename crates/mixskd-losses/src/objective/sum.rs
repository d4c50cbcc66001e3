//! The objective's parts and their weighted sum.

use std::cmp::Reverse;

use candle_core::Tensor;
use mixskd_kernels::{side_by_side, unhurried};

use super::terms::{Step, TERMS, zero};
use super::{MixSkdOutputs, ObjectiveConfig};
use crate::Result;

/// A loss and the named parts it is the weighted sum of.
#[derive(Debug, Clone)]
pub struct LossParts {
    /// What is to be minimised, `[]`.
    pub total: Tensor,
    /// Every part of a weight above 0, `[]`, before its weight.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// The MixSKD objective (Yang et al. 2022), `total = Σ weight·part` over
/// - `task_original`: `Σ_k CE(z_k(x), y)`
/// - `task_mix`: `Σ_k mixCE(z_k(x̃))`
/// - `feature`: `Σ_k mean((F̂_k − F_k(x̃))²)`
/// - `adversarial`: `Σ_k` discriminator `D_k`'s loss
/// - `branch_probability`: `Σ_{k<K} KL_T(ẑ_k ‖ sg z_k(x̃)) + KL_T(z_k(x̃) ‖ sg ẑ_k)`
/// - `self_teacher_task`: `mixCE(h(F̂)) + mixCE(h(F(x̃)))`
/// - `backbone_probability`: `KL_T(ẑ_K ‖ sg h(F(x̃))) + KL_T(z_K(x̃) ‖ sg h(F̂))`
///
/// Reductions, temperature scaling and detached sides are those of the single losses; `sg` marks the detached teacher.
/// A part whose weight is 0 is neither computed nor reported.
///
/// How discriminators learn is not seen from here: with [`config.discriminator`](ObjectiveConfig::discriminator) other than joint, whoever asks them gives
/// [`DiscriminatorMode::input`](super::DiscriminatorMode::input) in place of the features, and an optimiser leaves their parameters alone unless
/// [`trains_discriminators`](super::DiscriminatorMode::trains_discriminators).
///
/// # Shapes
/// - `outputs`: see [`MixSkdOutputs`]
/// - `labels`, `partner_labels`: `[batch]`, u32: `y` and `y[π]`
/// - `lambda`: `[batch]`
///
/// # Errors
/// When `config` is out of range, the lists differ in length, or a shape does not fit.
pub fn objective(
    outputs: &MixSkdOutputs,
    labels: &Tensor,
    partner_labels: &Tensor,
    lambda: &Tensor,
    config: &ObjectiveConfig,
) -> Result<LossParts> {
    config.validate()?;
    outputs.check_heads(config)?;
    let step = Step {
        outputs,
        labels,
        partner_labels,
        lambda,
        temperature: config.temperature,
    };
    let terms = TERMS.iter().map(|term| (term, (term.weight)(config)));
    let terms: Vec<_> = terms.filter(|&(_, weight)| weight > 0.0).collect();
    // No term needs another: all read what is there already. Who takes most begins.
    let mut order: Vec<_> = (0..terms.len()).collect();
    order.sort_by_key(|&at| Reverse((terms[at].0.losses)(outputs)));
    let ready = vec![lambda; terms.len()];
    let value = |index: usize| (terms[order[index]].0.value)(&step);
    let values = unhurried(|| side_by_side(&ready, value))?;
    let mut values: Vec<_> = order.into_iter().zip(values).collect();
    values.sort_by_key(|&(at, _)| at);
    let names = terms.iter().map(|(term, _)| term.name);
    let parts: Vec<_> = names
        .zip(values.into_iter().map(|(_, value)| value))
        .collect();
    let weights = terms.iter().map(|&(_, weight)| weight);
    let weighted: Vec<_> = parts.iter().map(|(_, part)| part).zip(weights).collect();
    let total = unhurried(|| weighted_sum(&weighted))?;
    let total = total.map_or_else(|| zero(outputs, lambda), Ok)?;
    Ok(LossParts { total, parts })
}

/// `Σ weight · x` of scalars, where there are any.
pub(super) fn weighted_sum(all: &[(&Tensor, f64)]) -> Result<Option<Tensor>> {
    if let Some(sum) = mixskd_kernels::weighted_sum(all)? {
        return Ok(Some(sum));
    }
    let mut total: Option<Tensor> = None;
    for &(x, weight) in all {
        let own = if weight.to_bits() == 1f64.to_bits() {
            x.clone()
        } else {
            (x * weight)?
        };
        total = Some(match total {
            Some(total) => (total + own)?,
            None => own,
        });
    }
    Ok(total)
}
