//! Images a second that the loader prepares, training augmentation included.
//!
//! `MIXSKD_BENCH_DATA=DIR cargo bench -p mixskd-benches --bench loader`; without the variable the shipped set is used.
//! `RAYON_NUM_THREADS` sets the threads. The peer is `benches/peers/loader.py DIR`.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use mixskd_data::{DataConfig, Loader, LoaderConfig, Result};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    mixskd_benches::keep_freed_memory();
    let mut config = DataConfig::default();
    if let Ok(source) = std::env::var("MIXSKD_BENCH_DATA") {
        config.source = source;
    }
    let dataset = config.open()?;
    let pipeline = dataset.train_pipeline(dataset.input_size())?;
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("loader");
    for batch in [64, 256] {
        let config = LoaderConfig {
            batch,
            ..LoaderConfig::default()
        };
        let loader = Loader::new(dataset.train.clone(), pipeline.clone(), config)?;
        // Once in earnest, so that an unreadable set is an error and not a fast result.
        let images = epoch(&loader, 0)?;
        group.throughput(Throughput::Elements(images as u64));
        let mut number = 0;
        group.bench_function(format!("{}/batch {batch}", dataset.name), |bencher| {
            bencher.iter(|| {
                number += 1;
                black_box(epoch(&loader, number)).ok()
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// Takes every batch of an epoch; returns how many images there were.
fn epoch(loader: &Loader, number: u64) -> Result<usize> {
    let mut images = 0;
    for batch in loader.epoch(number) {
        images += black_box(batch?).labels.len();
    }
    Ok(images)
}
