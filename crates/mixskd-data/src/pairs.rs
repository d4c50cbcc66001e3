//! Which images are mixed, and by how much.

use rand::seq::SliceRandom;
use rand_distr::{Beta, Distribution};
use serde::{Deserialize, Serialize};

use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// How often λ is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LambdaPer {
    /// One λ for the whole batch, as mixup and MixSKD publish it.
    #[default]
    Batch,
    /// One λ for each image.
    Sample,
}

/// Draws a permutation π and mixing weights λ ~ Beta(α, α) for each batch (mixup, Zhang et al., 2018, equation 2).
///
/// ```
/// use mixskd_data::{LambdaPer, PairSampler};
///
/// let sampler = PairSampler { alpha: 0.4, per: LambdaPer::Batch, seed: 1 };
/// let pairs = sampler.draw(0, 0, 4)?;
/// assert_eq!(pairs, sampler.draw(0, 0, 4)?);
/// assert!(pairs.lambda.iter().all(|l| *l == pairs.lambda[0] && (0.0..=1.0).contains(l)));
/// # Ok::<(), mixskd_data::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSampler {
    /// α of the Beta distribution, above 0 and at most a million: small values keep mixes near one of their images.
    pub alpha: f64,
    /// One λ per batch or per sample.
    pub per: LambdaPer,
    /// Seed of every draw.
    pub seed: u64,
}

/// The pairs of one batch.
///
/// # Shapes
/// Both `[batch]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    /// `partner[i] = π(i)`, a permutation of the batch.
    pub partner: Vec<u32>,
    /// Weight of image `i` itself; its partner has `1 - lambda[i]`. All equal when drawn per batch.
    pub lambda: Vec<f32>,
}

impl PairSampler {
    /// The pairs of batch `step` of `epoch`.
    ///
    /// # Errors
    /// When α is not above 0 and at most a million.
    pub fn draw(&self, epoch: u64, step: u64, batch: usize) -> Result<Pairs> {
        let beta = self.beta()?;
        let mut partner: Vec<u32> = (0..batch as u32).collect();
        partner.shuffle(&mut stream(self.seed, epoch, step, Purpose::Partner));
        let mut rng = stream(self.seed, epoch, step, Purpose::Lambda);
        let lambda = match self.per {
            LambdaPer::Batch => vec![beta.sample(&mut rng) as f32; batch],
            LambdaPer::Sample => (0..batch).map(|_| beta.sample(&mut rng) as f32).collect(),
        };
        Ok(Pairs { partner, lambda })
    }

    fn beta(&self) -> Result<Beta<f64>> {
        let refuse = || {
            let message = format!(
                "must be a number above 0 and at most a million, got {}",
                self.alpha
            );
            Error::config(
                "alpha",
                message,
                "the paper uses 0.4 for CIFAR-100 and 0.2 for ImageNet",
            )
        };
        // Beyond it the draws are no numbers any more.
        if !(self.alpha > 0.0 && self.alpha <= 1e6) {
            return Err(refuse());
        }
        Beta::new(self.alpha, self.alpha).map_err(|_| refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draw(alpha: f64, per: LambdaPer, step: u64, batch: usize) -> Pairs {
        PairSampler {
            alpha,
            per,
            seed: 3,
        }
        .draw(1, step, batch)
        .unwrap()
    }

    proptest! {
        #[test]
        fn partners_are_a_permutation_and_lambdas_are_weights(alpha in 0.01f64..8.0, step in 0u64..1000, batch in 1usize..70) {
            let pairs = draw(alpha, LambdaPer::Sample, step, batch);
            let mut seen = pairs.partner.clone();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..batch as u32).collect::<Vec<_>>());
            prop_assert_eq!(pairs.lambda.len(), batch);
            prop_assert!(pairs.lambda.iter().all(|l| (0.0..=1.0).contains(l)));
        }
    }

    #[test]
    fn lambda_follows_the_beta_distribution() {
        // Var Beta(α, α) = 1 / (4 (2α + 1)); 20,000 draws put the sample variance within 2 %.
        for alpha in [0.2, 0.4, 1.0, 4.0] {
            let lambda = draw(alpha, LambdaPer::Sample, 0, 20_000).lambda;
            let mean = lambda.iter().map(|&l| f64::from(l)).sum::<f64>() / lambda.len() as f64;
            let variance = lambda
                .iter()
                .map(|&l| (f64::from(l) - mean).powi(2))
                .sum::<f64>()
                / lambda.len() as f64;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.01, "α {alpha}: mean {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.03,
                "α {alpha}: variance {variance}, wanted {expected}"
            );
        }
    }

    #[test]
    fn batches_differ_and_repeat() {
        assert_eq!(
            draw(0.4, LambdaPer::Batch, 5, 64),
            draw(0.4, LambdaPer::Batch, 5, 64)
        );
        let (a, b) = (
            draw(0.4, LambdaPer::Batch, 5, 64),
            draw(0.4, LambdaPer::Batch, 6, 64),
        );
        assert_ne!(a.partner, b.partner);
        assert_ne!(a.lambda, b.lambda);
        assert!(a.lambda.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn alpha_out_of_range_is_refused() {
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e308] {
            let error = PairSampler {
                alpha,
                per: LambdaPer::Batch,
                seed: 0,
            }
            .draw(0, 0, 2)
            .unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("alpha: must be a number above 0"),
                "{error}"
            );
        }
    }
}
