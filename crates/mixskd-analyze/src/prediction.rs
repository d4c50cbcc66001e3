//! What a network says of an image, from its logits. Everything is computed in float64 from the float32 logits.

use std::collections::BTreeMap;
use std::sync::Arc;

use mixskd_data::{Loader, LoaderConfig, Samples};

use crate::softmax::log_softmax;
use crate::{Classifier, Result};

/// What a network says of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Index of the image among the test images.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The class of the largest logit, the first among equals.
    pub predicted: usize,
    /// Whether the label's logit is above every other one: a tie is not right, as in `mixskd eval`.
    pub correct: bool,
    /// Whether fewer than five logits are as large as the label's.
    pub among_five: bool,
    /// Logarithm of the softmax probability of `predicted`, in nats.
    pub log_confidence: f64,
    /// Logarithm of the softmax probability of `label`, in nats; its negative is the cross-entropy.
    pub log_likelihood: f64,
    /// Squared distance between the probabilities and the one-hot label (Brier 1950), from 0 to 2.
    pub brier: f64,
}

impl Prediction {
    /// Reads the logits of test image `index`, all finite, of a network whose logits are divided by `temperature`.
    pub fn new(index: usize, label: usize, logits: &[f32], temperature: f64) -> Self {
        Self::of_log_probabilities(index, label, &log_softmax(logits, temperature))
    }

    /// Reads logarithms of probabilities.
    pub(crate) fn of_log_probabilities(index: usize, label: usize, log: &[f64]) -> Self {
        let predicted = log.iter().enumerate().fold(
            0,
            |best, (k, &value)| if value > log[best] { k } else { best },
        );
        let own = log.get(label).copied().unwrap_or(f64::NEG_INFINITY);
        let above = log
            .iter()
            .enumerate()
            .filter(|&(k, &value)| k != label && value >= own)
            .count();
        let brier = log.iter().enumerate().map(|(k, &value)| {
            let difference = value.exp() - f64::from(u8::from(k == label));
            difference * difference
        });
        Self {
            index,
            label,
            predicted,
            correct: above == 0,
            among_five: above < 5 || log.len() <= 5,
            log_confidence: log.get(predicted).copied().unwrap_or(f64::NEG_INFINITY),
            log_likelihood: own,
            brier: brier.sum(),
        }
    }

    /// Softmax probability of what is predicted.
    pub fn confidence(&self) -> f64 {
        self.log_confidence.exp()
    }
}

/// What `network` says of each of `samples`, `batch` of them at once, in order.
///
/// # Errors
/// When an image cannot be read or does not fit, or logits are not finite.
pub fn predict(
    network: &Classifier,
    samples: &Arc<dyn Samples>,
    batch: usize,
) -> Result<Vec<Prediction>> {
    let config = LoaderConfig {
        batch,
        shuffle: false,
        drop_last: false,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(Arc::clone(samples), network.pipeline()?, config)?;
    let mut predictions = Vec::with_capacity(samples.len());
    for batch in loader.epoch(0) {
        let batch = batch?;
        let images = batch.images.to_device(network.device())?;
        let first = predictions.len();
        let rows = network.rows_of(&images, |row| format!("test image {}", first + row))?;
        for (logits, &label) in rows.iter().zip(&batch.labels) {
            let index = predictions.len();
            predictions.push(Prediction::new(index, label as usize, logits, 1.0));
        }
    }
    Ok(predictions)
}

/// The images on which the loss is largest, largest first, the smaller index first among equals.
pub fn worst(predictions: &[Prediction], at_most: usize) -> Vec<Prediction> {
    let mut ranked = predictions.to_vec();
    ranked.sort_by(|a, b| {
        let loss = a.log_likelihood.total_cmp(&b.log_likelihood);
        loss.then(a.index.cmp(&b.index))
    });
    ranked.truncate(at_most);
    ranked
}

/// The mean of `value` over `predictions`, in order; 0 for none.
pub(crate) fn mean(predictions: &[Prediction], value: impl Fn(&Prediction) -> f64) -> f64 {
    predictions.iter().map(value).sum::<f64>() / predictions.len().max(1) as f64
}

/// Share of `predictions` that are right.
pub fn top1(predictions: &[Prediction]) -> f64 {
    mean(predictions, |p| f64::from(u8::from(p.correct)))
}

/// Share of `predictions` whose label is among the five largest logits.
pub fn top5(predictions: &[Prediction]) -> f64 {
    mean(predictions, |p| f64::from(u8::from(p.among_five)))
}

/// Balanced accuracy: the mean over classes of the share of their images that is right; classes without an image are left out.
pub fn balanced(predictions: &[Prediction]) -> f64 {
    let mut classes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for prediction in predictions {
        let (images, right) = classes.entry(prediction.label).or_default();
        *images += 1;
        *right += usize::from(prediction.correct);
    }
    let recalls = classes.values();
    let recalls = recalls.map(|&(images, right)| right as f64 / images as f64);
    recalls.sum::<f64>() / classes.len().max(1) as f64
}

/// Mean cross-entropy in nats.
pub fn loss(predictions: &[Prediction]) -> f64 {
    -mean(predictions, |p| p.log_likelihood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_by_hand() {
        // Probabilities 1/8, 1/8 and 6/8 at T = 1.
        let logits = [0.0, 0.0, 6f32.ln()];
        let p = Prediction::new(4, 0, &logits, 1.0);
        assert_eq!((p.index, p.label, p.predicted, p.correct), (4, 0, 2, false));
        assert!((p.confidence() - 0.75).abs() < 1e-7);
        assert!((p.log_likelihood - 0.125f64.ln()).abs() < 1e-7);
        let brier = 0.875f64.powi(2) + 0.125f64.powi(2) + 0.75f64.powi(2);
        assert!((p.brier - brier).abs() < 1e-7);
        assert!((loss(&[p]) - 8f64.ln()).abs() < 1e-7);
        assert_eq!((top1(&[p]), top5(&[p])), (0.0, 1.0));
    }

    #[test]
    fn balanced_accuracy_counts_classes() {
        let right = |index| Prediction::new(index, 0, &[1.0, 0.0], 1.0);
        let wrong = Prediction::new(3, 1, &[1.0, 0.0], 1.0);
        let all = [right(0), right(1), right(2), wrong];
        assert_eq!(
            (top1(&all), balanced(&all), balanced(&[])),
            (0.75, 0.5, 0.0)
        );
    }

    #[test]
    fn a_tie_is_not_right() {
        assert!(!Prediction::new(0, 0, &[1.0, 1.0], 1.0).correct);
        assert!(Prediction::new(0, 0, &[1.0, 0.5], 1.0).correct);
    }
}
