//! What one training step of the network hands to the objective.

use candle_core::Tensor;

use crate::{Error, Result};

/// The outputs of one step. In every list the K−1 branches come first, in the order of their stages, and the backbone last.
///
/// `x` are the original images, `x̃ = λ·x + (1 − λ)·x[π]` their mixes; "interpolated" means `λ·v(x) + (1 − λ)·v(x)[π]`
/// ([`interpolate`](crate::interpolate)).
#[derive(Debug, Clone)]
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
    pub teacher_interpolated: Tensor,
    /// `h(F(x̃))`: the self-teacher's logits on the mixes' maps, `[batch, class]`.
    pub teacher_mixed: Tensor,
    /// `D_k(F̂_k)`: discriminators' logits, K of `[batch, 1 or 2]`; empty where the adversarial weight is 0.
    pub discriminator_interpolated: Vec<Tensor>,
    /// `D_k(F_k(x̃))`: discriminators' logits, K of `[batch, 1 or 2]`; empty where the adversarial weight is 0.
    pub discriminator_mixed: Vec<Tensor>,
}

impl MixSkdOutputs {
    /// The same values with no graph behind them.
    pub(super) fn detached(&self) -> Self {
        let all = |list: &[Tensor]| list.iter().map(Tensor::detach).collect();
        Self {
            original: all(&self.original),
            mixed: all(&self.mixed),
            interpolated: all(&self.interpolated),
            interpolated_features: all(&self.interpolated_features),
            mixed_features: all(&self.mixed_features),
            teacher_interpolated: self.teacher_interpolated.detach(),
            teacher_mixed: self.teacher_mixed.detach(),
            discriminator_interpolated: all(&self.discriminator_interpolated),
            discriminator_mixed: all(&self.discriminator_mixed),
        }
    }

    /// Checks that every list has K tensors. Discriminators' may be empty where they are not `needed`.
    pub(super) fn check_heads(&self, discriminators_needed: bool) -> Result<()> {
        let heads = self.original.len().max(1);
        let lists = [
            ("original", &self.original, true),
            ("mixed", &self.mixed, true),
            ("interpolated", &self.interpolated, true),
            ("interpolated_features", &self.interpolated_features, true),
            ("mixed_features", &self.mixed_features, true),
            (
                "discriminator_interpolated",
                &self.discriminator_interpolated,
                discriminators_needed,
            ),
            (
                "discriminator_mixed",
                &self.discriminator_mixed,
                discriminators_needed || !self.discriminator_interpolated.is_empty(),
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
        Ok(())
    }
}
