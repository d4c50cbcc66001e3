//! The result of a run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{EpochRecord, HeadScore};

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
    /// Epochs trained.
    pub epochs: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// THE result: the backbone's top-1 on the test images after the last epoch, a fraction.
    pub top1: f64,
    /// The backbone's top-5 on the test images after the last epoch, a fraction.
    pub top5: f64,
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
    /// Largest resident memory of any process that worked on the run in bytes, where the system tells (Linux).
    pub peak_memory_bytes: Option<u64>,
    /// The run directory.
    pub dir: PathBuf,
    /// The backbone's weights.
    pub weights: PathBuf,
}

/// The best of `heads` over all epochs; the earlier epoch and the earlier head win a tie.
pub(crate) fn best(records: &[EpochRecord], heads: impl Fn(&HeadScore) -> bool) -> Option<Best> {
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
