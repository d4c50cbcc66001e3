//! CutMix: a box of one image in another.

use candle_core::Tensor;
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::pairs::{MapMix, Mixer, Operator};
use super::{
    DrawSite, Method, MethodInputs, MethodSpec, Mixes, SettingsSpec, StepOutput, TrainBatch,
};
use crate::Result;
use mixskd_data::{LambdaPer, PairSampler};

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "cutmix",
    summary: "cross-entropy on images with a box from another, the labels weighted by area",
    source: "Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019",
    settings: SettingsSpec::of::<Cutting>(),
    build: |inputs| Ok(Box::new(CutMix::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cutting {
    /// α of the Beta(α, α) that the kept area is drawn from.
    alpha: f64,
    /// One box per `batch` or per `sample`.
    lambda_per: LambdaPer,
    /// Share of the batches that are cut; the others are trained on as they are. The authors' CIFAR recipe takes 0.5.
    probability: f64,
}

impl Default for Cutting {
    fn default() -> Self {
        Self {
            alpha: 1.0,
            lambda_per: LambdaPer::Batch,
            probability: 1.0,
        }
    }
}

impl Settings for Cutting {
    fn validate(&self) -> Result<()> {
        config::alpha(self.alpha)?;
        config::within("probability", self.probability, 0.0, 1.0)
    }
}

/// `λ·CE(z(x̃), y) + (1−λ)·CE(z(x̃), y[π])`, x̃ the image x with a box of x[π], λ the area that x keeps.
struct CutMix {
    backbone: Box<dyn Backbone>,
    mixer: Mixer,
}

impl CutMix {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        let settings: Cutting = inputs.settings()?;
        Ok(Self {
            backbone: inputs.backbone()?,
            mixer: Mixer {
                sampler: PairSampler {
                    alpha: settings.alpha,
                    per: settings.lambda_per,
                    seed: inputs.seed,
                },
                operator: Operator::Cutmix,
                maps: MapMix::Lambda,
                probability: settings.probability,
            },
        })
    }
}

impl Method for CutMix {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn draws(&self, site: &DrawSite) -> Result<Vec<Tensor>> {
        self.mixer.draws(site)
    }

    fn is_static(&self) -> bool {
        self.mixer.is_static()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let pairs = self.mixer.pairs(batch)?;
        let logits = self
            .backbone
            .forward(&pairs.images(&batch.images)?, Mode::Train)?;
        let task = pairs.cross_entropy(&logits, &batch.labels)?;
        StepOutput::of(&[("task_mix", 1.0, task)], &logits, &pairs.dominant)
    }

    fn mixes(&self, batch: &TrainBatch) -> Result<Option<Mixes>> {
        let pairs = self.mixer.pairs(batch)?;
        Ok(Some(pairs.shown(&batch.images)?))
    }
}
