//! Every kernel, forward and forward with backward, at shapes that networks have.
//!
//! `cargo bench -p mixskd-benches --bench kernels -- [filter]`; `RAYON_NUM_THREADS` sets the threads. Convolutions count
//! operations (two to a multiply-add), everything else the bytes of its largest input.

use std::hint::black_box;

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, Throughput};
use mixskd_benches::{ConvShape, ramp};
use mixskd_kernels::{
    BATCH_NORM_EPS, Pool2dConfig, Result, SgdConfig, batch_norm_eval, batch_norm_train, conv2d,
    cross_entropy, global_avg_pool2d, interpolate, interpolated_mse, kl_divergence, linear,
    max_pool2d, mix_cross_entropy, mse, sgd_step, soft_cross_entropy,
};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `batch,side,in,out,kernel,stride,groups`.
const CONVOLUTIONS: &[&str] = &[
    "32,32,64,64,3,1,1",
    "32,16,128,128,3,1,1",
    "32,8,256,256,3,1,1",
    "32,4,512,512,3,1,1",
    "32,32,64,128,3,2,1",
    "8,56,256,64,1,1,1",
    "8,224,3,64,7,2,1",
    "8,28,256,256,3,1,256",
];

fn main() -> Result<()> {
    mixskd_benches::keep_freed_memory();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
        .configure_from_args();
    convolutions(&mut criterion)?;
    maps(&mut criterion)?;
    losses(&mut criterion)?;
    update(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Times `f` on tensors without a graph, and `f` with the backward pass of its sum on variables.
fn both(
    criterion: &mut Criterion,
    name: &str,
    amount: &Throughput,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let vars = inputs
        .iter()
        .map(Var::from_tensor)
        .collect::<candle_core::Result<Vec<_>>>()?;
    let leaves = vars
        .iter()
        .map(|v| v.as_tensor().clone())
        .collect::<Vec<_>>();
    let backward = || -> Result<()> {
        let y = f(&leaves)?;
        let loss = if y.rank() == 0 { y } else { y.sum_all()? };
        black_box(loss.backward()?);
        Ok(())
    };
    // Once in earnest, so that an error is not a fast result.
    backward()?;
    let mut group = criterion.benchmark_group(name);
    group.throughput(amount.clone());
    group.bench_function("forward", |b| b.iter(|| black_box(f(inputs)).ok()));
    group.bench_function("forward+backward", |b| b.iter(|| backward().ok()));
    group.finish();
    Ok(())
}

fn convolutions(criterion: &mut Criterion) -> Result<()> {
    for shape in CONVOLUTIONS
        .iter()
        .filter_map(|text| ConvShape::parse(text))
    {
        let config = shape.config();
        let out = config.out_size(shape.side, shape.kernel)?;
        let taps = shape.input / shape.groups * shape.kernel * shape.kernel;
        let operations = 2 * shape.batch * out * out * shape.output * taps;
        let name = format!(
            "conv {0}x{0} {1}->{2} {3} px stride {4} groups {5}",
            shape.kernel, shape.input, shape.output, shape.side, shape.stride, shape.groups
        );
        let amount = Throughput::Elements(operations as u64);
        let inputs = [ramp(&shape.x())?, ramp(&shape.w())?];
        both(criterion, &name, &amount, &inputs, |v| {
            conv2d(&v[0], &v[1], config)
        })?;
    }
    Ok(())
}

fn index(count: usize, f: impl Fn(usize) -> usize) -> Result<Tensor> {
    let ids = (0..count).map(|i| f(i) as u32).collect::<Vec<_>>();
    Ok(Tensor::new(ids, &Device::Cpu)?)
}

fn maps(criterion: &mut Criterion) -> Result<()> {
    let shape = [64, 32, 32, 64];
    let x = ramp(&shape)?;
    let bytes = Throughput::Bytes(4 * x.elem_count() as u64);
    let (scale, shift) = (ramp(&[64])?, ramp(&[64])?);
    let norm = [x.clone(), scale, shift, ramp(&shape)?];
    both(
        criterion,
        "batch_norm_train relu",
        &bytes,
        &norm[..3],
        |v| Ok(batch_norm_train(&v[0], &v[1], &v[2], BATCH_NORM_EPS, None, true)?.0),
    )?;
    both(
        criterion,
        "batch_norm_train residual relu",
        &bytes,
        &norm,
        |v| {
            let (y, _) = batch_norm_train(&v[0], &v[1], &v[2], BATCH_NORM_EPS, Some(&v[3]), true)?;
            Ok(y)
        },
    )?;
    let (mean, var) = (ramp(&[64])?, (ramp(&[64])? + 1.0)?);
    both(criterion, "batch_norm_eval relu", &bytes, &norm[..3], |v| {
        batch_norm_eval(&v[0], &v[1], &v[2], &mean, &var, BATCH_NORM_EPS, None, true)
    })?;
    let pool = Pool2dConfig {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let one = std::slice::from_ref(&x);
    both(criterion, "max_pool2d 3x3 stride 2", &bytes, one, |v| {
        max_pool2d(&v[0], pool)
    })?;
    both(criterion, "global_avg_pool2d", &bytes, one, |v| {
        global_avg_pool2d(&v[0])
    })?;
    let (partner, lambda) = (index(64, |i| (i + 7) % 64)?, (ramp(&[64])? + 0.5)?);
    both(criterion, "interpolate", &bytes, one, |v| {
        interpolate(&v[0], &partner, &lambda)
    })?;
    let pair = [x.clone(), ramp(&shape)?];
    both(criterion, "mse", &bytes, &pair, |v| mse(&v[0], &v[1]))?;
    both(criterion, "interpolated_mse", &bytes, &pair, |v| {
        interpolated_mse(&v[0], &partner, &lambda, &v[1])
    })
}

fn losses(criterion: &mut Criterion) -> Result<()> {
    let (batch, classes) = (128, 1000);
    let pair = [ramp(&[batch, classes])?, ramp(&[batch, classes])?];
    let bytes = Throughput::Bytes((4 * batch * classes) as u64);
    let (y, y2) = (
        index(batch, |i| i * 7 % classes)?,
        index(batch, |i| i * 5 % classes)?,
    );
    let lambda = (ramp(&[batch])? + 0.5)?;
    let one = &pair[..1];
    both(criterion, "cross_entropy 128x1000", &bytes, one, |v| {
        cross_entropy(&v[0], &y)
    })?;
    both(criterion, "mix_cross_entropy 128x1000", &bytes, one, |v| {
        mix_cross_entropy(&v[0], &y, &y2, &lambda)
    })?;
    both(
        criterion,
        "soft_cross_entropy 128x1000",
        &bytes,
        &pair,
        |v| soft_cross_entropy(&v[0], &v[1]),
    )?;
    both(criterion, "kl_divergence 128x1000", &bytes, &pair, |v| {
        kl_divergence(&v[0], &v[1], 3.0)
    })?;
    let dense = [ramp(&[64, 512])?, ramp(&[1000, 512])?, ramp(&[1000])?];
    let operations = Throughput::Elements(2 * 64 * 512 * 1000);
    both(criterion, "linear 64x512->1000", &operations, &dense, |v| {
        linear(&v[0], &v[1], Some(&v[2]))
    })
}

/// The SGD step of a full-width ResNet-18's parameters.
fn update(criterion: &mut Criterion) -> Result<()> {
    let len = 11_200_000;
    let p = Var::from_tensor(&ramp(&[len])?)?;
    let v = Var::from_tensor(&p.zeros_like()?)?;
    let g = ramp(&[len])?;
    let config = SgdConfig {
        lr: 1e-3,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
    };
    let mut group = criterion.benchmark_group("sgd_step 11.2M");
    group.throughput(Throughput::Bytes(20 * len as u64));
    group.bench_function("update", |b| b.iter(|| sgd_step(&p, &g, &v, config).ok()));
    group.finish();
    Ok(())
}
