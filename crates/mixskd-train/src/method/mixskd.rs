//! MixSKD: self-knowledge distillation from mixup.

use candle_core::Tensor;
use mixskd_data::{LambdaPer, PairSampler};
use mixskd_kernels::{has_gpu_kernels, join_samples, samples};
use mixskd_losses::{MixSkdOutputs, ObjectiveConfig, objective};
use mixskd_models::{Backbone, Cost, Discriminator, DiscriminatorHead, Mode, SelfTeacher};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::deep::Deep;
use super::pairs::{MapMix, Mixer, Operator, PairTensors};
use super::{
    DrawSite, Method, MethodInputs, MethodSpec, Mixes, SettingsSpec, StepOutput, TrainBatch,
};
use crate::{Error, Result};

#[cfg(test)]
mod golden;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mixskd",
    summary: "what the network says of two images and of their mix learn from each other, through branches and a self-teacher",
    source: "Yang et al., MixSKD: Self-Knowledge Distillation from Mixup for Image Recognition, ECCV 2022",
    settings: SettingsSpec::of::<Parts>(),
    objective: true,
    check_objective: |config, objective| Parts::objective(&config.typed()?, objective).map(drop),
    build: |inputs| Ok(Box::new(MixSkd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// The whole objective of the paper: originals and mixes go through the network as one batch, so that batch norm sees
/// both; K heads, K discriminators and the self-teacher hang on the stages. See [`mixskd_losses::objective`]. What no term of a weight
/// above 0 reads is neither built nor run.
struct MixSkd {
    network: Deep,
    teacher: Option<SelfTeacher>,
    /// One for each head, or none.
    discriminators: Vec<Discriminator>,
    mixer: Mixer,
    objective: ObjectiveConfig,
}

/// How images are mixed, and which parts of the network there are. Terms are switched by their weights in `[objective]`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parts {
    /// α of the Beta(α, α) that λ is drawn from.
    alpha: f64,
    /// One λ (and box) per `batch` or per `sample`.
    lambda_per: LambdaPer,
    /// `mixup` or `cutmix`.
    mixing: Operator,
    /// With `cutmix`: whether the originals' feature maps are interpolated by `lambda` or by the `box`.
    map_mixing: MapMix,
    /// Whether branches hang on the shallow stages; without them the backbone is the only head.
    branches: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            alpha: 0.4,
            lambda_per: LambdaPer::Batch,
            mixing: Operator::Mixup,
            map_mixing: MapMix::Lambda,
            branches: true,
        }
    }
}

impl Parts {
    /// The objective as far as these parts have it: no sum over branches that are not there.
    ///
    /// # Errors
    /// When nothing of it is left.
    fn objective(&self, asked: &ObjectiveConfig) -> Result<ObjectiveConfig> {
        let mut objective = *asked;
        if !self.branches {
            objective.branch_probability = 0.0;
        }
        let reads = objective.reads();
        if reads.originals() || reads.mixes() {
            return Ok(objective);
        }
        Err(Error::config(
            "objective",
            "has every weight at 0, or that of branches alone where there are none: there is nothing to learn",
        ))
    }
}

impl Settings for Parts {
    fn validate(&self) -> Result<()> {
        if self.map_mixing == MapMix::Box && self.mixing == Operator::Mixup {
            return Err(Error::Config {
                place: "method.map_mixing".into(),
                message: "`box` interpolates maps by the box that CutMix cuts, and mixup cuts none"
                    .into(),
                hint: Some("set method.mixing=cutmix as well, or leave it out".into()),
            });
        }
        config::alpha(self.alpha)
    }
}

/// Logits on the interpolated and on the mixes' feature maps, where anything reads them.
#[derive(Default)]
struct Judged {
    teacher: [Option<Tensor>; 2],
    discriminators: [Vec<Tensor>; 2],
}

