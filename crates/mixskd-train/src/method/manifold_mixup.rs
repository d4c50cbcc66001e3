//! Manifold Mixup: mixing inside the network, at a stage drawn for each batch.

use candle_core::Tensor;
use mixskd_data::{LambdaPer, PairSampler};
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::pairs::Mixer;
use super::{
    DrawSite, Method, MethodInputs, MethodSpec, Mixes, SettingsSpec, StepOutput, TrainBatch,
};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "manifold-mixup",
    summary: "mixup of the images or of a random stage's feature maps",
    source: "Verma et al., Manifold Mixup: Better Representations by Interpolating Hidden States, ICML 2019",
    settings: SettingsSpec::of::<Manifold>(),
    build: |inputs| Ok(Box::new(ManifoldMixup::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Manifold {
    /// α of the Beta(α, α) that λ is drawn from.
    alpha: f64,
    /// One λ per `batch` or per `sample`.
    lambda_per: LambdaPer,
    /// Deepest stage after which maps may be mixed, counted from 1; 0 is the image. The depth is drawn uniformly from 0 to it.
    deepest: usize,
}

impl Default for Manifold {
    fn default() -> Self {
        Self {
            alpha: 2.0,
            lambda_per: LambdaPer::Batch,
            deepest: 2,
        }
    }
}

impl Settings for Manifold {
    fn validate(&self) -> Result<()> {
        config::alpha(self.alpha)?;
        config::within("deepest", self.deepest as f64, 0.0, 64.0)
    }
}

/// `λ·CE(z, y) + (1−λ)·CE(z, y[π])`, z the logits after `λ·h + (1−λ)·h[π]` of the output h of a stage drawn from image … `deepest`
/// (at most the last stage), uniformly, once a step.
struct ManifoldMixup {
    backbone: Box<dyn Backbone>,
    settings: Manifold,
    mixer: Mixer,
}

impl ManifoldMixup {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        let settings: Manifold = inputs.settings()?;
        Ok(Self {
            backbone: inputs.backbone()?,
            mixer: Mixer::mixup(PairSampler {
                alpha: settings.alpha,
                per: settings.lambda_per,
                seed: inputs.seed,
            }),
            settings,
        })
    }

    /// Stages that a step runs before it mixes.
    fn depth(&self, batch: &TrainBatch) -> usize {
        let deepest = self
            .settings
            .deepest
            .min(self.backbone.stage_channels().len());
        let (epoch, step) = (batch.epoch as u64, batch.step as u64);
        self.mixer.sampler.draw_depth(epoch, step, deepest)
    }
}

impl Method for ManifoldMixup {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn draws(&self, site: &DrawSite) -> Result<Vec<Tensor>> {
        self.mixer.draws(site)
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let pairs = self.mixer.pairs(batch)?;
        let (depth, stages) = (self.depth(batch), self.backbone.stage_channels().len());
        let run = |x: &_, range| self.backbone.stages_in(x, range, Mode::Train);
        let before = run(&batch.images, 0..depth)?.pop();
        let mixed = pairs.mix(before.as_ref().unwrap_or(&batch.images))?;
        let last = run(&mixed, depth..stages)?.pop().unwrap_or(mixed);
        let logits = self.backbone.head(&last)?;
        let task = pairs.cross_entropy(&logits, &batch.labels)?;
        StepOutput::of(&[("task_mix", 1.0, task)], &logits, &pairs.dominant)
    }

    fn mixes(&self, batch: &TrainBatch) -> Result<Option<Mixes>> {
        let pairs = self.mixer.pairs(batch)?;
        let mut mixes = pairs.shown(&batch.images)?;
        mixes.depth = self.depth(batch);
        if mixes.depth > 0 {
            mixes.images = batch.images.clone();
        }
        Ok(Some(mixes))
    }
}
