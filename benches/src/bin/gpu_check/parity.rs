//! Every kernel on the GPU beside its CPU twin: results and gradients, in float and in bfloat16.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use mixskd_kernels::{
    BATCH_NORM_EPS, Conv2dConfig, Pool2dConfig, Tape, add, avg_pool2d, backward, batch_norm_eval,
    batch_norm_train, concat_channels, conv2d, cross_entropy, global_avg_pool2d, interpolate,
    interpolated_mse, kl_divergence, linear, max_pool2d, mix_cross_entropy, mse,
    soft_cross_entropy,
};

use crate::single::{downloads, hits, images, updates, updates_as_made, verdicts};
use crate::table::Table;
use crate::{LATE, OnGpu, Options, guarded, inference, maps, worse};

/// What the project asks of a GPU's kernels, relative to the length of the result.
fn bound(dtype: DType) -> f64 {
    if dtype == DType::BF16 { 1e-2 } else { 1e-4 }
}

/// Maps and floats to a result.
type Work = dyn Fn(&[Tensor], &[Tensor]) -> Result<Tensor>;

/// A check by itself: how far the GPU is off.
type Check = fn(&Device) -> Result<f64>;

/// Something that is computed on either side: of variables, those first that are feature maps.
pub(crate) struct Case {
    name: String,
    maps: Vec<Tensor>,
    floats: Vec<Tensor>,
    run: Box<Work>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        maps: &[&[usize]],
        floats: &[&[usize]],
        run: impl Fn(&[Tensor], &[Tensor]) -> Result<Tensor> + 'static,
    ) -> Result<Self> {
        let make = |(k, shape): (usize, &&[usize])| -> Result<Tensor> {
            // Not around zero: batch norm has something to centre.
            Ok((noise(shape, k)? + 0.1)?)
        };
        Ok(Self {
            name: name.into(),
            maps: maps.iter().enumerate().map(make).collect::<Result<_>>()?,
            floats: floats.iter().enumerate().map(make).collect::<Result<_>>()?,
            run: Box::new(run),
        })
    }

    /// The result and the gradients of all inputs, as floats on the CPU; gradients by the tape or by candle's graph.
    fn on(&self, device: &Device, dtype: DType, taped: bool) -> Result<Vec<Tensor>> {
        let var = |t: &Tensor, dtype| -> Result<Var> {
            // Both sides begin with numbers that bfloat16 knows.
            let rounded = t.to_dtype(DType::BF16)?.to_dtype(dtype)?;
            Ok(Var::from_tensor(&rounded.to_device(device)?)?)
        };
        let maps = self
            .maps
            .iter()
            .map(|t| var(t, dtype))
            .collect::<Result<Vec<_>>>()?;
        let floats = self
            .floats
            .iter()
            .map(|t| var(t, DType::F32))
            .collect::<Result<Vec<_>>>()?;
        let inputs = |vars: &[Var]| {
            vars.iter()
                .map(|v| v.as_tensor().clone())
                .collect::<Vec<_>>()
        };
        let tape = taped.then(Tape::start);
        let y = (self.run)(&inputs(&maps), &inputs(&floats))?;
        // Weighed, so that no gradient is the same everywhere, nor a function of the input.
        let weights = noise(y.dims(), 99)?
            .to_dtype(y.dtype())?
            .to_device(device)?;
        let loss = (&y * weights)?.to_dtype(DType::F32)?.sum_all()?;
        let gradients = match tape {
            Some(tape) => tape.backward(&loss)?,
            None => backward(&loss)?,
        };
        let mut all = vec![y.clone()];
        for v in maps.iter().chain(&floats) {
            all.push(
                gradients
                    .get(v)
                    .context("an input has no gradient")?
                    .clone(),
            );
        }
        all.iter()
            .map(|t| Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?))
            .collect()
    }
}

