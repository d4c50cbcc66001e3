//! The focal loss.

use mixskd_losses::focal_loss;
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "focal",
    summary: "cross-entropy weighted by (1−p)^γ, p the label's probability",
    source: "Lin et al., Focal Loss for Dense Object Detection, ICCV 2017",
    settings: SettingsSpec::of::<Focus>(),
    build: |inputs| Ok(Box::new(Focal::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Focus {
    /// γ, focusing exponent: the larger, the less a well classified image counts; at least 1.
    gamma: f64,
}

impl Default for Focus {
    fn default() -> Self {
        Self { gamma: 2.0 }
    }
}

impl Settings for Focus {
    fn validate(&self) -> Result<()> {
        config::within("gamma", self.gamma, 1.0, 100.0)
    }
}

/// `−(1 − p_y(x))^γ·log p_y(x)`: [`mixskd_losses::focal_loss`].
struct Focal {
    backbone: Box<dyn Backbone>,
    settings: Focus,
}

impl Focal {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for Focal {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let task = focal_loss(&logits, &batch.labels, self.settings.gamma)?;
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }
}
