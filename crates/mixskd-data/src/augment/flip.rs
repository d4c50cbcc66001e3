//! Mirror left to right.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Mirrors the image left to right with probability `p`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flip {
    /// Probability, between 0 and 1.
    pub p: f64,
}

impl Default for Flip {
    fn default() -> Self {
        Self { p: 0.5 }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "flip",
    summary: "mirror left to right with probability p",
    defaults: defaults::<Flip>,
    build: build::<Flip>,
};

impl Validate for Flip {
    fn validate(&self) -> std::result::Result<(), String> {
        if (0.0..=1.0).contains(&self.p) {
            Ok(())
        } else {
            Err(format!("p must be between 0 and 1, got {}", self.p))
        }
    }
}

impl Augment for Flip {
    fn moves_only(&self) -> bool {
        true
    }

    fn mirrors_only(&self) -> bool {
        true
    }

    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()> {
        if rng.random::<f64>() < self.p {
            canvas.flip();
        }
        Ok(())
    }
}