/// Values that look random, in [−1, 1): other ones for every `number`.
pub(crate) fn noise(shape: &[usize], number: usize) -> Result<Tensor> {
    let value = |i: usize| {
        let mut x = ((i as u64) << 8 | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((x >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    let len = shape.iter().product();
    Ok(Tensor::from_vec(
        (0..len).map(value).collect(),
        shape,
        &Device::Cpu,
    )?)
}

/// `‖a − b‖ / ‖b‖`.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let norm = |t: &Tensor| -> Result<f64> {
        Ok(t.to_dtype(DType::F64)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f64>()?
            .sqrt())
    };
    Ok(norm(&(a - b)?)? / norm(b)?.max(1e-12))
}

/// Compares everything.
pub(crate) fn run(gpu: &Device, options: &Options, table: &mut Table) {
    let in_time = || {
        anyhow::ensure!(!options.checks_late(), LATE);
        Ok(())
    };
    match cases() {
        Ok(cases) => {
            for case in cases {
                for dtype in [DType::F32, DType::BF16] {
                    let name = format!("{}, {}", case.name, dtype.as_str());
                    match in_time().and_then(|()| guarded(|| compare(&case, gpu, dtype))) {
                        Ok(error) => table.error("kernel", &name, error, bound(dtype)),
                        Err(error) => table.broken("kernel", &name, &error),
                    }
                }
            }
        }
        Err(error) => table.broken("kernel", "inputs", &error),
    }
    let others: [(&str, Check, DType); 10] = [
        ("update of all parameters", updates, DType::F32),
        (
            "update of weights as convolutions made their gradients",
            |gpu| updates_as_made(gpu, DType::F32),
            DType::F32,
        ),
        (
            "update of weights as convolutions made their gradients, bf16",
            |gpu| updates_as_made(gpu, DType::BF16),
            DType::F32,
        ),
        ("verdict on a step", verdicts, DType::F32),
        ("hits", hits, DType::F32),
        ("batches of images", images, DType::F32),
        (
            "values brought to the host while the GPU goes on",
            downloads,
            DType::F32,
        ),
        (
            "convolutions for inference, with bias, sum and activation",
            |gpu| inference::convolutions(gpu, DType::F32),
            DType::F32,
        ),
        (
            "convolutions for inference, with bias, sum and activation, bf16",
            |gpu| inference::convolutions(gpu, DType::BF16),
            DType::BF16,
        ),
        ("networks for inference", inference::networks, DType::F32),
    ];
    for (name, check, dtype) in others {
        match in_time().and_then(|()| guarded(|| check(gpu))) {
            Ok(error) => table.error("kernel", name, error, bound(dtype)),
            Err(error) => table.broken("kernel", name, &error),
        }
    }
}

/// The greatest distance of result and gradients.
fn compare(case: &Case, gpu: &Device, dtype: DType) -> Result<f64> {
    let expected = case.on(&Device::Cpu, DType::F32, false)?;
    let mut worst = 0f64;
    for taped in [true, false] {
        let on_gpu = OnGpu::new(gpu);
        let got = case.on(gpu, dtype, taped)?;
        drop(on_gpu);
        for (got, expected) in got.iter().zip(&expected) {
            worst = worse(worst, distance(got, expected)?);
        }
    }
    Ok(worst)
}

pub(crate) fn labels(rows: usize, classes: usize, like: &Tensor) -> Result<Tensor> {
    let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % classes) as u32).collect();
    Ok(Tensor::new(labels, like.device())?)
}

/// π, a permutation that is not its own inverse, and λ.
fn pairs(rows: usize, like: &Tensor) -> Result<(Tensor, Tensor)> {
    let partner: Vec<u32> = (0..rows).map(|i| ((i + 3) % rows) as u32).collect();
    let lambda: Vec<f32> = (0..rows).map(|i| (i as f32 * 0.37).fract()).collect();
    Ok((
        Tensor::new(partner, like.device())?,
        Tensor::new(lambda, like.device())?,
    ))
}

fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (batch, side, input, output, kernel, stride, groups) in [
        (8, 32, 3, 64, 3, 1, 1),
        (8, 16, 64, 64, 3, 1, 1),
        (8, 16, 64, 128, 3, 2, 1),
        (8, 8, 64, 128, 1, 2, 1),
        (8, 8, 128, 128, 1, 1, 1),
        (4, 40, 3, 64, 7, 2, 1),
        (8, 9, 24, 24, 3, 1, 24),
        (8, 9, 24, 48, 3, 2, 3),
        (3, 7, 5, 11, 3, 1, 1),
    ] {
        let config = Conv2dConfig {
            stride,
            padding: kernel / 2,
            groups,
            ..Conv2dConfig::default()
        };
        cases.push(Case::new(
            format!("convolution {side}², {input} to {output}, {kernel}×{kernel}, step {stride}, groups {groups}"),
            &[&[batch, side, side, input]],
            &[&[output, input / groups, kernel, kernel]],
            move |maps, floats| Ok(conv2d(&maps[0], &floats[0], config)?),
        )?);
    }
    for (dims, residual, relu) in [
        ([8, 16, 16, 64], true, true),
        ([8, 9, 7, 20], false, true),
        ([4, 5, 5, 7], false, false),
        // So large that a thread has several rows.
        ([8, 64, 64, 64], true, true),
        ([8, 64, 64, 64], false, true),
    ] {
        let (maps, channels): (Vec<&[usize]>, &[usize]) =
            (vec![&dims; 1 + usize::from(residual)], &dims[3..]);
        cases.push(Case::new(
            format!(
                "batch norm {dims:?}{}",
                if residual { " and sum" } else { "" }
            ),
            &maps,
            &[channels, channels],
            move |maps, floats| {
                let (y, _) = batch_norm_train(
                    &maps[0],
                    &floats[0],
                    &floats[1],
                    BATCH_NORM_EPS,
                    maps.get(1),
                    relu,
                )?;
                Ok(y)
            },
        )?);
        cases.push(Case::new(
            format!("batch norm by given statistics {dims:?}"),
            &maps,
            &[channels, channels],
            move |maps, floats| {
                let mean = floats[0].detach();
                let var = (floats[1].detach().sqr()? + 0.5)?;
                Ok(batch_norm_eval(
                    &maps[0],
                    &floats[0],
                    &floats[1],
                    &mean,
                    &var,
                    BATCH_NORM_EPS,
                    maps.get(1),
                    relu,
                )?)
            },
        )?);
    }
    // On the way back of a tape, what comes of two readers is added up where it is read.
    let near = Pool2dConfig {
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    for (dims, residual) in [
        ([8, 64, 64, 64], true),
        ([8, 64, 64, 64], false),
        ([4, 5, 5, 7], true),
    ] {
        let (maps, channels): (Vec<&[usize]>, &[usize]) =
            (vec![&dims; 1 + usize::from(residual)], &dims[3..]);
        cases.push(Case::new(
            format!(
                "batch norm {dims:?}{}, read twice",
                if residual { " and sum" } else { "" }
            ),
            &maps,
            &[channels, channels],
            move |maps, floats| {
                let (w, b) = (&floats[0], &floats[1]);
                let (y, _) = batch_norm_train(&maps[0], w, b, BATCH_NORM_EPS, maps.get(1), true)?;
                Ok(add(&y, &avg_pool2d(&y, near)?)?)
            },
        )?);
    }
    let window = Pool2dConfig {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let map: &[usize] = &[4, 17, 17, 24];
    cases.push(Case::new("max pool", &[map], &[], move |maps, _| {
        Ok(max_pool2d(&maps[0], window)?)
    })?);
    cases.push(Case::new("mean pool", &[map], &[], move |maps, _| {
        Ok(avg_pool2d(&maps[0], window)?)
    })?);
    cases.push(Case::new("global mean pool", &[map], &[], |maps, _| {
        Ok(global_avg_pool2d(&maps[0])?)
    })?);
    cases.push(Case::new(
        "fully connected",
        &[&[16, 96]],
        &[&[40, 96], &[40]],
        |maps, floats| Ok(linear(&maps[0], &floats[0], Some(&floats[1]))?),
    )?);
    let logits: &[usize] = &[32, 100];
    cases.push(Case::new("cross-entropy", &[logits], &[], |maps, _| {
        Ok(cross_entropy(&maps[0], &labels(32, 100, &maps[0])?)?)
    })?);
    cases.push(Case::new(
        "cross-entropy of mixes",
        &[logits],
        &[],
        |maps, _| {
            let (partner, lambda) = pairs(32, &maps[0])?;
            let own = labels(32, 100, &maps[0])?;
            let other = own.index_select(&partner, 0)?;
            Ok(mix_cross_entropy(&maps[0], &own, &other, &lambda)?)
        },
    )?);
    cases.push(Case::new(
        "cross-entropy with soft targets",
        &[logits],
        &[],
        |maps, _| {
            let uniform = (maps[0].detach().zeros_like()? + 0.01)?;
            Ok(soft_cross_entropy(&maps[0], &uniform)?)
        },
    )?);
    cases.push(Case::new("KL divergence", &[logits], &[], |maps, _| {
        let teacher = (maps[0].detach() * -2.0)?;
        Ok(kl_divergence(&maps[0], &teacher, 3.0)?)
    })?);
    cases.push(Case::new("mean square", &[map, map], &[], |maps, _| {
        Ok(mse(&maps[0], &maps[1])?)
    })?);
    cases.push(Case::new(
        "mean square of interpolated maps",
        &[map, map],
        &[],
        |maps, _| {
            let (partner, lambda) = pairs(4, &maps[0])?;
            Ok(interpolated_mse(&maps[0], &partner, &lambda, &maps[1])?)
        },
    )?);
    cases.push(Case::new(
        "interpolation",
        &[&[32, 8, 8, 16]],
        &[],
        |maps, _| {
            let (partner, lambda) = pairs(32, &maps[0])?;
            Ok(interpolate(&maps[0], &partner, &lambda)?)
        },
    )?);
    cases.extend(maps::cases()?);
    cases.push(Case::new(
        "joined channels",
        &[&[4, 7, 7, 12], &[4, 7, 7, 20]],
        &[],
        |maps, _| Ok(concat_channels(&maps[0], &maps[1])?),
    )?);
    cases.push(Case::new(
        "sum of maps",
        &[&[4, 7, 7, 12], &[4, 7, 7, 12]],
        &[],
        |maps, _| Ok(add(&maps[0], &maps[1])?),
    )?);
    Ok(cases)
}
