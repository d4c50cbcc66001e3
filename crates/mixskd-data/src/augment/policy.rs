//! What the policies draw alike.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::space::Space;
use super::{Canvas, Op};

/// An operation with the magnitude drawn for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    pub(super) op: Op,
    pub(super) magnitude: f64,
}

impl Choice {
    /// One of `space` by a uniform draw, at a bin that `bin` draws out of `bins`, with a drawn sign.
    pub(super) fn draw(
        space: &Space,
        bins: usize,
        size: (usize, usize),
        rng: &mut ChaCha8Rng,
        bin: impl FnOnce(&mut ChaCha8Rng) -> usize,
    ) -> Self {
        let (op, range) = space[rng.random_range(0..space.len() as u32) as usize];
        let magnitude = range.magnitude(op, bin(rng), bins, size);
        Self { op, magnitude }.with_sign(rng)
    }

    /// The same with the other sign half of the time, where the operation has one.
    pub(super) fn with_sign(mut self, rng: &mut ChaCha8Rng) -> Self {
        if self.op.signed() && rng.random::<bool>() {
            self.magnitude = -self.magnitude;
        }
        self
    }

    pub(super) fn apply(self, canvas: &mut Canvas<'_>, fill: u8) {
        self.op.apply(canvas, self.magnitude, fill);
    }
}

/// Refuses a number of bins that no table can be made of.
pub(super) fn check_bins(bins: usize) -> Result<(), String> {
    if (2..=1000).contains(&bins) {
        Ok(())
    } else {
        Err(format!("bins must be between 2 and 1000, got {bins}"))
    }
}
