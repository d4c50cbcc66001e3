//! MixSKD: self-knowledge distillation from mixup.

use candle_core::Tensor;
use mixskd_data::{LambdaPer, PairSampler};
use mixskd_kernels::{has_gpu_kernels, join_samples, samples, side_by_side};
use mixskd_losses::{MixSkdOutputs, ObjectiveConfig, objective};
use mixskd_models::{
    Backbone, Cost, Discriminator, DiscriminatorHead, HeadOutput, Mode, SelfTeacher,
};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::deep::Deep;
use super::pairs::{MapMix, Mixer, Operator, PairTensors};
use super::{
    DrawSite, Method, MethodInputs, MethodSpec, Mixes, SELF_TEACHER, SettingsSpec, StepOutput,
    TrainBatch,
};
use crate::{Error, Result};

#[cfg(test)]
mod golden;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "mixskd",
    summary: "features and predictions of a mix and, interpolated, of its two images are made to agree, through branches and a self-teacher",
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

/// What one head says of a batch and of its mixes, as far as anything reads it.
struct Said {
    original: Option<Tensor>,
    mixed: Option<Tensor>,
    interpolated: Option<Tensor>,
    /// Feature maps: interpolated, and the mixes'.
    maps: Option<[Tensor; 2]>,
    /// Both as one batch, where that is what modules are given.
    joined: Option<Tensor>,
}

/// A list of what every head has, or nothing where none has it.
fn every<T>(heads: &[Said], part: impl Fn(&Said) -> Option<T>) -> Vec<T> {
    heads.iter().filter_map(part).collect()
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
                probability: 1.0,
            },
            objective,
        })
    }

    /// What `head` says. `second` is the place of the mixes in its batch.
    fn said(&self, head: &HeadOutput, pairs: &PairTensors, second: usize) -> Result<Said> {
        let reads = self.objective.reads();
        let size = pairs.partner_labels.dim(0)?;
        let part = |there: bool, t: &Tensor, at: usize| {
            let part = there.then(|| samples(t, at, size));
            Ok::<_, Error>(part.transpose()?)
        };
        let original = part(reads.originals(), &head.logits, 0)?;
        let mixed = part(reads.mixes(), &head.logits, second)?;
        let interpolated = match &original {
            Some(logits) if reads.interpolated => Some(pairs.mix(logits)?),
            _ => None,
        };
        let maps = match (
            part(reads.maps(), &head.features, 0)?,
            part(reads.maps(), &head.features, second)?,
        ) {
            (Some(map), Some(of_mixes)) => Some([pairs.maps(&map)?, of_mixes]),
            _ => None,
        };
        // A GPU, on which small products take as long as larger ones, is given both as one batch: neither discriminators nor the self-teacher have a
        // batch norm.
        let joined = match &maps {
            Some([a, b]) if has_gpu_kernels(a.device()) => Some(join_samples(&[a, b])?),
            _ => None,
        };
        Ok(Said {
            original,
            mixed,
            interpolated,
            maps,
            joined,
        })
    }

    /// The self-teacher's logits on the interpolated and on the mixes' maps of all heads.
    fn taught(&self, heads: &[Said], size: usize) -> Result<[Option<Tensor>; 2]> {
        let Some(teacher) = &self.teacher else {
            return Ok([None, None]);
        };
        let teach = |maps: &[Tensor]| Ok::<_, Error>(teacher.forward(maps, Mode::Train)?);
        let joined = every(heads, |head| head.joined.clone());
        let own = |at: usize| {
            every(heads, |head| {
                head.maps.as_ref().map(|maps| maps[at].clone())
            })
        };
        let [a, b] = if joined.is_empty() {
            [teach(&own(0))?, teach(&own(1))?]
        } else {
            halves(&teach(&joined)?, size)?
        };
        Ok([Some(a), Some(b)])
    }

    /// What discriminator `k` says of its head's interpolated and of its mixes' map.
    fn judged(&self, k: usize, head: &Said, size: usize) -> Result<[Option<Tensor>; 2]> {
        let Some(own) = self.discriminators.get(k) else {
            return Ok([None, None]);
        };
        let judge = |map: &Tensor| {
            let map = self.objective.discriminator.input(map)?;
            Ok::<_, Error>(own.forward(&map)?)
        };
        let [a, b] = match (&head.joined, &head.maps) {
            (Some(both), _) => halves(&judge(both)?, size)?,
            (None, Some([a, b])) => [judge(a)?, judge(b)?],
            (None, None) => return Ok([None, None]),
        };
        Ok([Some(a), Some(b)])
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
        let logits: Vec<_> = heads.iter().map(|head| &head.logits).collect();
        let said = side_by_side(&logits, |k| self.said(&heads[k], pairs, second))?;
        // Self-teacher and discriminators read the same maps, and nothing of each other.
        let ready = vec![&pairs.lambda; 1 + said.len()];
        let asked = side_by_side(&ready, |at| match at.checked_sub(1) {
            None => self.taught(&said, size),
            Some(k) => self.judged(k, &said[k], size),
        })?;
        let teacher = |at: usize| asked.first().and_then(|both| both[at].clone());
        let judged = |at: usize| {
            asked
                .iter()
                .skip(1)
                .filter_map(|both| both[at].clone())
                .collect()
        };
        let map = |at: usize| every(&said, |head| Some(head.maps.as_ref()?[at].clone()));
        let outputs = MixSkdOutputs {
            teacher_interpolated: teacher(0),
            teacher_mixed: teacher(1),
            discriminator_interpolated: judged(0),
            discriminator_mixed: judged(1),
            original: every(&said, |head| head.original.clone()),
            mixed: every(&said, |head| head.mixed.clone()),
            interpolated: every(&said, |head| head.interpolated.clone()),
            interpolated_features: map(0),
            mixed_features: map(1),
        };
        // The backbone is the last head, and there is always one.
        let (backbone_logits, targets) = match (outputs.original.last(), outputs.mixed.last()) {
            (Some(logits), _) => (logits.detach(), batch.labels.clone()),
            (None, Some(logits)) => (logits.detach(), pairs.dominant.clone()),
            (None, None) => (heads[heads.len() - 1].logits.detach(), batch.labels.clone()),
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

/// The first `size` samples, and as many after them.
fn halves(x: &Tensor, size: usize) -> Result<[Tensor; 2]> {
    Ok([samples(x, 0, size)?, samples(x, size, size)?])
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
            named.push((SELF_TEACHER.into(), teacher.forward(&features, Mode::Eval)?));
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
