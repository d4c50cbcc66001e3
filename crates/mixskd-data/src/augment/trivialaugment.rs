//! TrivialAugment.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::policy::{Choice, check_bins};
use super::space::TRIVIAL_AUGMENT_WIDE;
use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Applies one operation at one magnitude, both drawn uniformly, out of wide ranges (Müller & Hutter, TrivialAugment:
/// Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021; torchvision's `TrivialAugmentWide`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrivialAugment {
    /// Magnitudes from the weakest to the strongest.
    pub bins: usize,
    /// Grey level of what geometric operations uncover.
    pub fill: u8,
}

impl Default for TrivialAugment {
    fn default() -> Self {
        Self { bins: 31, fill: 0 }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "trivialaugment",
    summary: "one operation at one magnitude, both drawn uniformly (TrivialAugmentWide)",
    defaults: defaults::<TrivialAugment>,
    build: build::<TrivialAugment>,
};

impl Validate for TrivialAugment {
    fn validate(&self) -> std::result::Result<(), String> {
        check_bins(self.bins)
    }
}

impl Augment for TrivialAugment {
    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let size = (canvas.height(), canvas.width());
        let bin = |rng: &mut ChaCha8Rng| rng.random_range(0..self.bins as u32) as usize;
        Choice::draw(TRIVIAL_AUGMENT_WIDE, self.bins, size, rng, bin).apply(canvas, self.fill);
        Ok(())
    }
}
