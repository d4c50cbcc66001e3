//! Erase a random rectangle.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::{Augment, Canvas, Entry, Normalised, Validate, build, defaults};
use crate::Result;

/// What an erased rectangle shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Erased {
    /// The mean colour: 0 after normalisation.
    #[default]
    Mean,
    /// A normal draw for every number.
    Random,
}

/// With probability `p`, sets a rectangle of `scale` times the image's area, with an aspect ratio out of `ratio` (uniform in its
/// logarithm), to `value` (Zhong et al., Random Erasing Data Augmentation, AAAI 2020; the draws of torchvision's `RandomErasing`).
///
/// After ten rectangles that do not fit, the image is left as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomErasing {
    /// Probability, between 0 and 1.
    pub p: f64,
    /// Smallest and largest share of the area.
    pub scale: [f64; 2],
    /// Smallest and largest height divided by width.
    pub ratio: [f64; 2],
    /// `mean` or `random`.
    pub value: Erased,
}

impl Default for RandomErasing {
    fn default() -> Self {
        Self {
            p: 0.5,
            scale: [0.02, 0.33],
            ratio: [0.3, 3.3],
            value: Erased::Mean,
        }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "random_erasing",
    summary: "with probability p, set a random rectangle to the mean colour or to noise",
    defaults: defaults::<RandomErasing>,
    build: build::<RandomErasing>,
};

impl Validate for RandomErasing {
    fn validate(&self) -> std::result::Result<(), String> {
        let ordered = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
        if !(0.0..=1.0).contains(&self.p) {
            return Err(format!("p must be between 0 and 1, got {}", self.p));
        }
        if !(ordered(self.scale) && self.scale[1] <= 1.0) {
            return Err(format!(
                "scale must be two rising numbers above 0 and at most 1, got {:?}",
                self.scale
            ));
        }
        if !ordered(self.ratio) {
            return Err(format!(
                "ratio must be two rising numbers above 0, got {:?}",
                self.ratio
            ));
        }
        Ok(())
    }
}

impl RandomErasing {
    /// Rows and columns to erase.
    fn draw(
        &self,
        (height, width): (usize, usize),
        rng: &mut ChaCha8Rng,
    ) -> Option<((usize, usize), (usize, usize))> {
        let [low, high] = self.ratio.map(f64::ln);
        for _ in 0..10 {
            let target = (height * width) as f64 * rng.random_range(self.scale[0]..=self.scale[1]);
            let ratio = rng.random_range(low..=high).exp();
            let h = (target * ratio).sqrt().round_ties_even() as usize;
            let w = (target / ratio).sqrt().round_ties_even() as usize;
            if h < height && w < width {
                let top = rng.random_range(0..=(height - h) as u32) as usize;
                let left = rng.random_range(0..=(width - w) as u32) as usize;
                return Some(((top, top + h), (left, left + w)));
            }
        }
        None
    }
}

impl Augment for RandomErasing {
    fn apply(&self, _canvas: &mut Canvas<'_>, _rng: &mut ChaCha8Rng) -> Result<()> {
        Ok(())
    }

    fn finish(&self, image: &mut Normalised<'_>, rng: &mut ChaCha8Rng) {
        if rng.random::<f64>() >= self.p {
            return;
        }
        let Some((rows, columns)) = self.draw((image.height(), image.width()), rng) else {
            return;
        };
        match self.value {
            Erased::Mean => image.fill(rows, columns, || 0.0),
            Erased::Random => image.fill(rows, columns, || StandardNormal.sample(rng)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    /// An image of sevens after `op`, by sample.
    fn erased(op: &RandomErasing, sample: u64) -> Vec<f32> {
        let mut values = vec![7.0; 32 * 32];
        let mut image = Normalised::new((32, 32), 1, &mut values).unwrap();
        op.finish(&mut image, &mut stream(0, 0, sample, Purpose::Augment));
        values
    }

    #[test]
    fn half_of_the_images_lose_a_share_in_range() {
        let op = RandomErasing::default();
        let shares: Vec<f64> = (0..4000)
            .map(|sample| {
                let zeros = erased(&op, sample).iter().filter(|v| **v == 0.0).count();
                zeros as f64 / 1024.0
            })
            .filter(|share| *share > 0.0)
            .collect();
        assert!((1900..2100).contains(&shares.len()), "{}", shares.len());
        // Rounding to whole pixels may leave the range by half a row.
        assert!(shares.iter().all(|share| (0.012..0.36).contains(share)));
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((0.165..0.185).contains(&mean), "mean share {mean}");
    }

    #[test]
    fn noise_is_standard_normal() {
        let op = RandomErasing {
            p: 1.0,
            value: Erased::Random,
            ..RandomErasing::default()
        };
        let noise: Vec<f64> = (0..100)
            .flat_map(|sample| erased(&op, sample))
            .filter(|v| *v != 7.0)
            .map(f64::from)
            .collect();
        let mean = noise.iter().sum::<f64>() / noise.len() as f64;
        let variance = noise.iter().map(|v| v * v).sum::<f64>() / noise.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05);
    }
}
