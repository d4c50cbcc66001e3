//! FRSKD: a self-teacher refines the backbone's feature maps, and teaches it maps and predictions.

use candle_core::Tensor;
use mixskd_losses::{attention_distance, cross_entropy, kl_divergence, kl_divergence_attached};
use mixskd_models::{Backbone, BiFpn, Cost, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{
    BACKBONE, Method, MethodInputs, MethodSpec, SELF_TEACHER, SettingsSpec, StepOutput, TrainBatch,
};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "frskd",
    summary: "a self-teacher that passes feature maps up and down teaches attention and predictions",
    source: "Ji et al., Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation, CVPR 2021",
    settings: SettingsSpec::of::<Refinement>(),
    build: |inputs| Ok(Box::new(Frskd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Refinement {
    /// T, temperature of the KL divergence.
    temperature: f64,
    /// Weight of the divergence.
    weight: f64,
    /// The divergence pulls the self-teacher to the network too, as in the code of the MixSKD paper's table.
    mutual: bool,
    /// Weight of the attention distances.
    attention_weight: f64,
}

impl Default for Refinement {
    fn default() -> Self {
        Self {
            temperature: 4.0,
            weight: 2.0,
            mutual: false,
            attention_weight: 100.0,
        }
    }
}

impl Settings for Refinement {
    fn validate(&self) -> Result<()> {
        config::temperature(self.temperature)?;
        config::weight("weight", self.weight)?;
        config::weight("attention_weight", self.attention_weight)
    }
}

/// `CE(z, y) + CE(h, y) + weight·KL_T(z ‖ sg h) + attention_weight·Σ_k d(F_k, sg T_k)`: h and `T_k` are the logits and refined maps of a
/// [`BiFpn`] over the backbone's maps `F_k`, d the [`mixskd_losses::attention_distance`]. The teacher is detached here as in the authors' code;
/// in that of the MixSKD paper's table it is not (`mutual`).
struct Frskd {
    backbone: Box<dyn Backbone>,
    teacher: BiFpn,
    settings: Refinement,
}

impl Frskd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        let backbone = inputs.backbone()?;
        let builder = inputs.builder().pp("teacher");
        Ok(Self {
            teacher: BiFpn::new(backbone.stage_channels(), inputs.model.classes, builder)?,
            settings: inputs.settings()?,
            backbone,
        })
    }
}

impl Method for Frskd {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let stages = self.backbone.stages(&batch.images, Mode::Train)?;
        // A network has at least one stage.
        let logits = self.backbone.head(&stages[stages.len() - 1])?;
        let (refined, taught) = self.teacher.forward(&stages, Mode::Train)?;
        let task = cross_entropy(&logits, &batch.labels)?;
        let mut attention = task.zeros_like()?;
        for (own, better) in stages.iter().zip(&refined) {
            attention = (attention + attention_distance(own, better)?)?;
        }
        let divergence = if self.settings.mutual {
            kl_divergence_attached
        } else {
            kl_divergence
        };
        let probability = divergence(&logits, &taught, self.settings.temperature)?;
        let terms = [
            ("task", 1.0, task),
            (
                "self_teacher_task",
                1.0,
                cross_entropy(&taught, &batch.labels)?,
            ),
            ("probability", self.settings.weight, probability),
            ("attention", self.settings.attention_weight, attention),
        ];
        StepOutput::of(&terms, &logits, &batch.labels)
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let stages = self.backbone.stages(images, Mode::Eval)?;
        let logits = self.backbone.head(&stages[stages.len() - 1])?;
        let (_, taught) = self.teacher.forward(&stages, Mode::Eval)?;
        Ok(vec![
            (BACKBONE.into(), logits),
            (SELF_TEACHER.into(), taught),
        ])
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        let mut cost = self.backbone.cost((size, size))?;
        cost.add(&self.teacher.cost(&cost.stages)?);
        Ok(cost)
    }
}
