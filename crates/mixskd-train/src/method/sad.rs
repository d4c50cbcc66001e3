//! SAD: each stage learns where the next deeper one looks.

use mixskd_losses::{attention_distillation, cross_entropy};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "sad",
    summary: "each stage's attention map learns that of the next deeper stage",
    source: "Hou et al., Learning Lightweight Lane Detection CNNs by Self Attention Distillation, ICCV 2019",
    settings: SettingsSpec::of::<Attention>(),
    build: |inputs| Ok(Box::new(Sad::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Attention {
    /// Weight of the attention maps' mean squared differences.
    weight: f64,
}

impl Default for Attention {
    fn default() -> Self {
        Self { weight: 1000.0 }
    }
}

impl Settings for Attention {
    fn validate(&self) -> Result<()> {
        config::weight("weight", self.weight)
    }
}

/// `CE(z(x), y) + weight·Σ_{k<K} mean((A(F_k) − sg A(F_{k+1}))²)`, A the attention map, the deeper one resized to the shallower:
/// [`mixskd_losses::attention_distillation`].
struct Sad {
    backbone: Box<dyn Backbone>,
    settings: Attention,
}

impl Sad {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for Sad {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let stages = self.backbone.stages(&batch.images, Mode::Train)?;
        // A network has at least one stage.
        let logits = self.backbone.head(&stages[stages.len() - 1])?;
        let task = cross_entropy(&logits, &batch.labels)?;
        let mut attention = task.zeros_like()?;
        for pair in stages.windows(2) {
            attention = (attention + attention_distillation(&pair[0], &pair[1])?)?;
        }
        let terms = [
            ("task", 1.0, task),
            ("attention", self.settings.weight, attention),
        ];
        StepOutput::of(&terms, &logits, &batch.labels)
    }
}
