//! How fast a configuration runs here, measured on synthetic images: it takes no data set and leaves nothing behind.
//!
//! ```
//! use mixskd_models::ModelConfig;
//! use mixskd_train::bench::StepBench;
//!
//! # fn main() -> mixskd_train::Result<()> {
//! let model = ModelConfig { width: 0.03125, ..ModelConfig::new("cifar_resnet18", 10)? };
//! let report = StepBench { batch: 4, steps: 2, ..StepBench::new(model, "ce")? }.run()?;
//! println!("{:.1} samples/s", report.samples_per_s.median);
//! # Ok(())
//! # }
//! ```

mod infer;
mod kernels;
mod step;

use std::time::Instant;

use candle_core::{Device, Tensor};
use mixskd_data::rng::{Purpose, stream};
use mixskd_models::ModelConfig;
use rand::Rng;
use serde::Serialize;

pub use infer::{InferBench, InferReport};
pub use kernels::{KernelTime, KernelTimes};
pub use step::{StepBench, StepReport};

use crate::{Error, Result};

/// Steps before those that are timed on a GPU, at least: a graph is captured after a few, and its first launch uploads it.
pub(crate) const GPU_WARM_UP: usize = 6;

/// Least, middle and greatest of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self {
            min: values[0],
            median,
            max: values[values.len() - 1],
        }
    }

    /// `amount` of work per second, for times in seconds: the greatest comes from the least.
    fn rate(self, amount: f64) -> Self {
        Self {
            min: amount / self.max,
            median: amount / self.median,
            max: amount / self.min,
        }
    }
}

/// Seconds of each of `steps` calls of `work`, after `warm_up` calls that do not count.
fn timed(
    warm_up: usize,
    steps: usize,
    mut work: impl FnMut(usize) -> Result<()>,
) -> Result<Spread> {
    let mut seconds = Vec::with_capacity(steps);
    for number in 0..warm_up + steps {
        let started = Instant::now();
        work(number)?;
        if number >= warm_up {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(Spread::of(seconds))
}

/// Normalised images of noise, mean 0 and standard deviation 1, `[batch, input, input, channels]`: a function of the seed.
fn images(model: &ModelConfig, batch: usize, seed: u64, device: &Device) -> Result<Tensor> {
    let shape = (batch, model.input, model.input, model.channels);
    // An epoch that no run reaches, so that no method's draws are these.
    let mut rng = stream(seed, u64::MAX, 0, Purpose::Method);
    let bound = 3f32.sqrt();
    let pixels = (0..batch * model.input * model.input * model.channels)
        .map(|_| rng.random_range(-bound..bound))
        .collect::<Vec<_>>();
    Ok(Tensor::from_vec(pixels, shape, device)?)
}

fn at_least_one(what: &str, value: usize) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::Config {
        place: what.into(),
        message: "must be at least 1".into(),
        hint: Some(format!("--{what} 1")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        let four = spread(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!((four.min, four.median, four.max), (1.0, 2.5, 4.0));
        let rate = four.rate(8.0);
        assert_eq!((rate.min, rate.median, rate.max), (2.0, 3.2, 8.0));
    }

    #[test]
    fn images_follow_from_the_seed() {
        let model = ModelConfig::new("cifar_resnet18", 10).unwrap();
        let draw = |seed| {
            let images = images(&model, 2, seed, &Device::Cpu).unwrap();
            assert_eq!(images.dims(), [2, 32, 32, 3]);
            images.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert!(draw(1) == draw(1) && draw(1) != draw(2));
        let square = |x: &f32| f64::from(*x).powi(2);
        let mean_square = draw(1).iter().map(square).sum::<f64>() / 6144.0;
        assert!((mean_square - 1.0).abs() < 0.05, "{mean_square}");
    }

    #[test]
    fn nothing_to_measure_is_refused() {
        let model = || ModelConfig::new("cifar_resnet18", 10).unwrap();
        let step = StepBench {
            steps: 0,
            ..StepBench::new(model(), "ce").unwrap()
        };
        let message = step.run().unwrap_err().to_string();
        assert_eq!(message, "steps: must be at least 1");
        let infer = InferBench {
            batch: 0,
            ..InferBench::new(model())
        };
        assert!(infer.run().unwrap_err().is_usage());
    }
}
