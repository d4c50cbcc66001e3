//! Classification of batches with one network, batch norm folded into its convolutions.

use candle_core::DType;
use mixskd_models::graph::{Executor, Graph};
use mixskd_models::{ModelConfig, ParamStore};
use serde::Serialize;

use super::{Spread, at_least_one, images, timed};
use crate::machine::peak_resident_bytes;
use crate::{DeviceKind, Result};

/// A forward pass to be timed.
#[derive(Debug, Clone)]
pub struct InferBench {
    /// The network; `input` is the side of the images in pixels.
    pub model: ModelConfig,
    /// Images that go through at once.
    pub batch: usize,
    /// Batches that are timed.
    pub steps: usize,
    /// Batches before them that are not.
    pub warm_up: usize,
    /// Seed of images and parameters.
    pub seed: u64,
    /// Where to run.
    pub device: DeviceKind,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InferReport {
    /// Name of the network.
    pub model: String,
    /// Its width multiplier.
    pub width: f64,
    /// Side of the images, in pixels.
    pub input: usize,
    /// Number of classes.
    pub classes: usize,
    /// Images that went through at once.
    pub batch: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Batches that were timed.
    pub steps: usize,
    /// Seconds of a batch.
    pub seconds_per_batch: Spread,
    /// Images per second.
    pub samples_per_s: Spread,
    /// Multiply-adds of one image.
    pub macs_per_image: u64,
    /// 10⁹ operations per second, two to a counted multiply-add.
    pub gflop_per_s: Spread,
    /// Largest resident memory of the process, in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

impl InferBench {
    /// Batch 1, twenty batches after three.
    pub fn new(model: ModelConfig) -> Self {
        Self {
            model,
            batch: 1,
            steps: 20,
            warm_up: 3,
            seed: 0,
            device: DeviceKind::Auto,
        }
    }

    /// Builds the network, then classifies and times the batches.
    ///
    /// # Errors
    /// When a setting is out of range or the images are too small for the network.
    pub fn run(&self) -> Result<InferReport> {
        at_least_one("batch", self.batch)?;
        at_least_one("steps", self.steps)?;
        let device = self.device.open()?;
        let store = ParamStore::new(self.seed, DType::F32, &device);
        let backbone = self.model.build(store.builder())?;
        let macs = backbone.cost((self.model.input, self.model.input))?.macs;
        let images = images(&self.model, self.batch, self.seed, &device)?;
        let graph = Graph::of(backbone.as_ref(), self.model.channels)?;
        let network = Executor::new(&graph.fold_batch_norm()?.fuse())?;
        let seconds = timed(self.warm_up, self.steps, |_| {
            network.run(&images)?;
            Ok(device.synchronize()?)
        })?;
        Ok(InferReport {
            model: self.model.name.clone(),
            width: self.model.width,
            input: self.model.input,
            classes: self.model.classes,
            batch: self.batch,
            threads: rayon::current_num_threads(),
            steps: self.steps,
            seconds_per_batch: seconds,
            samples_per_s: seconds.rate(self.batch as f64),
            macs_per_image: macs,
            gflop_per_s: seconds.rate(2e-9 * macs as f64 * self.batch as f64),
            peak_memory_bytes: peak_resident_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_can_be_timed() {
        let model = ModelConfig {
            width: 0.0625,
            ..ModelConfig::new("cifar_resnet18", 5).unwrap()
        };
        let bench = InferBench {
            batch: 3,
            steps: 2,
            warm_up: 0,
            ..InferBench::new(model)
        };
        let report = bench.run().unwrap();
        assert!(report.seconds_per_batch.min > 0.0);
        let seconds = 3.0 / report.samples_per_s.max;
        assert!((seconds / report.seconds_per_batch.min - 1.0).abs() < 1e-9);
    }
}
