//! Label smoothing.

use mixskd_losses::label_smoothing;
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "label-smoothing",
    summary: "cross-entropy against (1−ε)·onehot + ε/C",
    source: "Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016",
    settings: SettingsSpec::of::<Smoothing>(),
    build: |inputs| Ok(Box::new(LabelSmoothing::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Smoothing {
    /// ε, the share of the label that is spread over all classes.
    epsilon: f64,
}

impl Default for Smoothing {
    fn default() -> Self {
        Self { epsilon: 0.1 }
    }
}

impl Settings for Smoothing {
    fn validate(&self) -> Result<()> {
        config::within("epsilon", self.epsilon, 0.0, 1.0)
    }
}

/// `−Σ_c t_c·log p_c(x)`, `t = (1−ε)·onehot(y) + ε/C`: [`mixskd_losses::label_smoothing`].
struct LabelSmoothing {
    backbone: Box<dyn Backbone>,
    settings: Smoothing,
}

impl LabelSmoothing {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for LabelSmoothing {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let task = label_smoothing(&logits, &batch.labels, self.settings.epsilon)?;
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }
}
