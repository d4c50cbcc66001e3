//! Whether a network is as often right as it says: Guo et al., On calibration of modern neural networks, ICML 2017.

use serde::Serialize;

use crate::prediction::{loss, mean, top1};
use crate::temperature::{Temperature, fit};
use crate::{AnalyzeConfig, Prediction};

/// One bar of a reliability diagram: the images whose confidence lies in `(low, high]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    /// Lower end of the confidence, excluded.
    pub low: f64,
    /// Upper end, included.
    pub high: f64,
    /// Images in it.
    pub images: usize,
    /// Their mean confidence; none for an empty bin.
    pub confidence: Option<f64>,
    /// Share of them that is classified rightly; none for an empty bin.
    pub accuracy: Option<f64>,
}

/// A reliability diagram and what is read off it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// Images.
    pub images: usize,
    /// Share of them that is classified rightly.
    pub accuracy: f64,
    /// Mean softmax probability of the predicted class.
    pub confidence: f64,
    /// Expected calibration error: Σ_m |B_m|/n · |acc(B_m) − conf(B_m)| (Guo et al., equation 3).
    pub ece: f64,
    /// Maximum calibration error: the largest |acc(B_m) − conf(B_m)| of a bin that is not empty (equation 5).
    pub mce: f64,
    /// Mean negative log-likelihood, in nats.
    pub nll: f64,
    /// Mean Brier score, from 0 to 2.
    pub brier: f64,
    /// The diagram's bars, from confidence 0 to 1.
    pub bins: Vec<Bin>,
}

impl Reliability {
    /// Sorts `predictions` into `bins` bins of equal width by confidence, one at least: bin m of M holds `((m − 1)/M, m/M]`.
    pub fn new(predictions: &[Prediction], bins: usize) -> Self {
        let bins = bins.max(1);
        let mut sums = vec![(0usize, 0.0f64, 0usize); bins];
        for prediction in predictions {
            let confidence = prediction.confidence();
            // Rounding must not push a confidence over either end.
            let at = (confidence * bins as f64).ceil() as usize;
            let bin = &mut sums[at.clamp(1, bins) - 1];
            bin.0 += 1;
            bin.1 += confidence;
            bin.2 += usize::from(prediction.correct);
        }
        let total = predictions.len().max(1) as f64;
        let (mut ece, mut mce) = (0.0, 0.0f64);
        let mut rows = Vec::with_capacity(bins);
        for (m, (images, confidence, correct)) in sums.into_iter().enumerate() {
            let count = images as f64;
            let filled = images > 0;
            let (confidence, accuracy) = (confidence / count, correct as f64 / count);
            if filled {
                let gap = (accuracy - confidence).abs();
                ece += count / total * gap;
                mce = mce.max(gap);
            }
            rows.push(Bin {
                low: m as f64 / bins as f64,
                high: (m + 1) as f64 / bins as f64,
                images,
                confidence: filled.then_some(confidence),
                accuracy: filled.then_some(accuracy),
            });
        }
        Self {
            images: predictions.len(),
            accuracy: top1(predictions),
            confidence: mean(predictions, Prediction::confidence),
            ece,
            mce,
            nll: loss(predictions),
            brier: mean(predictions, |p| p.brier),
            bins: rows,
        }
    }
}

/// Calibration of one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// All images, as the network is.
    pub all: Reliability,
    /// The temperature, fitted on a part of the images; none where there are too few images for two parts.
    pub scaling: Option<Scaling>,
}

/// Temperature scaling, fitted on some images and judged on the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaling {
    /// The temperature.
    pub temperature: Temperature,
    /// Images it was fitted on; none of them is in the diagrams below.
    pub fitted_on: usize,
    /// The other images, as the network is.
    pub before: Reliability,
    /// The other images, logits divided by the temperature.
    pub after: Reliability,
}

/// One image's logits, kept until the temperature is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Index among the test images.
    pub index: usize,
    /// Class.
    pub label: usize,
    /// Logits, `[class]`, all finite.
    pub logits: Vec<f32>,
}

impl Calibration {
    /// Measures `rows`, in the order they were drawn: the first `fit_fraction` of them fit the temperature.
    pub fn new(rows: &[Row], config: &AnalyzeConfig) -> Self {
        let at = |rows: &[Row], temperature: f64| {
            let predictions = rows
                .iter()
                .map(|row| Prediction::new(row.index, row.label, &row.logits, temperature))
                .collect::<Vec<_>>();
            Reliability::new(&predictions, config.bins)
        };
        let cut = (rows.len() as f64 * config.fit_fraction).round() as usize;
        let (fitted, judged) = rows.split_at(cut.min(rows.len()));
        let scaling = (!fitted.is_empty() && !judged.is_empty()).then(|| {
            let temperature = fit(fitted);
            Scaling {
                temperature,
                fitted_on: fitted.len(),
                before: at(judged, 1.0),
                after: at(judged, temperature.value),
            }
        });
        Self {
            all: at(rows, 1.0),
            scaling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A two-class image of label 0 that is predicted as 0 (right) or as 1 with `confidence`.
    fn image(confidence: f64, right: bool) -> Prediction {
        let (own, other) = if right {
            (confidence, 1.0 - confidence)
        } else {
            (1.0 - confidence, confidence)
        };
        Prediction::of_log_probabilities(0, 0, &[own.ln(), other.ln()])
    }

    #[test]
    fn four_images_by_hand() {
        // With four bins: (0.5, 0.75] holds 0.6 right and 0.7 wrong, (0.75, 1] holds 0.8 right and 0.9 right.
        let images = [
            image(0.6, true),
            image(0.7, false),
            image(0.8, true),
            image(0.9, true),
        ];
        let r = Reliability::new(&images, 4);
        assert_eq!(
            r.bins.iter().map(|b| b.images).collect::<Vec<_>>(),
            [0, 0, 2, 2]
        );
        assert_eq!(r.bins[0].accuracy, None);
        assert_eq!(r.bins[2].accuracy, Some(0.5));
        assert!((r.bins[2].confidence.unwrap() - 0.65).abs() < 1e-12);
        // 2/4 · |0.5 − 0.65| + 2/4 · |1 − 0.85|
        assert!((r.ece - 0.15).abs() < 1e-12, "{}", r.ece);
        assert!((r.mce - 0.15).abs() < 1e-12);
        assert_eq!(r.accuracy, 0.75);
        assert!((r.confidence - 0.75).abs() < 1e-12);
        let nll = -(0.6f64.ln() + 0.3f64.ln() + 0.8f64.ln() + 0.9f64.ln()) / 4.0;
        assert!((r.nll - nll).abs() < 1e-12);
    }

    #[test]
    fn a_bin_holds_its_upper_end() {
        let r = Reliability::new(&[image(0.5, true), image(1.0, true)], 2);
        assert_eq!([r.bins[0].images, r.bins[1].images], [1, 1]);
    }

    #[test]
    fn a_single_image_has_no_temperature() {
        let rows = [Row {
            index: 0,
            label: 0,
            logits: vec![1.0, 0.0],
        }];
        assert!(
            Calibration::new(&rows, &AnalyzeConfig::default())
                .scaling
                .is_none()
        );
    }
}
