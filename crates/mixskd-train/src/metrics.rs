//! What is measured: running means of a training epoch, scores of every head, one record an epoch.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::method::{BACKBONE, StepOutput};
use crate::{Error, Result};

/// How well one head classifies the test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadScore {
    /// `backbone`, `branch N` or `self-teacher`.
    pub name: String,
    /// Fraction of images whose class is the most probable one.
    pub top1: f64,
    /// Fraction of images whose class is among the five most probable (among all, where there are fewer).
    pub top5: f64,
    /// Balanced accuracy: the mean over classes of the fraction of their images whose class is the most probable one, classes without a test image left out.
    /// It is top-1 where the classes have as many images each; `None` in records of earlier versions.
    #[serde(default)]
    pub balanced: Option<f64>,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

impl HeadScore {
    /// [`Self::balanced`] where it says another thing than top-1.
    pub fn own_balanced(&self) -> Option<f64> {
        own_balanced(self.top1, self.balanced)
    }

    /// The score of the network that is kept, which is to be the first.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn of_backbone(heads: &[Self]) -> Result<&Self> {
        let first = heads.first().filter(|head| head.name == BACKBONE);
        first.ok_or_else(|| {
            let names: Vec<_> = heads.iter().map(|head| head.name.as_str()).collect();
            Error::Config {
                place: "method".into(),
                message: format!("its heads are {names:?}, and the first has to be `{BACKBONE}`"),
                hint: Some("`Method::heads` gives the logits of `method::BACKBONE` first".into()),
            }
        })
    }
}

/// `balanced`, unless rounding alone makes it another than `top1`.
pub(crate) fn own_balanced(top1: f64, balanced: Option<f64>) -> Option<f64> {
    balanced.filter(|balanced| (balanced - top1).abs() > 1e-9)
}

/// One epoch, as a line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Mean training loss (weighted sum of the terms).
    pub loss: f64,
    /// Mean of every unweighted term.
    pub terms: BTreeMap<String, f64>,
    /// Fraction of training predictions that were right while training; for mixed images the larger share counts. Of equal logits the first is what the network
    /// says.
    pub train_top1: f64,
    /// The backbone's top-1 on the test images, a fraction; equal logits count against it.
    pub top1: f64,
    /// The backbone's top-5 on the test images, a fraction.
    pub top5: f64,
    /// Backbone's mean cross-entropy on the test images, in nats.
    pub test_loss: f64,
    /// Every head on the test images, the backbone first.
    pub heads: Vec<HeadScore>,
    /// Original images trained on per second, evaluation excluded.
    pub samples_per_s: f64,
    /// Seconds of training and evaluation.
    pub seconds: f64,
    /// Largest resident memory of the process up to here in bytes, where the system tells; `None` in older records.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// Memory of the GPU in use after the epoch in bytes, by whomever; `None` without a GPU and in older records.
    #[serde(default)]
    pub gpu_memory_bytes: Option<u64>,
}

/// The loss terms and hits of one step, read back from the device.
pub(crate) struct StepReading {
    pub(crate) loss: f64,
    pub(crate) terms: Vec<(&'static str, f64)>,
    pub(crate) hits: f64,
    pub(crate) samples: usize,
}

impl StepReading {
    pub(crate) fn of(output: &StepOutput) -> Result<Self> {
        let scalar =
            |t: &Tensor| -> Result<f64> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
        let terms = output
            .parts
            .iter()
            .map(|(name, t)| Ok((*name, scalar(t)?)))
            .collect::<Result<_>>()?;
        let predicted = output.logits.argmax(D::Minus1)?;
        let hits = predicted
            .eq(&output.targets)?
            .to_dtype(DType::F32)?
            .sum_all()?;
        Ok(Self {
            loss: scalar(&output.loss)?,
            terms,
            hits: scalar(&hits)?,
            samples: output.targets.elem_count(),
        })
    }

