//! DDGSD: two distortions of an image agree.

use mixskd_data::BatchNeeds;
use mixskd_losses::{cross_entropy, kernel_mmd, kl_divergence, scalar_mean_difference};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "ddgsd",
    summary: "two random distortions of each image agree in prediction and in the features' distribution",
    source: "Xu & Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019",
    settings: SettingsSpec::of::<Distortion>(),
    batch: |_| Ok(BatchNeeds::Views(2)),
    build: |inputs| Ok(Box::new(Ddgsd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// How far two sets of features are apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Discrepancy {
    /// The squared maximum mean discrepancy of a Gaussian kernel.
    #[default]
    KernelMmd,
    /// The squared difference of the two scalar means: degenerate.
    ScalarMeans,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Distortion {
    /// T, temperature of the KL divergences.
    temperature: f64,
    /// Weight of the divergences.
    weight: f64,
    /// `kernel_mmd`, the squared MMD of a Gaussian kernel, or `scalar_means`, the squared difference of two scalar means, as in the code of the MixSKD paper's table.
    discrepancy: Discrepancy,
    /// Weight of the discrepancy.
    discrepancy_weight: f64,
}

impl Default for Distortion {
    fn default() -> Self {
        Self {
            temperature: 4.0,
            weight: 1.0,
            discrepancy: Discrepancy::KernelMmd,
            discrepancy_weight: 5e-4,
        }
    }
}

impl Settings for Distortion {
    fn validate(&self) -> Result<()> {
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)?;
        config::weight("discrepancy_weight", self.discrepancy_weight)
    }
}

/// `½·[CE(z, y) + CE(z', y)] + weight·[KL_T(z ‖ sg z') + KL_T(z' ‖ sg z)] + discrepancy_weight·MMD²(f, f')` for two distortions of
/// each image, which go through the network as one batch; f and f' are their pooled features. See
/// [`mixskd_losses::kernel_mmd`].
struct Ddgsd {
    backbone: Box<dyn Backbone>,
    settings: Distortion,
}

impl Ddgsd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for Ddgsd {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let anchors = batch.images.dim(0)? / 2;
        let stages = self.backbone.stages(&batch.images, Mode::Train)?;
        // A network has at least one stage.
        let features = self.backbone.pooled(&stages[stages.len() - 1])?;
        let logits = self.backbone.classifier().forward(&features)?;
        let half = |x: &candle_core::Tensor, at: usize| x.narrow(0, at * anchors, anchors);
        let (first, second) = (half(&logits, 0)?, half(&logits, 1)?);
        let temperature = self.settings.temperature;
        let forth = kl_divergence(&first, &second, temperature)?;
        let back = kl_divergence(&second, &first, temperature)?;
        let discrepancy = match self.settings.discrepancy {
            Discrepancy::KernelMmd => kernel_mmd,
            Discrepancy::ScalarMeans => scalar_mean_difference,
        };
        let apart = discrepancy(&half(&features, 0)?, &half(&features, 1)?)?;
        let terms = [
            ("task", 1.0, cross_entropy(&logits, &batch.labels)?),
            ("probability", self.settings.weight, (forth + back)?),
            ("discrepancy", self.settings.discrepancy_weight, apart),
        ];
        StepOutput::of(&terms, &first, &batch.labels.narrow(0, 0, anchors)?)
    }

    fn images_per_sample(&self) -> usize {
        2
    }
}
