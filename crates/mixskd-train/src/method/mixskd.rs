//! MixSKD: self-knowledge distillation from mixup.

use candle_core::Tensor;
use mixskd_data::PairSampler;
use mixskd_losses::{MixSkdOutputs, ObjectiveConfig, objective};
use mixskd_models::{
    Backbone, Branches, Cost, Discriminator, DiscriminatorHead, Mode, SelfTeacher,
};

use super::{
    BACKBONE, Method, MethodInputs, MethodSpec, Mixing, PairTensors, SettingsSpec, StepOutput,
    TrainBatch,
};
use crate::Result;

#[cfg(test)]
mod golden;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mixskd",
    summary: "what the network says of two images and of their mix learn from each other, through branches and a self-teacher",
    source: "Yang et al., MixSKD: Self-Knowledge Distillation from Mixup for Image Recognition, ECCV 2022",
    settings: SettingsSpec::of::<Mixing>(),
    objective: true,
    build: |inputs| Ok(Box::new(MixSkd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// The whole objective of the paper: originals and mixes go through the network as one batch, so that batch norm sees
/// both; K heads, K discriminators and the self-teacher hang on the stages. See [`mixskd_losses::objective`].
struct MixSkd {
    backbone: Box<dyn Backbone>,
    branches: Branches,
    teacher: SelfTeacher,
    discriminators: Vec<Discriminator>,
    pairs: PairSampler,
    objective: ObjectiveConfig,
}

impl MixSkd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        inputs.objective.validate()?;
        let backbone = inputs.backbone()?;
        let builder = inputs.builder();
        let classes = inputs.model.classes;
        let stages = backbone.stage_channels().len();
        let channels = backbone
            .stage_channels()
            .last()
            .copied()
            .unwrap_or_default();
        let branches = Branches::new(backbone.as_ref(), classes, builder.pp("branches"))?;
        let teacher = SelfTeacher::new(stages, channels, classes, builder.pp("teacher"))?;
        let discriminators = (0..stages)
            .map(|k| {
                let builder = builder.pp("discriminators").pp(k);
                Ok(Discriminator::new(
                    channels,
                    DiscriminatorHead::TwoLogits,
                    builder,
                )?)
            })
            .collect::<Result<_>>()?;
        if !inputs.objective.discriminator.trains_discriminators() {
            inputs.store.freeze("discriminators");
        }
        Ok(Self {
            backbone,
            branches,
            teacher,
            discriminators,
            pairs: inputs.settings::<Mixing>()?.sampler(inputs),
            objective: *inputs.objective,
        })
    }

    /// The discriminators' opinion of the interpolated and of the mixes' feature maps.
    fn discriminate(&self, features: &[Tensor]) -> Result<Vec<Tensor>> {
        let mode = self.objective.discriminator;
        let judge = |(discriminator, map): (&Discriminator, &Tensor)| {
            Ok(discriminator.forward(&mode.input(map)?)?)
        };
        self.discriminators
            .iter()
            .zip(features)
            .map(judge)
            .collect()
    }

    /// The objective for pairs already drawn.
    fn step_with(&self, batch: &TrainBatch, pairs: &PairTensors) -> Result<StepOutput> {
        let size = batch.images.dim(0)?;
        let both = Tensor::cat(&[&batch.images, &pairs.mix(&batch.images)?], 0)?;
        let heads = self
            .branches
            .all_outputs(self.backbone.as_ref(), &both, Mode::Train)?;

        let first = |t: &Tensor| Ok(t.narrow(0, 0, size)?);
        let second = |t: &Tensor| Ok(t.narrow(0, size, size)?);
        let logits = heads.iter().map(|head| &head.logits);
        let features = heads.iter().map(|head| &head.features);
        let original = logits.clone().map(first).collect::<Result<Vec<_>>>()?;
        let mixed = logits.map(second).collect::<Result<Vec<_>>>()?;
        let interpolated = original
            .iter()
            .map(|z| pairs.mix(z))
            .collect::<Result<Vec<_>>>()?;
        let mixed_features = features.clone().map(second).collect::<Result<Vec<_>>>()?;
        let interpolated_features = features
            .map(|map| pairs.mix(&first(map)?))
            .collect::<Result<Vec<_>>>()?;

        // The backbone is the last head, and there is always one.
        let backbone_logits = original[original.len() - 1].detach();
        let outputs = MixSkdOutputs {
            teacher_interpolated: self.teacher.forward(&interpolated_features, Mode::Train)?,
            teacher_mixed: self.teacher.forward(&mixed_features, Mode::Train)?,
            discriminator_interpolated: self.discriminate(&interpolated_features)?,
            discriminator_mixed: self.discriminate(&mixed_features)?,
            original,
            mixed,
            interpolated,
            interpolated_features,
            mixed_features,
        };
        let parts = objective(
            &outputs,
            &batch.labels,
            &pairs.partner_labels,
            &pairs.lambda,
            &self.objective,
        )?;
        Ok(StepOutput {
            loss: parts.total,
            parts: parts
                .parts
                .into_iter()
                .map(|(name, value)| (name, value.detach()))
                .collect(),
            logits: backbone_logits,
            targets: batch.labels.clone(),
        })
    }
}

impl Method for MixSkd {
    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let pairs = PairTensors::draw(&self.pairs, batch)?;
        self.step_with(batch, &pairs)
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut heads = self
            .branches
            .all_outputs(self.backbone.as_ref(), images, Mode::Eval)?;
        let features = heads
            .iter()
            .map(|head| head.features.clone())
            .collect::<Vec<_>>();
        let teacher = self.teacher.forward(&features, Mode::Eval)?;
        let mut named = Vec::with_capacity(heads.len() + 1);
        if let Some(backbone) = heads.pop() {
            named.push((BACKBONE.to_string(), backbone.logits));
        }
        named.extend(
            heads
                .into_iter()
                .enumerate()
                .map(|(k, head)| (format!("branch {}", k + 1), head.logits)),
        );
        named.push(("self-teacher".into(), teacher));
        Ok(named)
    }

    fn images_per_sample(&self) -> usize {
        2
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        let mut cost = self.backbone.cost((size, size))?;
        cost.add(&self.branches.cost(&cost.stages)?);
        if let Some(&last) = cost.stages.last() {
            cost.add(&self.teacher.cost(last)?);
            for discriminator in &self.discriminators {
                cost.add(&discriminator.cost(last));
            }
        }
        Ok(cost)
    }
}
