//! What a run would cost, before it runs.

use std::time::Instant;

use mixskd_models::StageShape;
use serde::Serialize;

use crate::machine::{Machine, peak_resident_bytes};
use crate::trainer::Trainer;
use crate::{Error, Result, method};

/// Steps timed after one of warm-up.
const TIMED_STEPS: usize = 2;
/// Steps timed where methods are compared by their cost.
const COMPARED_STEPS: usize = 7;

/// Shapes, counts and estimates of a configured run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Shape of each stage's output for one image.
    pub stages: Vec<StageShape>,
    /// Parameters of the backbone, all that remains after training.
    pub parameters_kept: usize,
    /// Parameters in training, frozen ones included.
    pub parameters_training: usize,
    /// Multiply-adds of classifying one image with the trained backbone.
    pub macs_per_image: u64,
    /// Multiply-adds of one training step: forward, data gradient and weight gradient of every image in it.
    pub macs_per_step: u64,
    /// Estimate of peak memory in bytes: what the timed steps took, where the system tells; at least parameters, gradients
    /// and velocities, and the activations kept for the backward pass.
    pub memory_bytes: u64,
    /// Seconds of one step, measured on the first batches.
    pub seconds_per_step: f64,
    /// Estimate for the whole run, evaluation included.
    pub seconds_total: f64,
    /// Steps of one epoch.
    pub steps_per_epoch: usize,
    /// Epochs of the run.
    pub epochs: usize,
    /// Training images.
    pub train_images: usize,
    /// Test images.
    pub test_images: usize,
}

impl Trainer {
    /// Seconds of one training step, loading included: the median of a few, after the first. Writes nothing; the trainer is spent.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn seconds_per_step(mut self) -> Result<f64> {
        let in_epoch = self.steps_per_epoch();
        let feed = self.train_feed.clone();
        let mut seconds = Vec::new();
        while seconds.len() < COMPARED_STEPS {
            let mut started = Instant::now();
            let mut batches = feed.epoch_from(0, 0, in_epoch);
            let mut first = true;
            while let Some(batch) = batches.next() {
                let batch = self.prepare(batch?, 0)?;
                self.step(&batch, 0.0, true, &mut || batches.fetch())?;
                // The first step of an epoch waits for the loader to begin.
                if !first || in_epoch == 1 {
                    seconds.push(started.elapsed().as_secs_f64());
                }
                first = false;
                started = Instant::now();
                if seconds.len() == COMPARED_STEPS {
                    break;
                }
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    /// Counts and measures what the run would cost. Takes a few real steps and writes nothing; the trainer is spent.
    ///
    /// # Errors
    /// When an image cannot be read, the image is too small for the network, or a step takes more memory than is free.
    pub fn plan(mut self) -> Result<Plan> {
        let size = self.config.run.image_size;
        let backbone = self
            .model
            .build(self.store.builder().pp(method::BACKBONE))?
            .cost((size, size))?;
        let training = self.method.cost(size)?;
        let images = (self.config.run.batch * self.method.images_per_sample()) as u64;
        let parameters_training = self.store.count("");
        let steps = self.steps_per_epoch();
        let counted = 4 * (3 * parameters_training as u64 + training.activations * images);
        // The system would end the process in the middle of a step.
        let free = Machine::detect().memory_available_bytes;
        if let Some(free) = free.filter(|free| counted > *free && self.device.is_cpu()) {
            let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            return Err(Error::Config {
                place: "run.batch".into(),
                message: format!(
                    "a step takes about {:.1} GiB of memory, {:.1} GiB are free: no step was tried",
                    gibibytes(counted),
                    gibibytes(free)
                ),
                hint: Some("a smaller --batch, --width or run.image_size takes less".into()),
            });
        }

        let mut seconds = Vec::new();
        let feed = self.train_feed.clone();
        let mut batches = feed.epoch_from(0, 0, 1 + TIMED_STEPS);
        while let Some(batch) = batches.next() {
            let batch = self.prepare(batch?, 0)?;
            let started = Instant::now();
            self.step(&batch, 0.0, true, &mut || batches.fetch())?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        let seconds_per_step = seconds.iter().skip(1).copied().fold(seconds[0], f64::min);
        let images_per_epoch = steps as u64 * images;
        // A forward pass is about a third of a step; evaluation does it for every head.
        let evaluation = self.dataset.test.len() as f64 / images_per_epoch.max(1) as f64 / 3.0;
        let epochs = self.config.run.epochs;
        Ok(Plan {
            stages: backbone.stages,
            parameters_kept: self.store.count(method::BACKBONE),
            parameters_training,
            macs_per_image: backbone.macs,
            macs_per_step: 3 * training.macs * images,
            memory_bytes: peak_resident_bytes().unwrap_or(0).max(counted),
            seconds_per_step,
            seconds_total: seconds_per_step * (steps * epochs) as f64 * (1.0 + evaluation),
            steps_per_epoch: steps,
            epochs,
            train_images: self.dataset.train.len(),
            test_images: self.dataset.test.len(),
        })
    }
}
