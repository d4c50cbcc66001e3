//! The result of a run.

use std::path::PathBuf;

use mixskd_data::Identity;
use serde::{Deserialize, Serialize};

use crate::method::{BACKBONE, SELF_TEACHER};
use crate::{EpochRecord, Error, HeadScore, Result, RunDir, Trainer};

/// The best score that some head reached at some epoch, chosen on the test images and so no honest headline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// The head's name.
    pub head: String,
    /// Its top-1 there, a fraction.
    pub top1: f64,
    /// Its top-5 there, a fraction.
    pub top5: f64,
}

/// What `report.json` holds and `mixskd train --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the method.
    pub method: String,
    /// Name of the network.
    pub model: String,
    /// Width multiplier.
    pub width: f64,
    /// Name of the data set.
    pub data: String,
    /// Number of classes.
    pub classes: usize,
    /// Which classes and images these are; `None` in reports of earlier versions.
    #[serde(default)]
    pub data_identity: Option<Identity>,
    /// SHA-256 of the file of weights that the run began with; `None` where it began with random values, and in reports of earlier versions.
    #[serde(default)]
    pub start_sha256: Option<String>,
    /// Epochs trained.
    pub epochs: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// THE result: the backbone's top-1 on the test images after the last epoch, a fraction.
    pub top1: f64,
    /// The backbone's top-5 on the test images after the last epoch, a fraction.
    pub top5: f64,
    /// The backbone's balanced accuracy on the test images after the last epoch ([`HeadScore::balanced`]); `None` in reports of earlier versions.
    #[serde(default)]
    pub balanced: Option<f64>,
    /// The backbone's mean cross-entropy on the test images after the last epoch, in nats.
    pub test_loss: f64,
    /// Every head after the last epoch, the backbone first.
    pub heads: Vec<HeadScore>,
    /// The backbone's best epoch, chosen on the test images.
    pub best_backbone: Best,
    /// The best of all heads at its best epoch, the self-teacher left out, chosen on the test images: what the released MixSKD code reports, which does not
    /// evaluate its self-teacher.
    pub best_head: Best,
    /// Parameters of the backbone, all that remains after training.
    pub parameters_kept: usize,
    /// Parameters in training, frozen ones included.
    pub parameters_training: usize,
    /// Seconds of training and evaluation over all epochs.
    pub seconds: f64,
    /// Original images trained on per second, evaluation excluded, over all epochs.
    pub samples_per_s: f64,
    /// Largest resident memory of any process that worked on the run in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory of the GPU in use after an epoch in bytes, by whomever; `None` without a GPU and in reports of earlier versions.
    #[serde(default)]
    pub gpu_memory_bytes: Option<u64>,
    /// The run directory.
    pub dir: PathBuf,
    /// The backbone's weights.
    pub weights: PathBuf,
}

/// The best of `heads` over all epochs; the earlier epoch and the earlier head win a tie.
fn best(records: &[EpochRecord], heads: impl Fn(&HeadScore) -> bool) -> Option<Best> {
    let mut best: Option<Best> = None;
    for record in records {
        for head in record.heads.iter().filter(|head| heads(head)) {
            if best.as_ref().is_none_or(|best| head.top1 > best.top1) {
                let (head, top1, top5) = (head.name.clone(), head.top1, head.top5);
                best = Some(Best {
                    epoch: record.epoch,
                    head,
                    top1,
                    top5,
                });
            }
        }
    }
    best
}

/// The best of all heads that the published figures choose from: the backbone's and the branches', and not the self-teacher's, which sees the maps of
/// all of them.
fn best_head(records: &[EpochRecord]) -> Option<Best> {
    best(records, |head| head.name != SELF_TEACHER)
}

impl Trainer {
    /// What became of a run with these `records`.
    pub(crate) fn report(&self, records: &[EpochRecord], run: &RunDir) -> Result<Report> {
        let found = (
            records.last(),
            best(records, |head| head.name == BACKBONE),
            best_head(records),
        );
        let (Some(last), Some(best_backbone), Some(best_head)) = found else {
            let message = "the run came to its end without an epoch to report";
            return Err(Error::Internal(message.into()));
        };
        let training_seconds: f64 = records
            .iter()
            .map(|r| self.samples_per_epoch() as f64 / r.samples_per_s.max(f64::MIN_POSITIVE))
            .sum();
        Ok(Report {
            method: self.method_name().into(),
            model: self.model.name.clone(),
            width: self.model.width,
            data: self.dataset.name.clone(),
            classes: self.dataset.classes.len(),
            data_identity: Some(self.identity().clone()),
            start_sha256: self.start_sha256.clone(),
            epochs: records.len(),
            seed: self.config.run.seed,
            top1: last.top1,
            top5: last.top5,
            balanced: HeadScore::of_backbone(&last.heads)?.balanced,
            test_loss: last.test_loss,
            heads: last.heads.clone(),
            best_backbone,
            best_head,
            parameters_kept: self.parameters().count(BACKBONE),
            parameters_training: self.parameters().count(""),
            seconds: records.iter().map(|record| record.seconds).sum(),
            samples_per_s: (records.len() * self.samples_per_epoch()) as f64 / training_seconds,
            // Of every process that worked on the run, and not of the last alone.
            peak_memory_bytes: records
                .iter()
                .map(|record| record.peak_memory_bytes)
                .fold(crate::machine::peak_resident_bytes(), Option::max),
            gpu_memory_bytes: records.iter().filter_map(|r| r.gpu_memory_bytes).max(),
            dir: run.path().to_path_buf(),
            weights: run.weights(),
        })
    }

    fn samples_per_epoch(&self) -> usize {
        self.steps_per_epoch() * self.config.run.batch * self.place().world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_head_is_no_self_teacher_and_the_earlier_wins_a_tie() {
        let record = |epoch: usize, scores: &[(&str, f64)]| {
            let heads = scores.iter().map(|(name, top1)| HeadScore {
                name: (*name).into(),
                top1: *top1,
                top5: 1.0,
                balanced: None,
                loss: 0.5,
            });
            let heads: Vec<_> = heads.collect();
            EpochRecord {
                epoch,
                lr: 0.1,
                loss: 1.0,
                terms: std::collections::BTreeMap::new(),
                train_top1: 0.5,
                top1: 0.5,
                top5: 1.0,
                test_loss: 0.5,
                heads,
                samples_per_s: 100.0,
                seconds: 1.0,
                peak_memory_bytes: None,
                gpu_memory_bytes: None,
            }
        };
        let records = [
            record(
                1,
                &[(BACKBONE, 0.5), ("branch 1", 0.6), (SELF_TEACHER, 0.9)],
            ),
            record(
                2,
                &[(BACKBONE, 0.55), ("branch 1", 0.6), (SELF_TEACHER, 0.95)],
            ),
        ];
        let of = |best: Option<Best>| best.map(|best| (best.epoch, best.head));
        assert_eq!(of(best_head(&records)), Some((1, "branch 1".into())));
        let backbone = best(&records, |head| head.name == BACKBONE);
        assert_eq!(of(backbone), Some((2, BACKBONE.into())));
        assert_eq!(of(best_head(&[])), None);
    }
}
