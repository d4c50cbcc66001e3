//! What a run would cost, before it runs.

use std::time::Instant;

use mixskd_kernels::has_gpu_kernels;
use mixskd_models::StageShape;
use serde::Serialize;

use crate::bench::GPU_WARM_UP;
use crate::machine::{Machine, peak_resident_bytes};
use crate::trainer::Trainer;
use crate::upcoming::Upcoming;
use crate::{Error, Result, method};

/// Steps timed of a run that is planned.
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
    /// Estimate of peak memory in bytes: the most that this process had, where the system tells, and at least what is counted. What the process did
    /// before is in it, too.
    pub memory_bytes: u64,
    /// Bytes of parameters, gradients and velocities, and of the activations kept for the backward pass.
    pub memory_counted_bytes: u64,
    /// Seconds of one step, loading included, measured on the first batches.
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
        let mut seconds = self.time_steps(COMPARED_STEPS)?;
        let device = self.device.clone();
        drop(self);
        // It is wanted by the runs that are timed here to be trained elsewhere. What cannot be given back is no reason not to know the time.
        let _ = mixskd_kernels::release_gpu_memory(&device);
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    /// Seconds of each of `count` steps, loading included, taken as training takes them: where a GPU is given the next step before the last is read, it is so
    /// here. Those before, in which memory is taken and a GPU's step is captured, are not counted.
    fn time_steps(&mut self, count: usize) -> Result<Vec<f64>> {
        let in_epoch = self.steps_per_epoch();
        let warm_up = if has_gpu_kernels(&self.device) {
            GPU_WARM_UP
        } else {
            1
        };
        let feed = self.train_feed.clone();
        let (mut seconds, mut taken) = (Vec::new(), 0);
        while seconds.len() < count {
            let mut started = Instant::now();
            let mut upcoming = Upcoming::new(0, feed.epoch_from(0, 0, in_epoch));
            let mut first = true;
            while seconds.len() < count
                && let Some(batch) = upcoming.next(self)?
            {
                // A step that is launched ahead is known by its rate, too.
                let lr = self.schedule.lr(0, batch.step / self.place().world);
                self.begin(&batch, lr, &mut upcoming, true)?;
                self.step(&batch, lr, true, &mut upcoming)?;
                taken += 1;
                // The first step of an epoch waits for the loader to begin.
                if taken > warm_up && (!first || in_epoch == 1) {
                    seconds.push(started.elapsed().as_secs_f64());
                }
                first = false;
                started = Instant::now();
            }
        }
        // What has been launched ahead is nobody's.
        self.learner.forget_begun()?;
        Ok(seconds)
    }

    /// Counts and measures what the run would cost. Takes a few real steps and writes nothing; the trainer is spent.
    ///
    /// # Errors
    /// When an image cannot be read, the image is too small for the network, or a step takes more memory than is free.
    pub fn plan(mut self) -> Result<Plan> {
        let size = self.config.run.image_size;
        let backbone = self
            .model
            .build(self.parameters().builder().pp(method::BACKBONE))?
            .cost((size, size))?;
        let training = self.method().cost(size)?;
        let images = (self.config.run.batch * self.method().images_per_sample()) as u64;
        let parameters_training = self.parameters().count("");
        let steps = self.steps_per_epoch();
        let counted = 4 * (3 * parameters_training as u64 + training.activations * images);
        // The system would end the process in the middle of a step.
        // Elsewhere what a system calls free leaves out what it would free.
        let machine = Machine::detect();
        let free = if cfg!(target_os = "linux") {
            machine.memory_available_bytes
        } else {
            machine.memory_bytes
        };
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

        let seconds = self.time_steps(TIMED_STEPS)?;
        let seconds_per_step = seconds.into_iter().fold(f64::INFINITY, f64::min);
        let images_per_epoch = steps as u64 * images;
        // A forward pass is about a third of a step; evaluation does it for every head.
        let evaluation = self.dataset.test.len() as f64 / images_per_epoch.max(1) as f64 / 3.0;
        let epochs = self.config.run.epochs;
        Ok(Plan {
            stages: backbone.stages,
            parameters_kept: self.parameters().count(method::BACKBONE),
            parameters_training,
            macs_per_image: backbone.macs,
            macs_per_step: 3 * training.macs * images,
            memory_counted_bytes: counted,
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
