//! What one training step of the network hands to the objective.

use candle_core::Tensor;

use super::ObjectiveConfig;
use crate::{Error, Result};

/// The outputs of one step. In every list the branches come first, in the order of their stages, and the backbone last: K in all.
/// What only terms of weight 0 would read may be left empty.
///
/// `x` are the original images, `x̃ = λ·x + (1 − λ)·x[π]` their mixes; "interpolated" means `λ·v(x) + (1 − λ)·v(x)[π]`
/// ([`interpolate`](crate::interpolate)).
#[derive(Debug, Clone, Default)]
pub struct MixSkdOutputs {
    /// `z_k(x)`: logits of the originals, K of `[batch, class]`.
    pub original: Vec<Tensor>,
    /// `z_k(x̃)`: logits of the mixes, K of `[batch, class]`.
    pub mixed: Vec<Tensor>,
    /// `ẑ_k`: interpolated logits of the originals, K of `[batch, class]`.
    pub interpolated: Vec<Tensor>,
    /// `F̂_k`: interpolated last feature maps of the originals, K of `[batch, height, width, channel]`.
    pub interpolated_features: Vec<Tensor>,
    /// `F_k(x̃)`: last feature maps of the mixes, K of `[batch, height, width, channel]`.
    pub mixed_features: Vec<Tensor>,
    /// `h(F̂)`: the self-teacher's logits on the interpolated maps, `[batch, class]`.
    pub teacher_interpolated: Option<Tensor>,
    /// `h(F(x̃))`: the self-teacher's logits on the mixes' maps, `[batch, class]`.
    pub teacher_mixed: Option<Tensor>,
    /// `D_k(F̂_k)`: discriminators' logits, K of `[batch, 1 or 2]`.
    pub discriminator_interpolated: Vec<Tensor>,
    /// `D_k(F_k(x̃))`: discriminators' logits, K of `[batch, 1 or 2]`.
    pub discriminator_mixed: Vec<Tensor>,
}

impl MixSkdOutputs {
    /// Some logits, for their number type and device.
    pub(super) fn any_logits(&self) -> Option<&Tensor> {
        self.original.first().or(self.mixed.first())
    }

    /// Checks that every list has K tensors. One that no term of `config` reads may be empty.
    pub(super) fn check_heads(&self, config: &ObjectiveConfig) -> Result<()> {
        let heads = self.original.len().max(self.mixed.len()).max(1);
        let read = config.reads();
        let lists = [
            ("original", &self.original, read.original),
            ("mixed", &self.mixed, read.mixed),
            ("interpolated", &self.interpolated, read.interpolated),
            (
                "interpolated_features",
                &self.interpolated_features,
                read.features,
            ),
            ("mixed_features", &self.mixed_features, read.features),
            (
                "discriminator_interpolated",
                &self.discriminator_interpolated,
                read.discriminators,
            ),
            (
                "discriminator_mixed",
                &self.discriminator_mixed,
                read.discriminators,
            ),
        ];
        for (what, list, needed) in lists {
            if list.len() != heads && (needed || !list.is_empty()) {
                return Err(Error::Heads {
                    what,
                    wanted: heads,
                    got: list.len(),
                });
            }
        }
        for (what, logits) in [
            ("teacher_interpolated", &self.teacher_interpolated),
            ("teacher_mixed", &self.teacher_mixed),
        ] {
            if read.teacher && logits.is_none() {
                return Err(Error::Heads {
                    what,
                    wanted: 1,
                    got: 0,
                });
            }
        }
        Ok(())
    }
}
