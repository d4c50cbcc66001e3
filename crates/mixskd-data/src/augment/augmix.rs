//! AugMix.

use std::cell::Cell;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};
use serde::{Deserialize, Serialize};

use super::policy::Choice;
use super::space::{AUG_MIX, AUG_MIX_PURE};
use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::{Error, ImageView, Result};

/// Steps of AugMix's magnitudes.
const BINS: usize = 10;

thread_local! {
    // The sum of the chains, kept from one image to the next.
    static SUM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Mixes the image with `width` chains of one to three operations of it: `m·x + (1 − m)·Σ wᵢ·chainᵢ(x)` with m ~ Beta(α, α) and
/// w ~ Dirichlet(α, …, α) (Hendrycks et al., AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty, ICLR
/// 2020, algorithm 1; torchvision's operations and ranges). The consistency loss of the paper is no part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugMix {
    /// How strong: magnitudes are drawn out of the weakest `severity` of 10.
    pub severity: usize,
    /// Number of chains.
    pub width: usize,
    /// Operations in a chain; 0 draws one to three.
    pub depth: usize,
    /// α of Beta and Dirichlet.
    pub alpha: f64,
    /// Brightness, colour, contrast and sharpness, too, which overlap with ImageNet-C's corruptions.
    pub all_ops: bool,
    /// Grey level of what geometric operations uncover.
    pub fill: u8,
}

impl Default for AugMix {
    fn default() -> Self {
        Self {
            severity: 3,
            width: 3,
            depth: 0,
            alpha: 1.0,
            all_ops: true,
            fill: 0,
        }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "augmix",
    summary: "mix the image with a few chains of operations on it",
    defaults: defaults::<AugMix>,
    build: build::<AugMix>,
};

impl Validate for AugMix {
    fn validate(&self) -> std::result::Result<(), String> {
        let within = |name: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!(
                    "{name} must be between {low} and {high}, got {value}"
                ))
            }
        };
        within("severity", self.severity, 1, BINS)?;
        within("width", self.width, 1, 100)?;
        within("depth", self.depth, 0, 100)?;
        if !(self.alpha >= 1e-3 && self.alpha <= 1e3) {
            return Err(format!(
                "alpha must be between 0.001 and 1000, got {}",
                self.alpha
            ));
        }
        Ok(())
    }
}

impl AugMix {
    /// The distribution of the parts that become weights: a part over the sum of its kind is a Beta or Dirichlet draw.
    fn gamma(&self) -> Result<Gamma<f64>> {
        Gamma::new(self.alpha, 1.0).map_err(|error| {
            Error::config(
                "augment.augmix",
                format!("alpha {}: {error}", self.alpha),
                "alpha = 1",
            )
        })
    }

    /// Adds one chain of operations on `view` to `sum`, times `weight`.
    fn add_chain(&self, view: ImageView<'_>, weight: f32, sum: &mut [f32], rng: &mut ChaCha8Rng) {
        let ops = if self.all_ops {
            AUG_MIX
        } else {
            &AUG_MIX[..AUG_MIX_PURE]
        };
        let size = (view.height, view.width);
        let depth = match self.depth {
            0 => rng.random_range(1..=3),
            depth => depth,
        };
        let bin = |rng: &mut ChaCha8Rng| rng.random_range(0..self.severity as u32) as usize;
        let mut chain = Canvas::new(view);
        for _ in 0..depth {
            Choice::draw(ops, BINS, size, rng, bin).apply(&mut chain, self.fill);
        }
        add(chain.pixels_mut(), weight, sum);
    }
}

/// `part` of `whole`; nothing of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn add(pixels: &[u8], weight: f32, sum: &mut [f32]) {
    for (sum, &byte) in sum.iter_mut().zip(pixels) {
        *sum += weight * f32::from(byte);
    }
}

impl Augment for AugMix {
    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let gamma = self.gamma()?;
        // A Dirichlet draw is gamma draws over their sum; for two of them that is a Beta draw.
        let (own, other) = (gamma.sample(rng), gamma.sample(rng));
        // The parts are drawn ahead of the chains, to know their sum; a copy of the generator draws them again below.
        let mut parts = rng.clone();
        let total: f64 = (0..self.width).map(|_| gamma.sample(rng)).sum();
        // A small α has parts too small for a float. Where all chains' are 0, or image's and chains' both, the image stays as it is.
        let chains = if total > 0.0 {
            share(other, own + other)
        } else {
            0.0
        };

