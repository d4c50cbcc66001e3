//! Weights, temperature and discriminator mode of the objective.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::presets::{self, MIXSKD};
use super::terms::TERMS;
use crate::{Result, check, gradient_reversal};

/// Whose parameters learn from the adversarial term, and in which direction. Three honest readings of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscriminatorMode {
    /// Discriminators and network both minimise the discriminators' loss: what the released code intends.
    #[default]
    Joint,
    /// The same with discriminators that stay as initialised: what the released code does.
    Frozen,
    /// Discriminators minimise their loss, the network maximises it, through [`gradient_reversal`].
    Reversal,
}

impl DiscriminatorMode {
    /// What a discriminator reads in place of `features`: the same values, the gradient reversed where the mode says so.
    ///
    /// # Shapes
    /// `features` and the result agree.
    ///
    /// # Errors
    /// candle's.
    pub fn input(self, features: &Tensor) -> Result<Tensor> {
        match self {
            Self::Joint | Self::Frozen => Ok(features.clone()),
            Self::Reversal => gradient_reversal(features, 1.0),
        }
    }

    /// Whether the optimiser is to update the discriminators' parameters.
    pub fn trains_discriminators(self) -> bool {
        self != Self::Frozen
    }
}

/// The MixSKD objective's weights and settings. Keys left out take the `mixskd` preset's value.
///
/// `total = Σ weight·part`; a weight of 0 switches its term off: it is neither computed nor reported, and
/// what nothing else reads is not computed either ([`ObjectiveConfig::reads`]). A pure loss has no use for α, the mixing
/// distribution's parameter: it belongs to the sampling of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Weight of the cross-entropy of the original images.
    pub task_original: f64,
    /// Weight of the cross-entropy of the mixed images.
    pub task_mix: f64,
    /// β, weight of the feature maps' mean squared difference.
    pub feature: f64,
    /// γ, weight of the discriminators' loss.
    pub adversarial: f64,
    /// `μ_b`, weight of the branches' divergences.
    pub branch_probability: f64,
    /// Weight of the self-teacher's cross-entropy.
    pub self_teacher_task: f64,
    /// μ, weight of the divergences between backbone and self-teacher.
    pub backbone_probability: f64,
    /// T, temperature of the divergences.
    pub temperature: f64,
    /// `joint`: network and discriminators both minimise the adversarial term; `frozen`: the same, with discriminators that stay as initialised; `reversal`: discriminators
    /// minimise it, the network maximises it. It is read by whoever asks the discriminators and updates them, and not by `objective` itself.
    pub discriminator: DiscriminatorMode,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        MIXSKD.config
    }
}

impl ObjectiveConfig {
    /// The preset called `name`, one of [`ALL`](super::ALL).
    ///
    /// # Errors
    /// When there is none; the error names the nearest.
    pub fn preset(name: &str) -> Result<Self> {
        presets::find(name).map(|preset| preset.config)
    }

    /// Checks every number's range.
    ///
    /// # Errors
    /// When a weight is negative or not finite, or the temperature is not a finite number above 0; the error names the key.
    pub fn validate(&self) -> Result<()> {
        for term in &TERMS {
            check::weight(term.name, (term.weight)(self))?;
        }
        check::temperature(self.temperature)
    }

    /// What the terms of a weight above 0 read. The rest need not be computed.
    pub fn reads(&self) -> Reads {
        let on = |weight: f64| weight > 0.0;
        let probability = on(self.branch_probability) || on(self.backbone_probability);
        Reads {
            original: on(self.task_original),
            mixed: on(self.task_mix) || probability,
            interpolated: probability,
            features: on(self.feature),
            discriminators: on(self.adversarial),
            teacher: on(self.self_teacher_task) || on(self.backbone_probability),
        }
    }

    /// Name and weight of every part a step reports: those of a weight above 0, in the order of [`LossParts::parts`](super::LossParts::parts).
    pub fn weights(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        TERMS
            .iter()
            .map(|term| (term.name, (term.weight)(self)))
            .filter(|(_, weight)| *weight > 0.0)
    }
}

/// Which of [`MixSkdOutputs`](super::MixSkdOutputs) an objective reads.
#[allow(
    clippy::struct_excessive_bools,
    reason = "one for each list, independent of each other"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    /// `z_k(x)` as logits of their own.
    pub original: bool,
    /// `z_k(x̃)`.
    pub mixed: bool,
    /// `ẑ_k`.
    pub interpolated: bool,
    /// `F̂_k` and `F_k(x̃)`, to be compared.
    pub features: bool,
    /// Both opinions of the discriminators, which read `F̂_k` and `F_k(x̃)`.
    pub discriminators: bool,
    /// `h(F̂)` and `h(F(x̃))`, which the self-teacher makes of `F̂_k` and `F_k(x̃)`.
    pub teacher: bool,
}

impl Reads {
    /// Whether anything comes from `F̂_k` and `F_k(x̃)`.
    pub fn maps(self) -> bool {
        self.features || self.discriminators || self.teacher
    }

    /// Whether the original images go through the network.
    pub fn originals(self) -> bool {
        self.original || self.interpolated || self.maps()
    }

    /// Whether the mixes go through the network.
    pub fn mixes(self) -> bool {
        self.mixed || self.maps()
    }
}
