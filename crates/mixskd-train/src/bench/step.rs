//! Whole training steps of one configuration: forward, all terms, backward, update.

use std::time::Instant;

use candle_core::{DType, Tensor};
use mixskd_kernels::has_gpu_kernels;
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{ModelConfig, ParamStore};
use serde::Serialize;

use super::kernels::{self, KernelTimes};
use super::{GPU_WARM_UP, Spread, at_least_one, images, timed};
use crate::gpu_step::{GpuStepper, Launching};
use crate::machine::peak_resident_bytes;
use crate::method::{self, DrawSite, Method, MethodConfig, MethodInputs, TrainBatch};
use crate::step::{broken_gradient, forth_and_back};
use crate::{DeviceKind, Error, OptimizerConfig, Precision, Result};

/// A training step to be timed.
#[derive(Debug, Clone)]
pub struct StepBench {
    /// The network; `input` is the side of the images in pixels.
    pub model: ModelConfig,
    /// The method and its settings.
    pub method: MethodConfig,
    /// Weights of the MixSKD objective, for methods that have it.
    pub objective: ObjectiveConfig,
    /// The optimiser; its learning rate is used as it stands.
    pub optimizer: OptimizerConfig,
    /// Original images per step.
    pub batch: usize,
    /// Steps that are timed.
    pub steps: usize,
    /// Steps before them that are not: they warm allocator and caches up.
    pub warm_up: usize,
    /// Seed of images, parameters and the method's draws.
    pub seed: u64,
    /// Where to run.
    pub device: DeviceKind,
    /// Arithmetic of maps and products.
    pub precision: Precision,
    /// On a GPU: how the step's work is given to it.
    pub launching: Launching,
    /// On a GPU: try cuDNN's algorithms out instead of taking the one that it guesses.
    pub cudnn_benchmark: bool,
    /// Time the GPU's kernels one by one, in steps after those that are timed as a whole.
    pub kernels: bool,
}

/// What was measured. Rates are of the whole process on this machine, whatever else it does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Name of the network.
    pub model: String,
    /// Its width multiplier.
    pub width: f64,
    /// Side of the images, in pixels.
    pub input: usize,
    /// Number of classes.
    pub classes: usize,
    /// Name of the method.
    pub method: String,
    /// Original images per step.
    pub batch: usize,
    /// Images that go through the network per step, mixes included.
    pub images_per_step: usize,
    /// Threads that computed.
    pub threads: usize,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// Arithmetic of maps and products.
    pub precision: Precision,
    /// Whether steps were launched as a captured graph.
    pub captured: bool,
    /// Steps that were timed.
    pub steps: usize,
    /// Seconds of a step; on a GPU each is waited for.
    pub seconds_per_step: Spread,
    /// Seconds of a captured step of a run, where each is launched before the one before it is read: as many once more, their mean.
    pub seconds_per_step_ahead: Option<f64>,
    /// Original images per second.
    pub samples_per_s: Spread,
    /// Multiply-adds of a step: those of one forward pass of all its images, three times over (forward, data gradient, weight
    /// gradient).
    pub macs_per_step: u64,
    /// 10⁹ operations per second, two to a counted multiply-add. A kernel that needs fewer multiplications than were counted
    /// (Winograd) can be above the processor's peak.
    pub gflop_per_s: Spread,
    /// Largest resident memory of the process, in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Memory of the GPU in use after the last step, by whomever, in bytes.
    pub gpu_memory_bytes: Option<u64>,
    /// What the user should know of the steps, such as why they were not captured.
    pub notices: Vec<String>,
    /// Where the time went, if it was asked for.
    pub gpu_kernels: Option<KernelTimes>,
}

impl StepBench {
    /// Batch 32, five steps after two, every other setting as `mixskd train` has it by default.
    ///
    /// # Errors
    /// When there is no such method.
    pub fn new(model: ModelConfig, method: &str) -> Result<Self> {
        Ok(Self {
            model,
            method: MethodConfig::new(method)?,
            objective: ObjectiveConfig::default(),
            optimizer: OptimizerConfig::default(),
            batch: 32,
            steps: 5,
            warm_up: 2,
            seed: 0,
            device: DeviceKind::Auto,
            precision: Precision::F32,
            launching: Launching::default(),
            cudnn_benchmark: false,
            kernels: false,
        })
    }