        let (height, width, channels) = (canvas.height(), canvas.width(), canvas.channels());
        let pixels = canvas.pixels_mut();
        let mut sum = SUM.take();
        sum.clear();
        sum.resize(pixels.len(), 0.0);
        add(pixels, (1.0 - chains) as f32, &mut sum);
        for _ in 0..self.width {
            let weight = chains * share(gamma.sample(&mut parts), total);
            let view = ImageView {
                height,
                width,
                channels,
                pixels,
            };
            self.add_chain(view, weight as f32, &mut sum, rng);
        }
        for (byte, sum) in pixels.iter_mut().zip(&sum) {
            // Weights add up to 1 but for rounding: half of a thousandth keeps a byte what it was.
            *byte = (sum + 5e-4) as u8;
        }
        SUM.set(sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn mixing_equal_pictures_changes_nothing() {
        // One grey level everywhere; with black uncovered by nothing (severity 1 is magnitude 0 for geometric operations).
        let pixels = [137_u8; 8 * 8 * 3];
        for index in 0..200 {
            let mut canvas = Canvas::new(ImageView {
                height: 8,
                width: 8,
                channels: 3,
                pixels: &pixels,
            });
            let op = AugMix {
                severity: 1,
                all_ops: false,
                ..AugMix::default()
            };
            op.apply(&mut canvas, &mut stream(0, 0, index, Purpose::Augment))
                .unwrap();
            // Posterize at bin 0 keeps 4 bits: 128 instead of 137; everything else leaves the picture as it is.
            assert!(canvas.pixels_mut().iter().all(|v| (128..=137).contains(v)));
        }
    }

    #[test]
    fn a_small_alpha_does_not_blacken() {
        for width in 1..4 {
            let op = AugMix {
                severity: 1,
                width,
                alpha: 1e-3,
                all_ops: false,
                ..AugMix::default()
            };
            for index in 0..500 {
                let mut canvas = Canvas::new(ImageView {
                    height: 4,
                    width: 4,
                    channels: 3,
                    pixels: &[137; 48],
                });
                let mut rng = stream(0, 0, index, Purpose::Augment);
                op.apply(&mut canvas, &mut rng).unwrap();
                let pixels = canvas.pixels_mut();
                assert!(pixels.iter().all(|v| (128..=137).contains(v)), "{pixels:?}");
            }
        }
    }

    /// With the weakest magnitudes and the pure operations, a picture of one grey level is changed by Posterize alone, which one
    /// chain of one operation in nine is.
    #[test]
    fn chains_have_the_weights_of_beta_and_dirichlet_draws() {
        const DRAWS: usize = 6000;
        let levels = |width: usize| -> Vec<f64> {
            let op = AugMix {
                severity: 1,
                depth: 1,
                width,
                all_ops: false,
                ..AugMix::default()
            };
            let draw = |index: usize| {
                let mut canvas = Canvas::new(ImageView {
                    height: 2,
                    width: 2,
                    channels: 1,
                    pixels: &[143; 4],
                });
                let mut rng = stream(0, 0, index as u64, Purpose::Augment);
                op.apply(&mut canvas, &mut rng).unwrap();
                f64::from(canvas.pixels_mut()[0])
            };
            (0..DRAWS).map(draw).collect()
        };
        let changed = |levels: &[f64]| -> Vec<f64> {
            levels
                .iter()
                .copied()
                .filter(|level| *level < 143.0)
                .collect()
        };
        let mean = |levels: &[f64]| levels.iter().sum::<f64>() / levels.len() as f64;
        let share = |levels: &[f64]| levels.len() as f64 / DRAWS as f64;

        // One chain: m·143 + (1 − m)·128, m uniform, cut to a whole number: 128 to 142, each as often.
        let one = changed(&levels(1));
        assert!((share(&one) - 1.0 / 9.0).abs() < 0.013, "{}", share(&one));
        assert!((mean(&one) - 135.0).abs() < 0.6, "{}", mean(&one));
        // Three: the fall is 15·(1 − m)·w for each that posterizes; on the mean over all draws a ninth of 7.5, and the half level
        // that cutting costs where any does.
        let three = levels(3);
        let any = 1.0 - (8.0_f64 / 9.0).powi(3);
        let fall = 143.0 - mean(&three) - 0.5 * share(&changed(&three));
        assert!((share(&changed(&three)) - any).abs() < 0.02);
        assert!((fall - 7.5 / 9.0).abs() < 0.08, "{fall}");
    }
}
