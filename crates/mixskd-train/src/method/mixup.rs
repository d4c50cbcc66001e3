//! Mixup: train on convex combinations of images and labels.

use candle_core::Tensor;
use mixskd_data::PairSampler;
use mixskd_models::{Backbone, Cost, Mode};

use super::{
    BACKBONE, Method, MethodInputs, MethodSpec, Mixing, PairTensors, SettingsSpec, StepOutput,
    TrainBatch,
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
    pairs: PairSampler,
}

impl Mixup {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
            pairs: inputs.settings::<Mixing>()?.sampler(inputs),
        })
    }
}

impl Method for Mixup {
    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let pairs = PairTensors::draw(&self.pairs, batch)?;
        let logits = self
            .backbone
            .forward(&pairs.mix(&batch.images)?, Mode::Train)?;
        let loss = mixskd_losses::mix_cross_entropy(
            &logits,
            &batch.labels,
            &pairs.partner_labels,
            &pairs.lambda,
        )?;
        let parts = vec![("task_mix", loss.detach())];
        Ok(StepOutput {
            loss,
            parts,
            logits: logits.detach(),
            targets: pairs.dominant,
        })
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        Ok(vec![(
            BACKBONE.into(),
            self.backbone.forward(images, Mode::Eval)?,
        )])
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        Ok(self.backbone.cost((size, size))?)
    }
}
