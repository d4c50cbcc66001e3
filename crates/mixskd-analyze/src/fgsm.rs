//! The fast gradient sign method: Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015, section 4.
//!
//! x′ = clip(x + ε·sign(∇ₓ CE(f(x), y))) on pixels between 0 and 1, ε in units of 1/255, before the image is normalised. The network
//! that is attacked is the one whose gradient is taken.

use candle_core::Tensor;
use serde::Serialize;

use crate::prediction::{loss, top1};
use crate::{Classifier, Prediction, Result};

/// Attacked images at one ε.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FgsmPoint {
    /// Largest change of a pixel, in units of 1/255.
    pub epsilon: f64,
    /// Share of the images that is classified rightly.
    pub top1: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

/// Images after a step of ε/255 along `gradient`'s sign, clipped to valid pixels, normalised again.
///
/// # Shapes
/// Normalised images and their gradient, `[batch, height, width, channel]` → the same
///
/// # Errors
/// When the shapes differ.
pub fn fgsm(
    network: &Classifier,
    images: &Tensor,
    gradient: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    // Deviations are positive, so the sign is that of the gradient with respect to pixels.
    let step = gradient.sign()?.affine(epsilon / 255.0, 0.0)?;
    let pixels = (network.to_pixels(images)? + step)?.clamp(0f32, 1f32)?;
    network.normalise(&pixels)
}

/// Attacks batches as they come by.
pub(crate) struct Fgsm {
    points: Vec<(f64, Vec<Prediction>)>,
}

impl Fgsm {
    pub(crate) fn new(epsilons: &[f64]) -> Self {
        Self {
            points: epsilons.iter().map(|&e| (e, Vec::new())).collect(),
        }
    }

    /// Takes the next batch, normalised, with the logits of its images as they are.
    pub(crate) fn add(
        &mut self,
        network: &Classifier,
        images: &Tensor,
        labels: &[u32],
        logits: &[Vec<f32>],
    ) -> Result<()> {
        let gradient = network.image_gradient(images, labels)?;
        for (epsilon, predictions) in &mut self.points {
            let attacked;
            let rows = if *epsilon == 0.0 {
                logits
            } else {
                let images = fgsm(network, images, &gradient, *epsilon)?;
                let name = |_| format!("a test image attacked with ε = {epsilon}/255");
                attacked = network.rows_of(&images, name)?;
                &attacked
            };
            predictions.extend(
                rows.iter()
                    .zip(labels)
                    .map(|(row, &label)| Prediction::new(0, label as usize, row, 1.0)),
            );
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<FgsmPoint> {
        let point = |(epsilon, predictions): (f64, Vec<Prediction>)| FgsmPoint {
            epsilon,
            top1: top1(&predictions),
            loss: loss(&predictions),
        };
        self.points.into_iter().map(point).collect()
    }
}
