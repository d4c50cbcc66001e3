//! One row of the side-by-side table, in a process of its own so that its memory peak is its own. `cargo xtask bench --peer`
//! calls it; `benches/peers/` holds the other side.
//!
//! - `row peak`: the machine's float32 matrix product and memory traffic
//! - `row conv SHAPE...`: convolutions, SHAPE is `batch,side,in,out,kernel,stride,groups`
//! - `row loader`: an epoch of batches, training augmentation included; of the folder `MIXSKD_BENCH_DATA` names, or the shipped set
//!
//! Prints `{"rows": {NAME: {"seconds": [...], "amount": N}}}`: seconds of each repetition, and how much work one is.
//! `RAYON_NUM_THREADS` sets the threads.

use std::hint::black_box;

use candle_core::{Tensor, Var};
use mixskd_benches::{ConvShape, median, ramp, repeat};
use mixskd_data::{DataConfig, Loader, LoaderConfig};
use mixskd_kernels::{backward, conv2d, linear, mse};
use rayon::prelude::*;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Seconds that each repetition goes on for.
const BUDGET: f64 = 0.25;

/// Name, seconds of each repetition, amount of work in one.
type Row = (String, Vec<f64>, f64);

fn main() -> Outcome<()> {
    mixskd_benches::keep_freed_memory();
    let mut args = std::env::args().skip(1);
    let rows = match args.next().as_deref() {
        Some("peak") => peak()?,
        Some("conv") => {
            let mut rows = vec![];
            for text in args {
                let shape = ConvShape::parse(&text).ok_or_else(|| format!("{text}: no shape"))?;
                rows.extend(conv(&text, shape)?);
            }
            rows
        }
        Some("loader") => loader()?,
        _ => return Err("usage: row peak | conv SHAPE... | loader".into()),
    };
    let rows = rows.into_iter().map(|(name, seconds, amount)| {
        format!("  \"{name}\": {{\"seconds\": {seconds:?}, \"amount\": {amount:?}}}")
    });
    println!(
        "{{\"rows\": {{\n{}\n}}}}",
        rows.collect::<Vec<_>>().join(",\n")
    );
    Ok(())
}

/// A square matrix product, in operations, and `a = b + s·c` over arrays no cache holds, in bytes.
fn peak() -> Outcome<Vec<Row>> {
    let side = 1536;
    let (x, w) = (ramp(&[side, side])?, ramp(&[side, side])?);
    let product = repeat(1.0, || linear(&x, &w, None).map(|y| drop(black_box(y))))?;
    let len = 1 << 25;
    let (mut a, b, c) = (vec![0f32; len], vec![1f32; len], vec![2f32; len]);
    let block = 1 << 16;
    let triad = repeat(1.0, || {
        let parts = a.par_chunks_mut(block).zip(b.par_chunks(block));
        parts.zip(c.par_chunks(block)).for_each(|((a, b), c)| {
            for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                *a = *b + 3.0 * *c;
            }
        });
        black_box(&mut a);
        Ok::<(), std::convert::Infallible>(())
    })?;
    Ok(vec![
        (
            "matrix product".into(),
            product,
            2.0 * (side as f64).powi(3),
        ),
        ("memory".into(), triad, 12.0 * len as f64),
    ])
}

/// Forward, data gradient and weight gradient of one convolution, in operations.
fn conv(name: &str, shape: ConvShape) -> Outcome<Vec<Row>> {
    let config = shape.config();
    let (x, w) = (ramp(&shape.x())?, ramp(&shape.w())?);
    let mut operations = 0.0;
    let forward = repeat(BUDGET, || {
        conv2d(&x, &w, config).map(|y| {
            let taps = shape.input / shape.groups * shape.kernel * shape.kernel;
            operations = 2.0 * (y.elem_count() * taps) as f64;
        })
    })?;
    let mut rows = vec![(format!("{name} forward"), forward, operations)];
    for (side, of_data) in [("data", true), ("weight", false)] {
        let (xv, wv) = (Var::from_tensor(&x)?, Var::from_tensor(&w)?);
        let (xd, wd) = (xv.as_detached_tensor(), wv.as_detached_tensor());
        let (x, w) = if of_data {
            (xv.as_tensor(), &wd)
        } else {
            (&xd, wv.as_tensor())
        };
        let y = conv2d(x, w, config)?;
        let target = ramp(y.dims())?;
        let loss = mse(&y, &target)?;
        let with = repeat(BUDGET, || backward(&loss).map(drop))?;
        // The loss's own backward pass, which makes the gradient of the output, comes off.
        let around = around(&y.detach(), &target)?;
        let seconds = with.iter().map(|s| (s - around).max(s * 0.1)).collect();
        rows.push((format!("{name} {side}"), seconds, operations));
    }
    Ok(rows)
}

/// Seconds of the backward pass of a loss alone.
fn around(y: &Tensor, target: &Tensor) -> Outcome<f64> {
    let idle = Var::from_tensor(y)?;
    let loss = mse(&idle, target)?;
    Ok(median(repeat(BUDGET, || backward(&loss).map(drop))?))
}

/// One epoch of the loader, in images.
fn loader() -> Outcome<Vec<Row>> {
    let mut config = DataConfig::default();
    if let Ok(source) = std::env::var("MIXSKD_BENCH_DATA") {
        config.source = source;
    }
    let dataset = config.open()?;
    let pipeline = dataset.train_pipeline(dataset.input_size())?;
    let loader = Loader::new(dataset.train.clone(), pipeline, LoaderConfig::default())?;
    let (mut number, mut images) = (0, 0);
    let seconds = repeat(2.0, || {
        number += 1;
        images = 0;
        for batch in loader.epoch(number) {
            images += black_box(batch?).labels.len();
        }
        Ok::<(), mixskd_data::Error>(())
    })?;
    Ok(vec![("loader".into(), seconds, images as f64)])
}
