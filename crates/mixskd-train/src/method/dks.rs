//! DKS: heads at three depths teach each other.

use candle_core::Tensor;
use mixskd_losses::mutual_kl;
use mixskd_models::{Backbone, Cost, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::deep::{self, Deep};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "dks",
    summary: "two more heads; every head learns every other's prediction",
    source: "Sun et al., Deeply-supervised Knowledge Synergy, CVPR 2019",
    settings: SettingsSpec::of::<Synergy>(),
    build: |inputs| Ok(Box::new(Dks::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// Heads beside the backbone's: on the stages before the last.
const HEADS: usize = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Synergy {
    /// T, temperature of the KL divergences.
    temperature: f64,
    /// Weight of each divergence.
    weight: f64,
}

impl Default for Synergy {
    fn default() -> Self {
        Self {
            temperature: 4.0,
            weight: 1.0,
        }
    }
}

impl Settings for Synergy {
    fn validate(&self) -> Result<()> {
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)
    }
}

/// `Σ_k CE(z_k, y) + weight·Σ_{i≠j} KL_T(z_i ‖ sg z_j)` over the backbone and the branches on the two stages before its last:
/// [`mixskd_losses::mutual_kl`].
struct Dks {
    network: Deep,
    settings: Synergy,
}

impl Dks {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            network: Deep::new(inputs, Some(HEADS))?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for Dks {
    fn backbone(&self) -> &dyn Backbone {
        self.network.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let outputs = self.network.outputs(&batch.images, Mode::Train)?;
        let logits: Vec<Tensor> = outputs.iter().map(|head| head.logits.clone()).collect();
        let synergy = mutual_kl(&logits, self.settings.temperature)?;
        let terms = [
            ("task", 1.0, deep::task(&outputs, 1.0, &batch.labels)?),
            ("synergy", self.settings.weight, synergy),
        ];
        StepOutput::of(&terms, &logits[logits.len() - 1], &batch.labels)
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        self.network.heads(images)
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        self.network.cost(size)
    }
}