impl MixSkd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        inputs.objective.validate()?;
        let parts: Parts = inputs.settings()?;
        let objective = parts.objective(inputs.objective)?;
        let reads = objective.reads();
        let network = Deep::new(inputs, (!parts.branches).then_some(0))?;
        let builder = inputs.builder();
        let channels = network.backbone.stage_channels();
        let heads = if parts.branches { channels.len() } else { 1 };
        let channels = channels.last().copied().unwrap_or_default();
        let teacher = reads
            .teacher
            .then(|| SelfTeacher::new(heads, channels, inputs.model.classes, builder.pp("teacher")))
            .transpose()?;
        let judges = if reads.discriminators { heads } else { 0 };
        let discriminators = (0..judges)
            .map(|k| {
                let builder = builder.pp("discriminators").pp(k);
                Ok(Discriminator::new(
                    channels,
                    DiscriminatorHead::TwoLogits,
                    builder,
                )?)
            })
            .collect::<Result<_>>()?;
        if !objective.discriminator.trains_discriminators() {
            inputs.store.freeze("discriminators");
        }
        Ok(Self {
            network,
            teacher,
            discriminators,
            mixer: Mixer {
                sampler: PairSampler {
                    alpha: parts.alpha,
                    per: parts.lambda_per,
                    seed: inputs.seed,
                },
                operator: parts.mixing,
                maps: parts.map_mixing,
            },
            objective,
        })
    }

    /// Discriminators' and the self-teacher's logits on the interpolated and on the mixes' feature maps. A GPU, on which small products take
    /// as long as larger ones, is given both as one batch: neither module has a batch norm.
    fn judge(&self, interpolated: &[Tensor], mixed: &[Tensor]) -> Result<Judged> {
        let [Some(first), Some(_)] = [interpolated.first(), mixed.first()] else {
            return Ok(Judged::default());
        };
        if !has_gpu_kernels(first.device()) {
            return Ok(Judged {
                teacher: [self.teach(interpolated)?, self.teach(mixed)?],
                discriminators: [self.discriminate(interpolated)?, self.discriminate(mixed)?],
            });
        }
        let both = interpolated.iter().zip(mixed);
        let both = both
            .map(|(a, b)| Ok(join_samples(&[a, b])?))
            .collect::<Result<Vec<_>>>()?;
        let size = first.dim(0)?;
        let (teacher, discriminators) = (self.teach(&both)?, self.discriminate(&both)?);
        let half = |at: usize, t: &Tensor| Ok::<_, Error>(samples(t, at, size)?);
        let teacher_of = |at| teacher.as_ref().map(|t| half(at, t)).transpose();
        let discriminators_of = |at| {
            let halves = discriminators.iter().map(|t| half(at, t));
            halves.collect::<Result<Vec<_>>>()
        };
        Ok(Judged {
            teacher: [teacher_of(0)?, teacher_of(size)?],
            discriminators: [discriminators_of(0)?, discriminators_of(size)?],
        })
    }

    /// The discriminators' opinion of feature maps.
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

    /// The self-teacher's logits on one set of maps.
    fn teach(&self, features: &[Tensor]) -> Result<Option<Tensor>> {
        let teach = |teacher: &SelfTeacher| Ok(teacher.forward(features, Mode::Train)?);
        self.teacher.as_ref().map(teach).transpose()
    }

    /// The objective for pairs already drawn.
    fn step_with(&self, batch: &TrainBatch, pairs: &PairTensors) -> Result<StepOutput> {
        let reads = self.objective.reads();
        let size = batch.images.dim(0)?;
        let (originals, mixes) = (reads.originals(), reads.mixes());
        let mut images = Vec::with_capacity(2);
        if originals {
            images.push(batch.images.clone());
        }
        if mixes {
            images.push(pairs.images(&batch.images)?);
        }
        let heads = self.network.outputs(
            &join_samples(&images.iter().collect::<Vec<_>>())?,
            Mode::Train,
        )?;

        // Mixes come after the originals, where there are any.
        let second = if originals { size } else { 0 };
        let part = |there: bool, at: usize, list: &[Tensor]| -> Result<Vec<Tensor>> {
            let list = if there { list } else { &[] };
            list.iter().map(|t| Ok(samples(t, at, size)?)).collect()
        };
        let logits: Vec<Tensor> = heads.iter().map(|head| head.logits.clone()).collect();
        let maps: Vec<Tensor> = heads.iter().map(|head| head.features.clone()).collect();
        let original = part(originals, 0, &logits)?;
        let mixed = part(mixes, second, &logits)?;
        let interpolated = if reads.interpolated {
            original
                .iter()
                .map(|z| pairs.mix(z))
                .collect::<Result<_>>()?
        } else {
            vec![]
        };
        let mixed_features = part(reads.maps(), second, &maps)?;
        let interpolated_features = part(reads.maps(), 0, &maps)?
            .iter()
            .map(|map| pairs.maps(map))
            .collect::<Result<Vec<_>>>()?;

        // The backbone is the last head, and there is always one.
        let (backbone_logits, targets) = match original.last() {
            Some(logits) => (logits.detach(), batch.labels.clone()),
            None => (mixed[mixed.len() - 1].detach(), pairs.dominant.clone()),
        };
        let Judged {
            teacher: [teacher_interpolated, teacher_mixed],
            discriminators: [discriminator_interpolated, discriminator_mixed],
        } = self.judge(&interpolated_features, &mixed_features)?;
        let outputs = MixSkdOutputs {
            teacher_interpolated,
            teacher_mixed,
            discriminator_interpolated,
            discriminator_mixed,
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
            targets,
        })
    }
}

impl Method for MixSkd {
    fn backbone(&self) -> &dyn Backbone {
        self.network.backbone.as_ref()
    }

    fn draws(&self, site: &DrawSite) -> Result<Vec<Tensor>> {
        self.mixer.draws(site)
    }

    fn is_static(&self) -> bool {
        self.mixer.is_static()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let pairs = self.mixer.pairs(batch)?;
        self.step_with(batch, &pairs)
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let outputs = self.network.outputs(images, Mode::Eval)?;
        let features: Vec<Tensor> = outputs.iter().map(|head| head.features.clone()).collect();
        let mut named = self.network.named(outputs);
        if let Some(teacher) = &self.teacher {
            named.push((
                "self-teacher".into(),
                teacher.forward(&features, Mode::Eval)?,
            ));
        }
        Ok(named)
    }

    fn mixes(&self, batch: &TrainBatch) -> Result<Option<Mixes>> {
        let reads = self.objective.reads();
        if !reads.mixes() {
            return Ok(None);
        }
        let mut mixes = self.mixer.pairs(batch)?.shown(&batch.images)?;
        mixes.originals = reads.originals();
        Ok(Some(mixes))
    }

    fn images_per_sample(&self) -> usize {
        let reads = self.objective.reads();
        usize::from(reads.originals()) + usize::from(reads.mixes())
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        let mut cost = self.network.cost(size)?;
        if let Some(&last) = cost.stages.last() {
            if let Some(teacher) = &self.teacher {
                cost.add(&teacher.cost(last)?);
            }
            for discriminator in &self.discriminators {
                cost.add(&discriminator.cost(last));
            }
        }
        Ok(cost)
    }
}
