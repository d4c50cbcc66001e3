//! BYOT: the deepest head teaches the branches.

use candle_core::Tensor;
use mixskd_losses::{feature_mse, kl_divergence};
use mixskd_models::{Backbone, Cost, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::deep::{self, Deep};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "byot",
    summary: "branches learn the deepest head's logits and feature map",
    source: "Zhang et al., Be Your Own Teacher, ICCV 2019",
    settings: SettingsSpec::of::<OwnTeacher>(),
    build: |inputs| Ok(Box::new(Byot::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OwnTeacher {
    /// T, temperature of the KL divergences.
    temperature: f64,
    /// Weight of the divergences.
    weight: f64,
    /// Weight of the feature maps' mean squared differences.
    feature_weight: f64,
    /// Weight of the branches' cross-entropies; the authors weigh them by 1 − α, and the divergences by α.
    branch_task_weight: f64,
}

impl Default for OwnTeacher {
    fn default() -> Self {
        Self {
            temperature: 4.0,
            weight: 1.0,
            feature_weight: 0.05,
            branch_task_weight: 1.0,
        }
    }
}

impl Settings for OwnTeacher {
    fn validate(&self) -> Result<()> {
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)?;
        config::weight("feature_weight", self.feature_weight)?;
        config::weight("branch_task_weight", self.branch_task_weight)
    }
}

/// `CE(z_K, y) + branch_task_weight·Σ_{k<K} CE(z_k, y) + weight·Σ_{k<K} KL_T(z_k ‖ sg z_K) + feature_weight·Σ_{k<K} mean((F_k − sg F_K)²)`, k over the branches on
/// every shallow stage and the backbone K.
struct Byot {
    network: Deep,
    settings: OwnTeacher,
}

impl Byot {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            network: Deep::new(inputs, None)?,
            settings: inputs.settings()?,
        })
    }
}

impl Method for Byot {
    fn backbone(&self) -> &dyn Backbone {
        self.network.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let outputs = self.network.outputs(&batch.images, Mode::Train)?;
        let task = deep::task(&outputs, self.settings.branch_task_weight, &batch.labels)?;
        let (mut probability, mut feature) = (task.zeros_like()?, task.zeros_like()?);
        let (branches, deepest) = outputs.split_at(outputs.len() - 1);
        let teacher = &deepest[0];
        for branch in branches {
            let taught = kl_divergence(&branch.logits, &teacher.logits, self.settings.temperature)?;
            probability = (probability + taught)?;
            feature = (feature + feature_mse(&branch.features, &teacher.features.detach())?)?;
        }
        let terms = [
            ("task", 1.0, task),
            ("probability", self.settings.weight, probability),
            ("feature", self.settings.feature_weight, feature),
        ];
        StepOutput::of(&terms, &teacher.logits, &batch.labels)
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        self.network.heads(images)
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        self.network.cost(size)
    }
}
