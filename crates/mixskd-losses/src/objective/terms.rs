//! The table of the objective's terms: name, weight, value.

use candle_core::Tensor;

use super::sum::weighted_sum;
use super::{MixSkdOutputs, ObjectiveConfig};
use crate::precision::compute_dtype;
use crate::{
    Result, cross_entropy, discriminator_loss, feature_mse, kl_divergence, mix_cross_entropy,
};

/// One step's outputs and targets, what every term is computed from.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) outputs: &'a MixSkdOutputs,
    pub(super) labels: &'a Tensor,
    pub(super) partner_labels: &'a Tensor,
    pub(super) lambda: &'a Tensor,
    pub(super) temperature: f64,
}

/// One term of the objective.
pub(super) struct Term {
    pub(super) name: &'static str,
    pub(super) weight: fn(&ObjectiveConfig) -> f64,
    pub(super) value: fn(&Step) -> Result<Tensor>,
    /// Losses that it is the sum of.
    pub(super) losses: fn(&MixSkdOutputs) -> usize,
}

/// Every term, in the order of the sum.
pub(super) const TERMS: [Term; 7] = [
    Term {
        name: "task_original",
        weight: |config| config.task_original,
        value: task_original,
        losses: |out| out.original.len(),
    },
    Term {
        name: "task_mix",
        weight: |config| config.task_mix,
        value: task_mix,
        losses: |out| out.mixed.len(),
    },
    Term {
        name: "feature",
        weight: |config| config.feature,
        value: feature,
        losses: |out| out.mixed_features.len(),
    },
    Term {
        name: "adversarial",
        weight: |config| config.adversarial,
        value: adversarial,
        losses: |out| out.discriminator_mixed.len(),
    },
    Term {
        name: "branch_probability",
        weight: |config| config.branch_probability,
        value: branch_probability,
        losses: |out| 2 * out.mixed.len().saturating_sub(1),
    },
    Term {
        name: "self_teacher_task",
        weight: |config| config.self_teacher_task,
        value: self_teacher_task,
        losses: |_| 2,
    },
    Term {
        name: "backbone_probability",
        weight: |config| config.backbone_probability,
        value: backbone_probability,
        losses: |_| 2,
    },
];

/// Where a sum of terms begins.
pub(super) fn zero(outputs: &MixSkdOutputs, lambda: &Tensor) -> Result<Tensor> {
    let like = outputs.any_logits().unwrap_or(lambda);
    Ok(Tensor::zeros(
        (),
        compute_dtype(like.dtype()),
        like.device(),
    )?)
}

fn sum(step: &Step, items: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let items = items.collect::<Result<Vec<_>>>()?;
    let items: Vec<_> = items.iter().map(|item| (item, 1.0)).collect();
    weighted_sum(&items)?.map_or_else(|| zero(step.outputs, step.lambda), Ok)
}

fn mix_ce(step: &Step, logits: &Tensor) -> Result<Tensor> {
    mix_cross_entropy(logits, step.labels, step.partner_labels, step.lambda)
}

fn task_original(step: &Step) -> Result<Tensor> {
    let heads = step.outputs.original.iter();
    sum(step, heads.map(|z| cross_entropy(z, step.labels)))
}

fn task_mix(step: &Step) -> Result<Tensor> {
    let heads = step.outputs.mixed.iter();
    sum(step, heads.map(|z| mix_ce(step, z)))
}

fn feature(step: &Step) -> Result<Tensor> {
    let interpolated = step.outputs.interpolated_features.iter();
    let pairs = interpolated.zip(&step.outputs.mixed_features);
    sum(step, pairs.map(|(a, b)| feature_mse(a, b)))
}

fn adversarial(step: &Step) -> Result<Tensor> {
    let interpolated = step.outputs.discriminator_interpolated.iter();
    let pairs = interpolated.zip(&step.outputs.discriminator_mixed);
    sum(step, pairs.map(|(a, b)| discriminator_loss(a, b)))
}

fn branch_probability(step: &Step) -> Result<Tensor> {
    let branches = step.outputs.mixed.len().saturating_sub(1);
    let pairs = step.outputs.interpolated.iter().zip(&step.outputs.mixed);
    let both_ways = |(a, b): (&Tensor, &Tensor)| -> Result<Tensor> {
        let ways = [(a, b), (b, a)].into_iter();
        sum(
            step,
            ways.map(|(a, b)| kl_divergence(a, b, step.temperature)),
        )
    };
    sum(step, pairs.take(branches).map(both_ways))
}

fn self_teacher_task(step: &Step) -> Result<Tensor> {
    let teachers = [
        &step.outputs.teacher_interpolated,
        &step.outputs.teacher_mixed,
    ];
    sum(
        step,
        teachers.into_iter().flatten().map(|z| mix_ce(step, z)),
    )
}

fn backbone_probability(step: &Step) -> Result<Tensor> {
    let out = step.outputs;
    let crossed = [
        out.interpolated.last().zip(out.teacher_mixed.as_ref()),
        out.mixed.last().zip(out.teacher_interpolated.as_ref()),
    ];
    let pairs = crossed.into_iter().flatten();
    sum(
        step,
        pairs.map(|(student, teacher)| kl_divergence(student, teacher, step.temperature)),
    )
}