    /// Builds everything, then takes and times the steps.
    ///
    /// # Errors
    /// When a setting is out of range or the images are too small for the network.
    pub fn run(&self) -> Result<StepReport> {
        at_least_one("batch", self.batch)?;
        at_least_one("steps", self.steps)?;
        let device = self.device.open()?;
        if self.kernels && !device.is_cuda() {
            return Err(kernels::no_gpu());
        }
        self.precision.apply(&device)?;
        mixskd_kernels::set_cudnn_benchmark(&device, self.cudnn_benchmark)?;
        let on_gpu = has_gpu_kernels(&device);
        let mut gpu = GpuStepper::new(&device, self.launching)?;
        let store = ParamStore::new(self.seed, DType::F32, &device);
        let spec = method::spec(self.method.name())?;
        let blocks = (spec.batch)(&self.method)?.blocks();
        let mut method = (spec.build)(&MethodInputs {
            config: &self.method,
            objective: &self.objective,
            model: &self.model,
            store: &store,
            seed: self.seed,
            epochs: 1,
            train_images: self.batch,
            freeze_backbone: false,
        })?;
        let mut optimizer = self.optimizer.build(store.parameters())?;
        let images_per_step = self.batch * method.images_per_sample();
        let macs = method.cost(self.model.input)?.macs;
        let images = images(&self.model, self.batch * blocks, self.seed, &device)?;
        let images = self.precision.maps(&images)?;
        let labels = (0..self.batch)
            .map(|i| (i * 7 % self.model.classes) as u32)
            .collect::<Vec<_>>();
        // What a method needs on top of the anchors, block by block.
        let host_labels = labels.repeat(blocks);
        let labels = Tensor::new(host_labels.as_slice(), &device)?;
        let indices = (0..self.batch as u32).collect::<Vec<_>>().repeat(blocks);

        let warm_up = self.warm_up.max(if on_gpu { GPU_WARM_UP } else { 0 });
        let prepare = |method: &dyn Method, step| {
            let draws = method.draws(&DrawSite {
                labels: &host_labels,
                size: (self.model.input, self.model.input),
                epoch: 0,
                step,
            })?;
            let draws = draws.iter().map(|t| Ok(t.to_device(&device)?));
            Ok::<_, Error>(TrainBatch {
                images: images.clone(),
                labels: labels.clone(),
                indices: indices.clone(),
                epoch: 0,
                step,
                draws: draws.collect::<Result<_>>()?,
            })
        };
        let lr = self.optimizer.lr;
        let mut ahead: Option<TrainBatch> = None;
        let mut take = |gpu: &mut GpuStepper, step, go_on| {
            let batch = match ahead.take() {
                Some(batch) if batch.step == step => batch,
                _ => prepare(&*method, step)?,
            };
            // As in training: the next batch is prepared while the GPU works.
            if on_gpu && gpu.begin(&mut *method, &optimizer, &batch, lr)? {
                let next = prepare(&*method, step + 1)?;
                gpu.fill_ahead(&next, lr)?;
                if go_on {
                    gpu.begin(&mut *method, &optimizer, &next, lr)?;
                }
                ahead = Some(next);
            }
            // As in training: on a GPU one reading ends the step.
            let finite = if on_gpu {
                let outcome = gpu.step(&mut *method, &optimizer, &batch, lr, &mut || ())?;
                outcome.finite
            } else {
                let (reading, gradients) =
                    forth_and_back(&mut *method, &optimizer, &batch, &mut || ())?;
                let finite = reading.broken().is_none() && broken_gradient(&gradients)?.is_none();
                if finite {
                    optimizer.update(&gradients, lr)?;
                }
                finite
            };
            if finite {
                return Ok(());
            }
            Err(Error::NotFinite {
                term: "loss or gradient".into(),
                layer: None,
                value: f64::NAN,
                epoch: 1,
                step: step + 1,
                checkpoint: None,
            })
        };
        let seconds = timed(warm_up, self.steps, |step| take(&mut gpu, step, false))?;
        let captured = gpu.is_captured();
        let mut seconds_per_step_ahead = None;
        if captured {
            let started = Instant::now();
            for k in 1..=self.steps {
                take(&mut gpu, warm_up + self.steps + k, k < self.steps)?;
            }
            seconds_per_step_ahead = Some(started.elapsed().as_secs_f64() / self.steps as f64);
        }
        let mut notices: Vec<String> = std::iter::from_fn(|| gpu.take_notice()).collect();
        let gpu_memory_bytes = mixskd_kernels::gpu_memory_in_use(&device)?;
        // A graph of its own, into which the watch puts its marks.
        drop(gpu);
        let gpu_kernels = if self.kernels {
            let mut gpu = GpuStepper::new(&device, self.launching)?;
            let watched = kernels::watch(&device, || {
                take(&mut gpu, 0, false)?;
                Ok(gpu.is_captured())
            });
            // The step's time is not lost with its parts.
            match watched {
                Ok(times) => Some(times),
                Err(error) => {
                    notices.push(format!("no times of single kernels: {error}"));
                    None
                }
            }
        } else {
            None
        };
        let macs_per_step = 3 * macs * images_per_step as u64;
        Ok(StepReport {
            model: self.model.name.clone(),
            width: self.model.width,
            input: self.model.input,
            classes: self.model.classes,
            method: self.method.name().into(),
            batch: self.batch,
            images_per_step,
            threads: rayon::current_num_threads(),
            device: if device.is_cuda() { "cuda" } else { "cpu" },
            precision: self.precision,
            captured,
            steps: self.steps,
            seconds_per_step: seconds,
            seconds_per_step_ahead,
            samples_per_s: seconds.rate(self.batch as f64),
            macs_per_step,
            gflop_per_s: seconds.rate(2e-9 * macs_per_step as f64),
            peak_memory_bytes: peak_resident_bytes(),
            gpu_memory_bytes,
            notices,
            gpu_kernels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_can_be_timed() {
        for spec in method::ALL {
            let model = ModelConfig {
                width: 0.03125,
                ..ModelConfig::new("cifar_resnet18", 5).unwrap()
            };
            let bench = StepBench {
                batch: 4,
                steps: 1,
                warm_up: 0,
                ..StepBench::new(model, spec.name).unwrap()
            };
            let report = bench.run().unwrap();
            assert!(report.images_per_step >= 4, "{}", spec.name);
            let operations = report.gflop_per_s.median * report.seconds_per_step.median * 1e9;
            let counted = 2.0 * report.macs_per_step as f64;
            assert!((operations / counted - 1.0).abs() < 1e-9, "{}", spec.name);
        }
    }
}
