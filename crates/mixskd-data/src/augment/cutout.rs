//! Cut squares out.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Augment, Canvas, Entry, Normalised, Validate, build, defaults};
use crate::Result;

/// Sets `holes` squares of `size × size` pixels to the mean colour (0 after normalisation). Their centres are drawn uniformly, so
/// that a square may reach over the border (DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with
/// Cutout, 2017).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cutout {
    /// Side of a square in pixels.
    pub size: usize,
    /// Number of squares.
    pub holes: usize,
}

impl Default for Cutout {
    fn default() -> Self {
        Self { size: 8, holes: 1 }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "cutout",
    summary: "set a size × size square at a random place to the mean colour",
    defaults: defaults::<Cutout>,
    build: build::<Cutout>,
};

impl Validate for Cutout {
    fn validate(&self) -> std::result::Result<(), String> {
        if !(1..=8192).contains(&self.size) {
            return Err(format!(
                "size must be between 1 and 8192, got {}",
                self.size
            ));
        }
        if !(1..=1024).contains(&self.holes) {
            return Err(format!(
                "holes must be between 1 and 1024, got {}",
                self.holes
            ));
        }
        Ok(())
    }
}

impl Augment for Cutout {
    fn apply(&self, _canvas: &mut Canvas<'_>, _rng: &mut ChaCha8Rng) -> Result<()> {
        Ok(())
    }

    fn finish(&self, image: &mut Normalised<'_>, rng: &mut ChaCha8Rng) {
        // The square begins half of its size, rounded down, before its centre.
        let span = |centre: usize| {
            let first = centre.saturating_sub(self.size / 2);
            (first, centre + self.size - self.size / 2)
        };
        for _ in 0..self.holes {
            let row = rng.random_range(0..image.height().max(1) as u32) as usize;
            let column = rng.random_range(0..image.width().max(1) as u32) as usize;
            image.fill(span(row), span(column), || 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    /// Zeros left by cutout in a 32×32 image of ones, by sample.
    fn holes(size: usize, sample: u64) -> usize {
        let mut values = vec![1.0; 32 * 32];
        let mut image = Normalised::new((32, 32), 1, &mut values).unwrap();
        let op = Cutout { size, holes: 1 };
        op.finish(&mut image, &mut stream(0, 0, sample, Purpose::Augment));
        values.iter().filter(|v| **v == 0.0).count()
    }

    #[test]
    fn squares_have_their_size_or_reach_over_the_border() {
        for size in [1, 7, 8] {
            let areas: Vec<usize> = (0..300).map(|sample| holes(size, sample)).collect();
            assert_eq!(areas.iter().max(), Some(&(size * size)));
            assert!(areas.iter().all(|&area| area > 0));
        }
        // A centre on row r shows min(r, 4) + min(32 - r, 4) rows: 8 but for the first four (4, 5, 6, 7) and the last three (7, 6, 5).
        let mean = (0..4000).map(|sample| holes(8, sample)).sum::<usize>() as f64 / 4000.0;
        let side = (8.0 * 25.0 + 22.0 + 18.0) / 32.0;
        assert!((mean / (side * side) - 1.0).abs() < 0.01, "{mean}");
    }
}
