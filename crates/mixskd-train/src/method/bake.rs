//! BAKE: an image learns from what the network says of the images around it.

use mixskd_data::BatchNeeds;
use mixskd_losses::{cross_entropy, ensemble_targets, kl_divergence, kl_from_targets};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "bake",
    summary: "soft targets gathered from similar images of the batch, which holds M more of each image's class",
    source: "Ge et al., Self-distillation with Batch Knowledge Ensembling Improves ImageNet Classification, 2021",
    settings: SettingsSpec::of::<Ensembling>(),
    batch: |config| {
        Ok(BatchNeeds::SameClass(
            config.typed::<Ensembling>()?.companions,
        ))
    },
    build: |inputs| Ok(Box::new(Bake::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ensembling {
    /// M, images of its class that come with each image of the batch, on top of it.
    companions: usize,
    /// ω, the share that the others have in an image's target; below 1.
    omega: f64,
    /// T of targets and divergence.
    temperature: f64,
    /// Weight of the divergence.
    weight: f64,
    /// The targets, probabilities already, go through another softmax at T, as in the code of the MixSKD paper's table: hardly more than uniform ones are left.
    soften_targets: bool,
}

impl Default for Ensembling {
    fn default() -> Self {
        Self {
            companions: 3,
            omega: 0.5,
            temperature: 4.0,
            weight: 1.0,
            soften_targets: false,
        }
    }
}

impl Settings for Ensembling {
    fn validate(&self) -> Result<()> {
        config::within("companions", self.companions as f64, 1.0, 64.0)?;
        config::within("omega", self.omega, 0.0, 0.999)?;
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)
    }
}

/// `CE(z, y) + weight·T²·mean Σ_c q_c·(log q_c − log p_T,c)` over anchors and companions alike, which go through the network as one
/// batch; `Q = (1−ω)(I − ωA)⁻¹·softmax(z/T)`: [`mixskd_losses::ensemble_targets`]. As published, the companions' labels count too:
/// a step sees M + 1 times as many labelled images as another method's, and costs as much. The targets are probabilities, in the authors' code too;
/// in that of the MixSKD paper's table they are taken for logits (`soften_targets`).
struct Bake {
    backbone: Box<dyn Backbone>,
    settings: Ensembling,
}

impl Bake {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for Bake {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let Ensembling {
            omega, temperature, ..
        } = self.settings;
        let stages = self.backbone.stages(&batch.images, Mode::Train)?;
        // A network has at least one stage.
        let features = self.backbone.pooled(&stages[stages.len() - 1])?;
        let logits = self.backbone.classifier().forward(&features)?;
        let targets = ensemble_targets(&features, &logits, omega, temperature)?;
        let divergence = if self.settings.soften_targets {
            kl_divergence
        } else {
            kl_from_targets
        };
        let taught = divergence(&logits, &targets, temperature)?;
        let terms = [
            ("task", 1.0, cross_entropy(&logits, &batch.labels)?),
            ("ensemble", self.settings.weight, taught),
        ];
        let anchors = batch.images.dim(0)? / self.images_per_sample();
        let labels = batch.labels.narrow(0, 0, anchors)?;
        StepOutput::of(&terms, &logits.narrow(0, 0, anchors)?, &labels)
    }

    fn images_per_sample(&self) -> usize {
        self.settings.companions + 1
    }
}
