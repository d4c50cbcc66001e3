//! Mixup: train on convex combinations of images and labels.

use candle_core::Tensor;
use mixskd_models::{Backbone, Mode};

use super::pairs::Mixer;
use super::{
    DrawSite, Method, MethodInputs, MethodSpec, Mixes, Mixing, SettingsSpec, StepOutput, TrainBatch,
};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mixup",
    summary: "cross-entropy on λ·x + (1−λ)·x[π] against both labels",
    source: "Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018",
    settings: SettingsSpec::of::<Mixing>(),
    build: |inputs| Ok(Box::new(Mixup::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// `λ·CE(z(x̃), y) + (1−λ)·CE(z(x̃), y[π])` with x̃ = λ·x + (1−λ)·x[π], λ ~ Beta(α, α).
struct Mixup {
    backbone: Box<dyn Backbone>,
    mixer: Mixer,
}

impl Mixup {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            mixer: Mixer::mixup(inputs.settings::<Mixing>()?.sampler(inputs)),
        })
    }
}

impl Method for Mixup {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn draws(&self, site: &DrawSite) -> Result<Vec<Tensor>> {
        self.mixer.draws(site)
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let pairs = self.mixer.pairs(batch)?;
        let logits = self
            .backbone
            .forward(&pairs.mix(&batch.images)?, Mode::Train)?;
        let task = pairs.cross_entropy(&logits, &batch.labels)?;
        StepOutput::of(&[("task_mix", 1.0, task)], &logits, &pairs.dominant)
    }

    fn mixes(&self, batch: &TrainBatch) -> Result<Option<Mixes>> {
        let pairs = self.mixer.pairs(batch)?;
        Ok(Some(pairs.shown(&batch.images)?))
    }
}
