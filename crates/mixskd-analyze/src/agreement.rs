//! How sure two networks are of the same right, and of the same wrong, answers.
//!
//! A well-behaved network is surer than another one where both are right, and less sure where both are wrong: the comparison of
//! Yun et al., CVPR 2020 (CS-KD), which MixSKD takes over.

use serde::Serialize;

use crate::Prediction;

/// Bars of a histogram.
const BARS: usize = 20;

/// Log-probabilities of one network's own predictions on a set of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogProbabilities {
    /// Mean, in nats; none where there is no image.
    pub mean: Option<f64>,
    /// Images in each bar of the histogram.
    pub histogram: Vec<usize>,
}

/// Images on which both networks fare alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Common {
    /// How many.
    pub images: usize,
    /// The first network on them.
    pub a: LogProbabilities,
    /// The second network on them.
    pub b: LogProbabilities,
}

/// Two networks on the same images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Ends of the histograms' bars, ascending, one more than bars: from −ln(classes), below which no prediction's log-probability can
    /// lie, to 0.
    pub edges: Vec<f64>,
    /// Images that both classify wrongly; lower log-probabilities are better.
    pub both_wrong: Common,
    /// Images that both classify rightly; higher log-probabilities are better.
    pub both_right: Common,
    /// Images that only the first classifies rightly.
    pub only_a_right: usize,
    /// Images that only the second classifies rightly.
    pub only_b_right: usize,
}

impl Agreement {
    /// Compares predictions of the same images, in the same order, among `classes` classes.
    pub fn new(a: &[Prediction], b: &[Prediction], classes: usize) -> Self {
        let pairs = || a.iter().zip(b);
        let low = -(classes.max(2) as f64).ln();
        let common = |right: bool| {
            let both = pairs().filter(|(a, b)| a.correct == right && b.correct == right);
            let (a, b): (Vec<f64>, Vec<f64>) = both
                .map(|(a, b)| (a.log_confidence, b.log_confidence))
                .unzip();
            Common {
                images: a.len(),
                a: summary(&a, low),
                b: summary(&b, low),
            }
        };
        Self {
            edges: (0..=BARS)
                .map(|k| low - low * (k as f64 / BARS as f64))
                .collect(),
            both_wrong: common(false),
            both_right: common(true),
            only_a_right: pairs().filter(|(a, b)| a.correct && !b.correct).count(),
            only_b_right: pairs().filter(|(a, b)| !a.correct && b.correct).count(),
        }
    }
}

fn summary(values: &[f64], low: f64) -> LogProbabilities {
    let mut histogram = vec![0; BARS];
    for value in values {
        let bar = ((1.0 - value / low) * BARS as f64).floor() as usize;
        histogram[bar.min(BARS - 1)] += 1;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    LogProbabilities {
        mean: (!values.is_empty()).then_some(mean),
        histogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_images_by_hand() {
        // Two classes, label 0; the number is the probability of class 0.
        let image = |p: f64| Prediction::of_log_probabilities(0, 0, &[p.ln(), (1.0 - p).ln()]);
        let a = [0.9, 0.2, 0.8, 0.3, 0.4].map(image);
        let b = [0.6, 0.1, 0.3, 0.7, 0.25].map(image);
        let agreement = Agreement::new(&a, &b, 2);
        assert_eq!((agreement.only_a_right, agreement.only_b_right), (1, 1));
        let (right, wrong) = (&agreement.both_right, &agreement.both_wrong);
        assert_eq!((right.images, wrong.images), (1, 2));
        let close = |mean: Option<f64>, value: f64| (mean.unwrap() - value).abs() < 1e-12;
        assert!(close(right.a.mean, 0.9f64.ln()));
        assert!(close(right.b.mean, 0.6f64.ln()));
        // Both predict class 1 there: its probabilities count.
        assert!(close(wrong.a.mean, f64::midpoint(0.8f64.ln(), 0.6f64.ln())));
        assert!(close(
            wrong.b.mean,
            f64::midpoint(0.9f64.ln(), 0.75f64.ln())
        ));
        assert_eq!(agreement.edges.len(), BARS + 1);
        assert!((agreement.edges[0] + 2f64.ln()).abs() < 1e-12 && agreement.edges[BARS] == 0.0);
        // ln 0.9 lies 15 % of ln 2 below 0: in bar 16 of 20 (0-based).
        assert_eq!(right.a.histogram[16], 1);
        assert_eq!(wrong.a.histogram.iter().sum::<usize>(), 2);
    }

    #[test]
    fn both_ends_of_the_histogram_are_in_it() {
        let even = Prediction::of_log_probabilities(0, 0, &[0.5f64.ln(), 0.5f64.ln()]);
        let sure = Prediction::of_log_probabilities(0, 0, &[-1000.0, 0.0]);
        let agreement = Agreement::new(&[even, sure], &[even, sure], 2);
        let histogram = agreement.both_wrong.a.histogram;
        assert_eq!((histogram[0], histogram[BARS - 1]), (1, 1));
    }

    #[test]
    fn no_common_image_has_no_mean() {
        let agreement = Agreement::new(&[], &[], 10);
        assert_eq!(agreement.both_right.a.mean, None);
    }
}
