//! Tf-KD (reg): knowledge distillation from a teacher made by hand.

use mixskd_losses::{cross_entropy, virtual_teacher};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "tf-kd",
    summary: "KL divergence from a hand-designed teacher: 1−ε on the label, ε/(C−1) on each other class",
    source: "Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020",
    settings: SettingsSpec::of::<Teacher>(),
    build: |inputs| Ok(Box::new(TfKd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Teacher {
    /// ε, what the teacher leaves to the classes beside the label; strictly between 0 and 1.
    epsilon: f64,
    /// T, temperature of the KL divergence.
    temperature: f64,
    /// Weight of the divergence.
    weight: f64,
    /// Weight of the cross-entropy; the paper's loss weighs it by 1 − α, and the divergence by α.
    task_weight: f64,
}

impl Default for Teacher {
    fn default() -> Self {
        Self {
            epsilon: 0.1,
            temperature: 20.0,
            weight: 1.0,
            task_weight: 1.0,
        }
    }
}

impl Settings for Teacher {
    fn validate(&self) -> Result<()> {
        config::within("epsilon", self.epsilon, 1e-6, 1.0 - 1e-6)?;
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)?;
        config::weight("task_weight", self.task_weight)
    }
}

/// `task_weight·CE(z(x), y) + weight·KL_T(z(x) ‖ t_y)`: [`mixskd_losses::virtual_teacher`].
struct TfKd {
    backbone: Box<dyn Backbone>,
    settings: Teacher,
}

impl TfKd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for TfKd {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let Teacher {
            epsilon,
            temperature,
            weight,
            task_weight,
        } = self.settings;
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let taught = virtual_teacher(&logits, &batch.labels, epsilon, temperature)?;
        let terms = [
            ("task", task_weight, cross_entropy(&logits, &batch.labels)?),
            ("teacher", weight, taught),
        ];
        StepOutput::of(&terms, &logits, &batch.labels)
    }
}
