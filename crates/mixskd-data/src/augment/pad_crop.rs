//! Pad, then crop back at random.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Adds `padding` black pixels on every side and keeps a window of the old size at a uniformly drawn place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PadCrop {
    /// Pixels on each side.
    pub padding: u32,
}

impl Default for PadCrop {
    fn default() -> Self {
        Self { padding: 4 }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "pad_crop",
    summary: "pad with black, crop back to the old size at a random place",
    defaults: defaults::<PadCrop>,
    build: build::<PadCrop>,
};

impl Validate for PadCrop {
    fn validate(&self) -> std::result::Result<(), String> {
        if self.padding <= 1024 {
            Ok(())
        } else {
            Err(format!(
                "padding must be at most 1024, got {}",
                self.padding
            ))
        }
    }
}

impl Augment for PadCrop {
    fn moves_only(&self) -> bool {
        true
    }

    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let padding = i64::from(self.padding);
        let top = i64::from(rng.random_range(0..=2 * self.padding)) - padding;
        let left = i64::from(rng.random_range(0..=2 * self.padding)) - padding;
        canvas.crop(top, left, canvas.height(), canvas.width());
        Ok(())
    }
}
