//! Whole training steps and forward passes on synthetic images, as `mixskd bench` times them.
//!
//! `cargo bench -p mixskd-benches --bench steps -- [filter]`; `RAYON_NUM_THREADS` sets the threads.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use mixskd_models::ModelConfig;
use mixskd_train::Result;
use mixskd_train::bench::{InferBench, StepBench};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    mixskd_benches::keep_freed_memory();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(1))
        .configure_from_args();
    let network = |width: f64| -> Result<ModelConfig> {
        Ok(ModelConfig {
            width,
            ..ModelConfig::new("cifar_resnet18", 100)?
        })
    };
    let mut group = criterion.benchmark_group("step cifar_resnet18");
    for (method, width, batch) in [("ce", 0.25, 64), ("mixskd", 0.25, 64), ("ce", 1.0, 32)] {
        let bench = StepBench {
            batch,
            ..StepBench::new(network(width)?, method)?
        };
        group.throughput(Throughput::Elements(batch as u64));
        let name = format!("{method} width {width} batch {batch}");
        group.bench_function(name, |b| {
            b.iter_custom(|steps| {
                let bench = StepBench {
                    steps: steps as usize,
                    ..bench.clone()
                };
                taken(steps, bench.run().map(|r| r.seconds_per_step.median))
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("inference cifar_resnet18");
    for batch in [1, 64] {
        let bench = InferBench {
            batch,
            ..InferBench::new(network(1.0)?)
        };
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("width 1 batch {batch}"), |b| {
            b.iter_custom(|steps| {
                let bench = InferBench {
                    steps: steps as usize,
                    ..bench.clone()
                };
                taken(steps, bench.run().map(|r| r.seconds_per_batch.median))
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// Time of `steps` repetitions of the median one; an hour each, to be noticed, where it failed.
fn taken(steps: u64, seconds: Result<f64>) -> Duration {
    Duration::from_secs_f64(steps as f64 * seconds.unwrap_or(3600.0))
}
