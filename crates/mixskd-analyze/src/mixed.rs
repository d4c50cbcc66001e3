//! Error on mixed images against λ: MixSKD (Yang et al. 2022), section 4; a prediction is right if it is either image's class.

use candle_core::Tensor;
use serde::Serialize;

use crate::softmax::log_softmax;
use crate::{Classifier, Result};

/// Mixes at one λ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MixedPoint {
    /// Weight of the first image: x̃ = λ·x + (1−λ)·x′.
    pub lambda: f64,
    /// Mixes.
    pub pairs: usize,
    /// Share of them whose predicted class is neither image's.
    pub error: f64,
    /// Mean cross-entropy to the mixed label, λ·CE(x̃, y) + (1−λ)·CE(x̃, y′), in nats.
    pub loss: f64,
}

/// Mixes each image with the one that came before it, at every λ, as batches come by.
pub(crate) struct MixedError {
    sums: Vec<Sum>,
    /// The last image of the batch before, `[1, height, width, channel]`, and its label.
    last: Option<(Tensor, u32)>,
}

struct Sum {
    lambda: f64,
    pairs: usize,
    wrong: usize,
    loss: f64,
}

impl MixedError {
    pub(crate) fn new(lambdas: &[f64]) -> Self {
        let sum = |&lambda: &f64| Sum {
            lambda,
            pairs: 0,
            wrong: 0,
            loss: 0.0,
        };
        Self {
            sums: lambdas.iter().map(sum).collect(),
            last: None,
        }
    }

    /// Takes the next batch, normalised: `[batch, height, width, channel]`.
    pub(crate) fn add(
        &mut self,
        network: &Classifier,
        images: &Tensor,
        labels: &[u32],
    ) -> Result<()> {
        let rows = images.dim(0)?;
        let (before, second, pairs) = match self.last.take() {
            Some((image, label)) => {
                let before = Tensor::cat(&[&image, &images.narrow(0, 0, rows - 1)?], 0)?;
                let mut pairs = vec![(label, labels[0])];
                pairs.extend(labels.windows(2).map(|two| (two[0], two[1])));
                (before, images.clone(), pairs)
            }
            None => (
                images.narrow(0, 0, rows - 1)?,
                images.narrow(0, 1, rows - 1)?,
                labels.windows(2).map(|two| (two[0], two[1])).collect(),
            ),
        };
        self.last = Some((images.narrow(0, rows - 1, 1)?, labels[rows - 1]));
        if pairs.is_empty() {
            return Ok(());
        }
        for sum in &mut self.sums {
            let mixed =
                (before.affine(sum.lambda, 0.0)? + second.affine(1.0 - sum.lambda, 0.0)?)?;
            let name = |_| format!("two test images mixed at λ = {}", sum.lambda);
            let rows = network.rows_of(&mixed, name)?;
            for (logits, &(first, second)) in rows.iter().zip(&pairs) {
                sum.take(logits, first as usize, second as usize);
            }
        }
        Ok(())
    }

    /// The points; none where a single image had no other to be mixed with.
    pub(crate) fn finish(self) -> Option<Vec<MixedPoint>> {
        let point = |sum: &Sum| {
            (sum.pairs > 0).then(|| MixedPoint {
                lambda: sum.lambda,
                pairs: sum.pairs,
                error: sum.wrong as f64 / sum.pairs as f64,
                loss: sum.loss / sum.pairs as f64,
            })
        };
        self.sums.iter().map(point).collect()
    }
}

impl Sum {
    fn take(&mut self, logits: &[f32], first: usize, second: usize) {
        let log = log_softmax(logits, 1.0);
        self.pairs += 1;
        self.wrong += usize::from(!either(&log, first, second));
        self.loss -= self.lambda * log[first] + (1.0 - self.lambda) * log[second];
    }
}

/// Whether one of the two classes has the largest value; a tie with a third class is not right.
fn either(log: &[f64], first: usize, second: usize) -> bool {
    let largest = log[first].max(log[second]);
    let others = log.iter().enumerate();
    others
        .filter(|(k, _)| *k != first && *k != second)
        .all(|(_, &value)| value < largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_class_is_right() {
        let mut sum = Sum {
            lambda: 0.25,
            pairs: 0,
            wrong: 0,
            loss: 0.0,
        };
        // Probabilities 1/2, 1/4, 1/4.
        let logits = [2f32.ln(), 0.0, 0.0];
        for (first, second) in [(0, 1), (1, 0), (1, 2)] {
            sum.take(&logits, first, second);
        }
        assert_eq!((sum.pairs, sum.wrong), (3, 1));
        let loss = (0.25 * 2f64.ln() + 0.75 * 4f64.ln())
            + (0.25 * 4f64.ln() + 0.75 * 2f64.ln())
            + 4f64.ln();
        assert!((sum.loss - loss).abs() < 1e-6);
    }

    #[test]
    fn one_image_alone_is_not_measured() {
        assert_eq!(MixedError::new(&[0.0, 0.5]).finish(), None);
    }

    #[test]
    fn a_tie_with_a_third_class_is_not_right() {
        assert!(either(&[1.0, 1.0, 0.0], 0, 1));
        assert!(!either(&[1.0, 0.0, 1.0], 0, 1));
    }
}
