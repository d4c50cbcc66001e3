//! Mixup undone at test time: Carratino et al., On mixup regularization, JMLR 23 (2022).
//!
//! Training on mixes equals training on images and labels that are shrunk toward their means, x̄ + θ(x − x̄) and ȳ + θ(y − ȳ) with
//! θ ~ Beta(α, α) on [1/2, 1], plus a random perturbation. At test time, therefore, the network is given the shrunk image with θ̄ = E θ,
//! and the shrink is undone on its output: p(x) = ȳ + (f(x̄ + θ̄(x − x̄)) − ȳ)/θ̄, f the softmax probabilities.

use candle_core::{DType, Tensor};
use mixskd_data::Loader;
use serde::Serialize;

use crate::calibration::Reliability;
use crate::softmax::log_softmax;
use crate::{Classifier, Prediction, Result};

/// Smallest probability that an undone output may say: the formula leaves the simplex, and a likelihood has to stay finite.
const FLOOR: f64 = 1e-6;

/// θ̄ = E max(λ, 1−λ) for λ ~ Beta(α, α): 1/2 + 4^(−α) / (α·B(α, α)).
///
/// ```
/// assert!((mixskd_analyze::mean_theta(1.0) - 0.75).abs() < 1e-12); // uniform λ
/// assert!(mixskd_analyze::mean_theta(0.01) > 0.99); // hardly any mixing
/// ```
pub fn mean_theta(alpha: f64) -> f64 {
    let log_beta = 2.0 * libm::lgamma(alpha) - libm::lgamma(2.0 * alpha);
    0.5 + (-alpha * 4f64.ln() - alpha.ln() - log_beta).exp()
}

/// What a network's images and labels are shrunk toward.
#[derive(Debug, Clone)]
pub struct Means {
    /// Mean of the normalised training images, `[1, height, width, channel]`.
    pub image: Tensor,
    /// Share of each class among all training labels, `[class]`.
    pub label: Vec<f64>,
    /// Training images that the mean image is of.
    pub images: usize,
}

