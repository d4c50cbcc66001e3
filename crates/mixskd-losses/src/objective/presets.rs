//! The named objectives.

use super::{DiscriminatorMode, ObjectiveConfig};
use crate::{Error, Result};

/// A named objective.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// What `--objective` takes.
    pub name: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// Its weights and settings.
    pub config: ObjectiveConfig,
}

/// Every named objective.
pub const ALL: &[Preset] = &[
    MIXSKD,
    AGREEMENT,
    SOFT_LABELS,
    REFERENCE_CIFAR,
    REFERENCE_IMAGENET,
];

pub(super) const MIXSKD: Preset = Preset {
    name: "mixskd",
    summary: "the paper's objective: every term at weight 1, discriminators trained jointly",
    config: ObjectiveConfig {
        task_original: 1.0,
        task_mix: 1.0,
        feature: 1.0,
        adversarial: 1.0,
        branch_probability: 1.0,
        self_teacher_task: 1.0,
        backbone_probability: 1.0,
        temperature: 3.0,
        discriminator: DiscriminatorMode::Joint,
    },
};

/// Chosen by `docs/results/cifar100-20-classes.md`.
const AGREEMENT: Preset = Preset {
    name: "agreement",
    summary: "cross-entropy, and branches whose predictions of two images and of their mix agree, without self-teacher and feature maps: the best form after ten epochs in this project's ablation",
    config: ObjectiveConfig {
        self_teacher_task: 0.0,
        backbone_probability: 0.0,
        ..SOFT_LABELS.config
    },
};

const SOFT_LABELS: Preset = Preset {
    name: "soft-labels",
    summary: "the paper's objective without the two terms that compare feature maps",
    config: ObjectiveConfig {
        feature: 0.0,
        adversarial: 0.0,
        ..MIXSKD.config
    },
};

const REFERENCE_CIFAR: Preset = Preset {
    name: "reference-cifar",
    summary: "what the released CIFAR script does: no cross-entropy of mixes or self-teacher, discriminators never trained",
    config: ObjectiveConfig {
        task_mix: 0.0,
        self_teacher_task: 0.0,
        discriminator: DiscriminatorMode::Frozen,
        ..MIXSKD.config
    },
};

const REFERENCE_IMAGENET: Preset = Preset {
    name: "reference-imagenet",
    summary: "what the released ImageNet script does: every term, discriminators never trained",
    config: ObjectiveConfig {
        discriminator: DiscriminatorMode::Frozen,
        ..MIXSKD.config
    },
};

/// The preset called `name`.
pub(super) fn find(name: &str) -> Result<&'static Preset> {
    if let Some(preset) = ALL.iter().find(|preset| preset.name == name) {
        return Ok(preset);
    }
    let nearest = ALL
        .iter()
        .map(|preset| preset.name)
        .min_by_key(|known| strsim::levenshtein(name, known))
        .unwrap_or(MIXSKD.name);
    let known: Vec<_> = ALL.iter().map(|preset| preset.name).collect();
    Err(Error::UnknownObjective {
        name: name.into(),
        nearest,
        known: known.join(", "),
    })
}