    /// From numbers that the device has gathered: the loss, the terms called `names`, hits.
    pub(crate) fn from_values(
        values: &[f32],
        names: &[&'static str],
        samples: usize,
    ) -> Option<Self> {
        let (&loss, rest) = values.split_first()?;
        let terms = names
            .iter()
            .zip(rest)
            .map(|(&name, &v)| (name, f64::from(v)));
        Some(Self {
            loss: f64::from(loss),
            terms: terms.collect(),
            hits: f64::from(*rest.get(names.len())?),
            samples,
        })
    }

    /// The first term that is NaN or infinite.
    pub(crate) fn not_finite(&self) -> Option<(&'static str, f64)> {
        let total = [("loss", self.loss)];
        self.terms
            .iter()
            .chain(&total)
            .copied()
            .find(|(_, value)| !value.is_finite())
    }
}

/// Sums over the steps of an epoch. In a file they are the numbers' bits, so that a resumed epoch ends with the same mean.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "MeterBits", into = "MeterBits")]
pub(crate) struct Meter {
    steps: usize,
    samples: usize,
    loss: f64,
    hits: f64,
    terms: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeterBits {
    steps: usize,
    samples: usize,
    loss: u64,
    hits: u64,
    terms: BTreeMap<String, u64>,
}

impl From<Meter> for MeterBits {
    fn from(meter: Meter) -> Self {
        let terms = meter.terms.into_iter();
        Self {
            steps: meter.steps,
            samples: meter.samples,
            loss: meter.loss.to_bits(),
            hits: meter.hits.to_bits(),
            terms: terms.map(|(name, sum)| (name, sum.to_bits())).collect(),
        }
    }
}

impl From<MeterBits> for Meter {
    fn from(bits: MeterBits) -> Self {
        let terms = bits.terms.into_iter();
        Self {
            steps: bits.steps,
            samples: bits.samples,
            loss: f64::from_bits(bits.loss),
            hits: f64::from_bits(bits.hits),
            terms: terms
                .map(|(name, sum)| (name, f64::from_bits(sum)))
                .collect(),
        }
    }
}

impl Meter {
    pub(crate) fn add(&mut self, reading: &StepReading) {
        self.steps += 1;
        self.samples += reading.samples;
        self.loss += reading.loss;
        self.hits += reading.hits;
        for (name, value) in &reading.terms {
            *self.terms.entry((*name).into()).or_default() += value;
        }
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    pub(crate) fn loss(&self) -> f64 {
        self.loss / self.steps.max(1) as f64
    }

    pub(crate) fn train_top1(&self) -> f64 {
        self.hits / self.samples.max(1) as f64
    }

    pub(crate) fn terms(&self) -> BTreeMap<String, f64> {
        self.terms
            .iter()
            .map(|(name, sum)| (name.clone(), sum / self.steps.max(1) as f64))
            .collect()
    }
}

/// Counts of one head over the test images.
#[derive(Default)]
pub(crate) struct HeadMeter {
    samples: usize,
    top1: usize,
    top5: usize,
    loss: f64,
    /// Images of each class, and how many of them are right.
    classes: Vec<(usize, usize)>,
}

impl HeadMeter {
    /// Adds a batch of logits `[batch, class]` and its labels.
    pub(crate) fn add(&mut self, logits: &[f32], labels: &[u32]) -> Result<()> {
        let classes = logits.len() / labels.len().max(1);
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return Err(Error::config(
                "labels",
                format!(
                    "a test image has class {label}, but the network knows only {classes} classes"
                ),
            ));
        }
        let rows = logits.par_chunks(classes.max(1)).zip(labels);
        let scores: Vec<_> = rows
            .with_min_len(32)
            .map(|(row, &label)| ImageScore::of(row, label as usize))
            .collect();
        if self.classes.len() < classes {
            self.classes.resize(classes, (0, 0));
        }
        // In their order, whatever the number of threads.
        for (score, &label) in scores.into_iter().zip(labels) {
            let (images, right) = &mut self.classes[label as usize];
            *images += 1;
            *right += usize::from(score.top1);
            self.samples += 1;
            self.top1 += usize::from(score.top1);
            self.top5 += usize::from(score.top5);
            self.loss += score.loss;
        }
        Ok(())
    }

    pub(crate) fn score(&self, name: String) -> HeadScore {
        let samples = self.samples.max(1) as f64;
        HeadScore {
            name,
            top1: self.top1 as f64 / samples,
            top5: self.top5 as f64 / samples,
            balanced: Some(self.balanced()),
            loss: self.loss / samples,
        }
    }

    fn balanced(&self) -> f64 {
        let tested = self.classes.iter().filter(|(images, _)| *images > 0);
        let recalls = tested.map(|&(images, right)| right as f64 / images as f64);
        let (count, sum) = recalls.fold((0usize, 0.0), |(n, sum), recall| (n + 1, sum + recall));
        sum / count.max(1) as f64
    }
}

/// What a head says of one image.
struct ImageScore {
    top1: bool,
    top5: bool,
    loss: f64,
}

impl ImageScore {
    /// Of an image of class `label`.
    fn of(row: &[f32], label: usize) -> Self {
        let own = row[label];
        // Ties count against the network, so that constant logits score nothing.
        let above = row
            .iter()
            .enumerate()
            .filter(|&(c, &z)| z >= own && c != label)
            .count();
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum = row
            .iter()
            .map(|&z| (f64::from(z) - largest).exp())
            .sum::<f64>();
        Self {
            top1: above == 0 && own.is_finite(),
            top5: (above < 5 || row.len() <= 5) && own.is_finite(),
            loss: sum.ln() + largest - f64::from(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(logits: &[[f32; 3]], labels: &[u32], top1: f64) {
        let mut meter = HeadMeter::default();
        meter.add(logits.as_flattened(), labels).unwrap();
        let score = meter.score("x".into());
        assert_eq!(score.top1, top1);
    }

    #[test]
    fn top1_counts_strict_maxima() {
        check(&[[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]], &[1, 1], 0.5);
        check(&[[1.0, 1.0, 1.0]], &[0], 0.0);
        check(&[[f32::NAN, f32::NAN, f32::NAN]], &[0], 0.0);
    }

    #[test]
    fn balanced_accuracy_counts_classes_and_not_images() {
        let mut meter = HeadMeter::default();
        // Three of class 0, all right, in two batches; one of class 2, wrong; none of class 1.
        let zero = [1.0, 0.0, 0.0];
        meter.add(&[zero, zero].concat(), &[0, 0]).unwrap();
        meter.add(&[zero, zero].concat(), &[0, 2]).unwrap();
        let score = meter.score("x".into());
        assert_eq!((score.top1, score.balanced), (0.75, Some(0.5)));
        assert_eq!(score.own_balanced(), Some(0.5));
        let level = HeadScore {
            balanced: Some(0.75 + 1e-16),
            ..score
        };
        assert_eq!(level.own_balanced(), None);
    }

    #[test]
    fn loss_is_cross_entropy_in_nats() {
        let mut meter = HeadMeter::default();
        meter.add(&[0.0, 0.0], &[0]).unwrap();
        assert!((meter.score("x".into()).loss - 2f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn a_label_the_network_does_not_know_is_refused() {
        let error = HeadMeter::default().add(&[0.0, 0.0], &[2]).unwrap_err();
        assert!(error.to_string().contains("class 2"));
    }
}