/// Means of the images of `loader`, which is told to `progress` batch by batch, and of `labels`.
///
/// # Errors
/// When an image cannot be read.
pub(crate) fn means(
    loader: &Loader,
    labels: impl Iterator<Item = u32>,
    classes: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Means> {
    let mut sum: Vec<f64> = Vec::new();
    let mut shape = Vec::new();
    let mut images = 0;
    for batch in loader.epoch(0) {
        let batch = batch?.images;
        let rows = batch.dim(0)?;
        let values = batch
            .to_dtype(DType::F32)?
            .flatten(1, 3)?
            .to_vec2::<f32>()?;
        if sum.is_empty() {
            shape = batch.dims().to_vec();
            sum = vec![0.0; values.first().map_or(0, Vec::len)];
        }
        for row in &values {
            for (sum, &value) in sum.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        images += rows;
        progress(rows);
    }
    if let Some(first) = shape.first_mut() {
        *first = 1;
    }
    let mean = sum.iter().map(|s| (s / images.max(1) as f64) as f32);
    let image = Tensor::from_vec(mean.collect::<Vec<_>>(), shape, &candle_core::Device::Cpu)?;
    let mut counts = vec![0.0; classes];
    let mut total = 0.0;
    for label in labels {
        counts[label as usize] += 1.0;
        total += 1.0;
    }
    let label = counts.iter().map(|count| count / f64::max(total, 1.0));
    Ok(Means {
        image,
        label: label.collect(),
        images,
    })
}

/// A network on the test images, plainly and rescaled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rescaling {
    /// α of the mixing that is undone.
    pub alpha: f64,
    /// θ̄, the mean shrink.
    pub theta: f64,
    /// Training images that the mean image is of.
    pub mean_images: usize,
    /// As the network is: f(x).
    pub plain: Reliability,
    /// Given the shrunk image, its output left as it is: f(x̄ + θ̄(x − x̄)).
    pub shrunk: Reliability,
    /// The output's shrink undone, too: ȳ + (f(x̄ + θ̄(x − x̄)) − ȳ)/θ̄, its probabilities raised to at least 10⁻⁶ and divided by their sum.
    pub undone: Reliability,
}

/// Rescales batches as they come by.
pub(crate) struct Rescaler {
    alpha: f64,
    theta: f64,
    means: Means,
    shrunk: Vec<Prediction>,
    undone: Vec<Prediction>,
}

impl Rescaler {
    /// `means` on the network's device.
    pub(crate) fn new(alpha: f64, means: Means) -> Self {
        Self {
            alpha,
            theta: mean_theta(alpha),
            means,
            shrunk: Vec::new(),
            undone: Vec::new(),
        }
    }

    /// Takes the next batch, normalised.
    pub(crate) fn add(
        &mut self,
        network: &Classifier,
        images: &Tensor,
        labels: &[u32],
    ) -> Result<()> {
        let towards = self.means.image.affine(1.0 - self.theta, 0.0)?;
        let images = images.affine(self.theta, 0.0)?.broadcast_add(&towards)?;
        let name = |_| format!("a test image shrunk by θ = {:.4}", self.theta);
        let rows = network.rows_of(&images, name)?;
        for (logits, &label) in rows.iter().zip(labels) {
            let label = label as usize;
            let log = log_softmax(logits, 1.0);
            self.shrunk
                .push(Prediction::of_log_probabilities(0, label, &log));
            let log = undo(&log, &self.means.label, self.theta);
            self.undone
                .push(Prediction::of_log_probabilities(0, label, &log));
        }
        Ok(())
    }

    pub(crate) fn finish(self, plain: &[Prediction], bins: usize) -> Rescaling {
        Rescaling {
            alpha: self.alpha,
            theta: self.theta,
            mean_images: self.means.images,
            plain: Reliability::new(plain, bins),
            shrunk: Reliability::new(&self.shrunk, bins),
            undone: Reliability::new(&self.undone, bins),
        }
    }
}

/// Logarithms of ȳ + (p − ȳ)/θ, brought back onto the simplex.
fn undo(log: &[f64], mean: &[f64], theta: f64) -> Vec<f64> {
    let raw = log.iter().zip(mean).map(|(log, mean)| {
        let undone = mean + (log.exp() - mean) / theta;
        undone.max(FLOOR)
    });
    let sum = raw.clone().sum::<f64>();
    raw.map(|p| (p / sum).ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn theta_is_the_mean_of_the_larger_share() {
        // α = 2: density 6λ(1−λ); E max = 2 ∫_{1/2}^1 6λ²(1−λ) = 11/16.
        assert!((mean_theta(2.0) - 11.0 / 16.0).abs() < 1e-12);
        // α = 1/2, the arcsine law: 1/2 + 1/π.
        assert!((mean_theta(0.5) - (0.5 + std::f64::consts::FRAC_1_PI)).abs() < 1e-12);
        assert!((mean_theta(1e6) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn undoing_a_shrink_gives_back_what_was_shrunk() {
        let (theta, mean) = (0.8, [0.5, 0.25, 0.25]);
        let p = [0.7, 0.2, 0.1];
        let shrunk: Vec<f64> = p
            .iter()
            .zip(&mean)
            .map(|(p, m): (&f64, &f64)| (m + theta * (p - m)).ln())
            .collect();
        for (log, p) in undo(&shrunk, &mean, theta).iter().zip(p) {
            assert!((log.exp() - p).abs() < 1e-12);
        }
    }

    #[test]
    fn what_leaves_the_simplex_is_brought_back() {
        // A sure network is surer than any shrunk label can be.
        let log = undo(&[-1e-9, -20.0, -20.0], &[1.0 / 3.0; 3], 0.8);
        let sum = log.iter().map(|l| l.exp()).sum::<f64>();
        assert!((sum - 1.0).abs() < 1e-12 && log.iter().all(|l| l.is_finite()));
        assert!(log[0] > -1e-5 && log[1] < -13.0);
    }
}
