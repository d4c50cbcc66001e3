//! CS-KD: an image learns from another of its class.

use mixskd_data::BatchNeeds;
use mixskd_losses::{cross_entropy, kl_divergence};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "cs-kd",
    summary: "each image's prediction is drawn to that of another image of its class",
    source: "Yun et al., Regularizing Class-wise Predictions via Self-knowledge Distillation, CVPR 2020",
    settings: SettingsSpec::of::<ClassWise>(),
    batch: |_| Ok(BatchNeeds::SameClass(1)),
    build: |inputs| Ok(Box::new(CsKd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClassWise {
    /// T, temperature of the KL divergence.
    temperature: f64,
    /// Weight of the divergence.
    weight: f64,
}

impl Default for ClassWise {
    fn default() -> Self {
        Self {
            temperature: 4.0,
            weight: 1.0,
        }
    }
}

impl Settings for ClassWise {
    fn validate(&self) -> Result<()> {
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)
    }
}

/// `CE(z(x), y) + weight·KL_T(z(x) ‖ sg z(x'))`, x' another image of class y. As in the released code, the companions go through the
/// network after the anchors, as a batch of their own in training mode, and neither their labels nor a gradient is used.
struct CsKd {
    backbone: Box<dyn Backbone>,
    settings: ClassWise,
}

impl CsKd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for CsKd {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let anchors = batch.images.dim(0)? / 2;
        let labels = batch.labels.narrow(0, 0, anchors)?;
        let images = batch.images.narrow(0, 0, anchors)?;
        let logits = self.backbone.forward(&images, Mode::Train)?;
        let companions = batch.images.narrow(0, anchors, anchors)?;
        let teacher = self.backbone.forward(&companions, Mode::Train)?.detach();
        let taught = kl_divergence(&logits, &teacher, self.settings.temperature)?;
        let terms = [
            ("task", 1.0, cross_entropy(&logits, &labels)?),
            ("class_wise", self.settings.weight, taught),
        ];
        StepOutput::of(&terms, &logits, &labels)
    }

    fn images_per_sample(&self) -> usize {
        2
    }
}
