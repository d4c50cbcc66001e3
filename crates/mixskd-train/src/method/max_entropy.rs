//! Maximum entropy: confident predictions are penalised.

use mixskd_losses::{cross_entropy, entropy};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "max-entropy",
    summary: "cross-entropy minus β times the prediction's entropy",
    source: "Pereyra et al., Regularizing Neural Networks by Penalizing Confident Output Distributions, ICLR workshop 2017",
    settings: SettingsSpec::of::<Penalty>(),
    build: |inputs| Ok(Box::new(MaxEntropy::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Penalty {
    /// β, weight of the entropy (in nats) that is subtracted from the loss.
    entropy_weight: f64,
}

impl Default for Penalty {
    fn default() -> Self {
        Self {
            entropy_weight: 0.5,
        }
    }
}

impl Settings for Penalty {
    fn validate(&self) -> Result<()> {
        config::weight("entropy_weight", self.entropy_weight)
    }
}

/// `CE(z(x), y) − β·H(p(x))`, H in nats: [`mixskd_losses::entropy`].
struct MaxEntropy {
    backbone: Box<dyn Backbone>,
    settings: Penalty,
}

impl MaxEntropy {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for MaxEntropy {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let terms = [
            ("task", 1.0, cross_entropy(&logits, &batch.labels)?),
            ("entropy", -self.settings.entropy_weight, entropy(&logits)?),
        ];
        StepOutput::of(&terms, &logits, &batch.labels)
    }
}
