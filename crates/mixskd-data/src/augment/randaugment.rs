//! RandAugment.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::policy::{Choice, check_bins};
use super::space::RAND_AUGMENT;
use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Applies `ops` operations, each drawn uniformly out of 14, all at the one `magnitude` (Cubuk et al., RandAugment: Practical
/// Automated Data Augmentation with a Reduced Search Space, 2020; torchvision's operations and ranges).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// How many operations, one after the other.
    pub ops: usize,
    /// How strong: a bin, from 0 to `bins - 1`.
    pub magnitude: usize,
    /// Magnitudes from the weakest to the strongest.
    pub bins: usize,
    /// Grey level of what geometric operations uncover.
    pub fill: u8,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            ops: 2,
            magnitude: 9,
            bins: 31,
            fill: 0,
        }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "randaugment",
    summary: "a few operations drawn uniformly, all at one magnitude",
    defaults: defaults::<RandAugment>,
    build: build::<RandAugment>,
};

impl Validate for RandAugment {
    fn validate(&self) -> std::result::Result<(), String> {
        check_bins(self.bins)?;
        if self.magnitude >= self.bins {
            return Err(format!(
                "magnitude must be below bins ({}), got {}",
                self.bins, self.magnitude
            ));
        }
        if !(1..=100).contains(&self.ops) {
            return Err(format!("ops must be between 1 and 100, got {}", self.ops));
        }
        Ok(())
    }
}

impl Augment for RandAugment {
    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let size = (canvas.height(), canvas.width());
        for _ in 0..self.ops {
            Choice::draw(RAND_AUGMENT, self.bins, size, rng, |_| self.magnitude)
                .apply(canvas, self.fill);
        }
        Ok(())
    }
}
