//! Prints GFLOP per second of processor time for each convolution shape: forward, then input and weight gradient together.
//!
//! `cargo run --release -p mixskd-benches --bin shapes -- [filter]`; `RAYON_NUM_THREADS` sets the threads.

use candle_core::{Device, Result, Tensor, Var};
use mixskd_kernels::{Conv2dConfig, conv2d};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Batch, image side, input channels, output channels, window side, stride.
const SHAPES: &[[usize; 6]] = &[
    [64, 32, 3, 16, 3, 1],
    [64, 32, 16, 16, 3, 1],
    [64, 32, 16, 32, 3, 2],
    [64, 16, 32, 32, 3, 1],
    [64, 16, 32, 64, 3, 2],
    [64, 8, 64, 64, 3, 1],
    [64, 8, 64, 128, 3, 2],
    [64, 4, 128, 128, 3, 1],
    [64, 32, 3, 64, 3, 1],
    [64, 32, 64, 64, 3, 1],
    [64, 32, 64, 128, 3, 2],
    [64, 32, 64, 128, 1, 2],
    [64, 16, 128, 128, 3, 1],
    [64, 16, 128, 256, 3, 2],
    [64, 8, 256, 256, 3, 1],
    [64, 8, 256, 512, 3, 2],
    [64, 4, 512, 512, 3, 1],
    [64, 4, 2048, 512, 1, 1],
    [8, 224, 3, 64, 7, 2],
    [8, 56, 256, 64, 1, 1],
    [8, 14, 256, 1024, 1, 1],
];

fn ramp(shape: &[usize]) -> Result<Tensor> {
    let len: usize = shape.iter().product();
    let data: Vec<f32> = (0..len)
        .map(|i| ((i * 2654435761) % 1000) as f32 / 1000.0 - 0.5)
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// Processor time of all threads so far, in seconds: unlike wall time, it does not count other programs' turns.
fn processor_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}

/// Mean processor time of one repetition, in seconds.
fn cost(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let begin = processor_time();
    let mut count = 0;
    loop {
        work()?;
        count += 1;
        let spent = processor_time() - begin;
        if spent > 0.3 {
            return Ok(spent / f64::from(count));
        }
    }
}

fn main() -> Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    println!(
        "{:32} {:>9} {:>9} {:>9} {:>9}",
        "shape", "fwd GF/s", "bwd GF/s", "fwd ms", "bwd ms"
    );
    for &[batch, side, ci, co, kernel, stride] in SHAPES {
        let name = format!("{batch}x{side}x{side}x{ci}->{co} k{kernel} s{stride}");
        if !name.contains(&filter) {
            continue;
        }
        let config = Conv2dConfig {
            stride,
            padding: kernel / 2,
            ..Conv2dConfig::default()
        };
        let x = Var::from_tensor(&ramp(&[batch, side, side, ci])?)?;
        let w = Var::from_tensor(&ramp(&[co, ci, kernel, kernel])?)?;
        let xd = x.as_detached_tensor();
        let wd = w.as_detached_tensor();
        let forward = cost(|| conv2d(&xd, &wd, config).map(|_| ()).map_err(Into::into))?;
        let y = conv2d(&x, &w, config).map_err(candle_core::Error::from)?;
        let dy = y.ones_like()?;
        let loss = (&y * &dy)?.sum_all()?;
        let with = cost(|| loss.backward().map(|_| ()))?;
        let idle = Var::from_tensor(&y.detach())?;
        let other = (idle.as_tensor() * &dy)?.sum_all()?;
        // The graph around the convolution costs time too; take it off.
        let without = cost(|| other.backward().map(|_| ()))?;
        let backward = (with - without).max(1e-9);
        let flops = 2.0 * (y.elem_count() * ci * kernel * kernel) as f64;
        println!(
            "{name:32} {:9.1} {:9.1} {:9.3} {:9.3}",
            flops / forward / 1e9,
            2.0 * flops / backward / 1e9,
            forward * 1e3,
            backward * 1e3
        );
    }
    Ok(())
}
