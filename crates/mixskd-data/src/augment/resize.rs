//! Scale the shorter side.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Scales the image so that its shorter side has `size` pixels, the other one in proportion (rounded down).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resize {
    /// The shorter side in pixels.
    pub size: usize,
}

impl Default for Resize {
    fn default() -> Self {
        Self { size: 256 }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "resize",
    summary: "scale so that the shorter side has size pixels",
    defaults: defaults::<Resize>,
    build: build::<Resize>,
};

impl Validate for Resize {
    fn validate(&self) -> std::result::Result<(), String> {
        if (1..=8192).contains(&self.size) {
            Ok(())
        } else {
            Err(format!(
                "size must be between 1 and 8192, got {}",
                self.size
            ))
        }
    }
}

impl Resize {
    fn target(&self, (height, width): (usize, usize)) -> (usize, usize) {
        // A size beyond counting is refused by the canvas like any other that is too large.
        let scaled = |long: usize, short: usize| self.size.saturating_mul(long) / short.max(1);
        if height <= width {
            (self.size, scaled(width, height))
        } else {
            (scaled(height, width), self.size)
        }
    }
}

impl Augment for Resize {
    fn apply(&self, canvas: &mut Canvas<'_>, _rng: &mut ChaCha8Rng) -> Result<()> {
        let (height, width) = self.target((canvas.height(), canvas.width()));
        canvas.resize(height, width)
    }

    fn size(&self, size: Option<(usize, usize)>) -> Option<(usize, usize)> {
        size.map(|size| self.target(size))
    }
}
