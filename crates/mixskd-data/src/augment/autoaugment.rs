//! AutoAugment.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Op::{
    self, AutoContrast, Brightness, Color, Contrast, Equalize, Invert, Posterize, Rotate,
    Sharpness, ShearX, ShearY, Solarize, TranslateX, TranslateY,
};
use super::policy::Choice;
use super::space::AUTO_AUGMENT;
use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Steps of AutoAugment's magnitudes.
const BINS: usize = 10;

/// The data set a policy was searched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// CIFAR-10; used for CIFAR-100, too.
    #[default]
    Cifar10,
    /// ImageNet.
    ImageNet,
}

/// Applies one pair of operations, drawn uniformly out of the 25 of a policy that was found by search; each operation has its own
/// probability and magnitude (Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019, tables 7 and 9).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoAugment {
    /// `cifar10` or `imagenet`.
    pub policy: Policy,
    /// Grey level of what geometric operations uncover.
    pub fill: u8,
}

pub(super) const ENTRY: Entry = Entry {
    name: "autoaugment",
    summary: "a pair of operations out of a policy found by search on CIFAR-10 or ImageNet",
    defaults: defaults::<AutoAugment>,
    build: build::<AutoAugment>,
};

/// An operation, its probability, and its bin (0 where it has no magnitude).
type Step = (Op, f64, usize);

impl Policy {
    fn pairs(self) -> &'static [[Step; 2]; 25] {
        match self {
            Self::Cifar10 => &CIFAR10,
            Self::ImageNet => &IMAGENET,
        }
    }
}

impl Validate for AutoAugment {
    fn validate(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

impl Augment for AutoAugment {
    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let size = (canvas.height(), canvas.width());
        let pairs = self.policy.pairs();
        for (op, p, bin) in pairs[rng.random_range(0..pairs.len() as u32) as usize] {
            if rng.random::<f64>() < p {
                let magnitude = magnitude(op, bin, size);
                Choice { op, magnitude }
                    .with_sign(rng)
                    .apply(canvas, self.fill);
            }
        }
        Ok(())
    }
}

fn magnitude(op: Op, bin: usize, size: (usize, usize)) -> f64 {
    AUTO_AUGMENT
        .iter()
        .find(|(known, _)| *known == op)
        .map_or(0.0, |(_, range)| range.magnitude(op, bin, BINS, size))
}

/// The policy found on CIFAR-10.
#[rustfmt::skip]
static CIFAR10: [[Step; 2]; 25] = [
    [(Invert, 0.1, 0), (Contrast, 0.2, 6)],
    [(Rotate, 0.7, 2), (TranslateX, 0.3, 9)],
    [(Sharpness, 0.8, 1), (Sharpness, 0.9, 3)],
    [(ShearY, 0.5, 8), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.5, 0), (Equalize, 0.9, 0)],
    [(ShearY, 0.2, 7), (Posterize, 0.3, 7)],
    [(Color, 0.4, 3), (Brightness, 0.6, 7)],
    [(Sharpness, 0.3, 9), (Brightness, 0.7, 9)],
    [(Equalize, 0.6, 0), (Equalize, 0.5, 0)],
    [(Contrast, 0.6, 7), (Sharpness, 0.6, 5)],
    [(Color, 0.7, 7), (TranslateX, 0.5, 8)],
    [(Equalize, 0.3, 0), (AutoContrast, 0.4, 0)],
    [(TranslateY, 0.4, 3), (Sharpness, 0.2, 6)],
    [(Brightness, 0.9, 6), (Color, 0.2, 8)],
    [(Solarize, 0.5, 2), (Invert, 0.0, 0)],
    [(Equalize, 0.2, 0), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.2, 0), (Equalize, 0.6, 0)],
    [(Color, 0.9, 9), (Equalize, 0.6, 0)],
    [(AutoContrast, 0.8, 0), (Solarize, 0.2, 8)],
    [(Brightness, 0.1, 3), (Color, 0.7, 0)],
    [(Solarize, 0.4, 5), (AutoContrast, 0.9, 0)],
    [(TranslateY, 0.9, 9), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.9, 0), (Solarize, 0.8, 3)],
    [(Equalize, 0.8, 0), (Invert, 0.1, 0)],
    [(TranslateY, 0.7, 9), (AutoContrast, 0.9, 0)],
];

/// The policy found on ImageNet.
#[rustfmt::skip]
static IMAGENET: [[Step; 2]; 25] = [
    [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
    [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Equalize, 0.4, 0), (Rotate, 0.8, 8)],
    [(Solarize, 0.6, 3), (Equalize, 0.6, 0)],
    [(Posterize, 0.8, 5), (Equalize, 1.0, 0)],
    [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
    [(Equalize, 0.6, 0), (Posterize, 0.4, 6)],
    [(Rotate, 0.8, 8), (Color, 0.4, 0)],
    [(Rotate, 0.4, 9), (Equalize, 0.6, 0)],
    [(Equalize, 0.0, 0), (Equalize, 0.8, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Rotate, 0.8, 8), (Color, 1.0, 2)],
    [(Color, 0.8, 8), (Solarize, 0.8, 7)],
    [(Sharpness, 0.4, 7), (Invert, 0.6, 0)],
    [(ShearX, 0.6, 5), (Equalize, 1.0, 0)],
    [(Color, 0.4, 0), (Equalize, 0.6, 0)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn policies_are_torchvisions() {
        let golden = include_str!("../../tests/golden/policies.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        for (name, policy) in [("cifar10", Policy::Cifar10), ("imagenet", Policy::ImageNet)] {
            let steps = |pair: &[Step; 2]| {
                pair.map(|(op, p, bin)| {
                    let free = matches!(op, AutoContrast | Equalize | Invert);
                    json!([op.name(), p, if free { Value::Null } else { json!(bin) }])
                })
            };
            let ours: Vec<_> = policy.pairs().iter().map(steps).collect();
            assert_eq!(json!(ours), golden["policies"][name], "{name}");
        }
    }
}
