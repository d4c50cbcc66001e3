//! The discriminators D_k of the adversarial term.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_kernels::relu;
use serde::{Deserialize, Serialize};

use crate::layers::Linear;
use crate::{Cost, Result, StageShape};

/// Units of the hidden layer.
const HIDDEN: usize = 128;

/// What a discriminator ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscriminatorHead {
    /// Two logits, each for a binary cross-entropy (the released code's).
    #[default]
    TwoLogits,
    /// One logit, for a binary cross-entropy.
    OneLogit,
}

/// Tells interpolated feature maps from those of mixed images: global average pool → `Linear(channels, 128)` → ReLU →
/// `Linear(128, 2 or 1)`. Parameters `0.*` and `2.*`, PyTorch's default initialisation.
#[derive(Debug)]
pub struct Discriminator {
    hidden: Linear,
    output: Linear,
}

impl Discriminator {
    /// Makes a discriminator for maps of `channels` channels.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    pub fn new(channels: usize, head: DiscriminatorHead, vb: VarBuilder) -> Result<Self> {
        let outputs = match head {
            DiscriminatorHead::TwoLogits => 2,
            DiscriminatorHead::OneLogit => 1,
        };
        Ok(Self {
            hidden: Linear::new(channels, HIDDEN, vb.pp(0))?,
            output: Linear::new(HIDDEN, outputs, vb.pp(2))?,
        })
    }

    /// The logits.
    ///
    /// # Shapes
    /// `[batch, height, width, channel]` → `[batch, 2]` or `[batch, 1]`
    ///
    /// # Errors
    /// When the map does not fit.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let hidden = relu(&self.hidden.forward_pooled(features)?)?;
        self.output.forward(&hidden)
    }

    /// What one run costs on one sample of shape `input`.
    pub fn cost(&self, input: StageShape) -> Cost {
        let mut cost = Cost::default();
        self.hidden.cost_pooled(input, &mut cost);
        cost.activations += HIDDEN as u64;
        self.output.cost(&mut cost);
        cost
    }
}
