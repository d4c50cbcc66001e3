//! One whole training step, timed like `peers/step.py`: forward, all terms, backward, update.
//!
//! `cargo run --release -p mixskd-benches --bin step -- [model] [width] [method] [batch] [steps]`, by default
//! `cifar_resnet18 1 mixskd 32 5`; `RAYON_NUM_THREADS` sets the threads. Prints one JSON object.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{ModelConfig, ParamStore};
use mixskd_train::OptimizerConfig;
use mixskd_train::method::{self, MethodConfig, MethodInputs, TrainBatch};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn argument<T: std::str::FromStr>(at: usize, default: T) -> T {
    std::env::args()
        .nth(at)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Largest resident size so far, in MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .split_whitespace()
                .next()?
                .parse::<f64>()
                .ok()
        })
        .unwrap_or(f64::NAN)
        / 1024.0
}

fn main() -> Outcome<()> {
    let name: String = argument(1, "cifar_resnet18".into());
    let method: String = argument(3, "mixskd".into());
    let (batch, steps) = (argument(4, 32usize), argument(5, 5usize));
    let size = if name.starts_with("cifar") { 32 } else { 224 };
    let model = ModelConfig {
        width: argument(2, 1.0),
        input: size,
        ..ModelConfig::new(&name, 100)?
    };
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let config = MethodConfig {
        name: method,
        ..MethodConfig::default()
    };
    let mut method = (method::spec(&config.name)?.build)(&MethodInputs {
        config: &config,
        objective: &ObjectiveConfig::default(),
        model: &model,
        store: &store,
        seed: 0,
    })?;
    let mut optimizer = OptimizerConfig::default().build(store.parameters())?;
    let pixels: Vec<f32> = (0..batch * size * size * 3)
        .map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0)
        .collect();
    let labels: Vec<u32> = (0..batch as u32).map(|i| i * 7 % 100).collect();
    let images = Tensor::from_vec(pixels, (batch, size, size, 3), &Device::Cpu)?;
    let labels = Tensor::new(labels, &Device::Cpu)?;
    let mut seconds = vec![];
    for step in 0..steps + 2 {
        let start = Instant::now();
        let output = method.step(&TrainBatch {
            images: images.clone(),
            labels: labels.clone(),
            indices: (0..batch as u32).collect(),
            epoch: 0,
            step,
        })?;
        let gradients = output.loss.backward()?;
        optimizer.step(&gradients, 0.01)?;
        // The first two warm the allocator up.
        if step >= 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!(
        "{{\"samples_per_s\": {:.2}, \"seconds_per_step\": {median:.4}, \"min\": {:.4}, \"max\": {:.4}, \"peak_mib\": {:.0}}}",
        batch as f64 / median,
        seconds[0],
        seconds[seconds.len() - 1],
        peak_mib()
    );
    Ok(())
}
