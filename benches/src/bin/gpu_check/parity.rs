//! Every kernel on the GPU beside its CPU twin: results and gradients, in float and in bfloat16.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use mixskd_benches::ramp;
use mixskd_kernels::{
    BATCH_NORM_EPS, Conv2dConfig, ConvWeights, DeviceImages, Downloads, ImageWindow,
    ParameterUpdate, Pool2dConfig, SgdConfig, Tape, add, avg_pool2d, backward, batch_norm_eval,
    batch_norm_train, concat_channels, conv2d, count_hits, cross_entropy, global_avg_pool2d,
    interpolate, interpolated_mse, judge, kl_divergence, linear, max_pool2d, mix_cross_entropy,
    mse, sgd_step, sgd_steps, soft_cross_entropy,
};

use crate::table::Table;
use crate::{LATE, OnGpu, Options, guarded, worse};

/// What the project asks of a GPU's kernels, relative to the length of the result.
fn bound(dtype: DType) -> f64 {
    if dtype == DType::BF16 { 1e-2 } else { 1e-4 }
}

/// Maps and floats to a result.
type Work = dyn Fn(&[Tensor], &[Tensor]) -> Result<Tensor>;

/// A check by itself: how far the GPU is off.
type Check = fn(&Device) -> Result<f64>;

/// Something that is computed on either side: of variables, those first that are feature maps.
struct Case {
    name: String,
    maps: Vec<Tensor>,
    floats: Vec<Tensor>,
    run: Box<Work>,
}

impl Case {
    fn new(
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
fn noise(shape: &[usize], number: usize) -> Result<Tensor> {
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
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
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
    let others: [(&str, Check); 7] = [
        ("update of all parameters", updates),
        (
            "update of weights as convolutions made their gradients",
            |gpu| updates_as_made(gpu, DType::F32),
        ),
        (
            "update of weights as convolutions made their gradients, bf16",
            |gpu| updates_as_made(gpu, DType::BF16),
        ),
        ("verdict on a step", verdicts),
        ("hits", hits),
        ("batches of images", images),
        (
            "values brought to the host while the GPU goes on",
            downloads,
        ),
    ];
    for (name, check) in others {
        match in_time().and_then(|()| guarded(|| check(gpu))) {
            Ok(error) => table.error("kernel", name, error, bound(DType::F32)),
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

fn labels(rows: usize, classes: usize, like: &Tensor) -> Result<Tensor> {
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

/// Three updates of parameters of all lengths.
fn updates(gpu: &Device) -> Result<f64> {
    let config = SgdConfig {
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
    };
    let lengths: Vec<usize> = (0..130).map(|k| [1, 64, 1000, 5000][k % 4]).collect();
    let own = |device: &Device| -> Result<Vec<(Var, Tensor, Var)>> {
        let one = |&len: &usize| {
            let t = ramp(&[len])?.to_device(device)?;
            Ok((
                Var::from_tensor(&t)?,
                (&t * 0.3)?,
                Var::from_tensor(&t.zeros_like()?)?,
            ))
        };
        lengths.iter().map(one).collect()
    };
    let expected = own(&Device::Cpu)?;
    for _ in 0..3 {
        for (parameter, gradient, velocity) in &expected {
            sgd_step(parameter, gradient, velocity, config)?;
        }
    }
    let _on_gpu = OnGpu::new(gpu);
    let got = own(gpu)?;
    let rate = Tensor::new(&[0.1f32], gpu)?;
    let bad = Tensor::new(&[0f32], gpu)?;
    let updates: Vec<_> = got
        .iter()
        .map(|(parameter, gradient, velocity)| ParameterUpdate {
            parameter,
            gradient,
            velocity,
            factor: 1.0,
            turned: None,
        })
        .collect();
    for verdict in [None, Some(&bad), None, None] {
        sgd_steps(&updates, &rate, verdict, config)?.context("no kernel")?;
    }
    let mut worst = 0f64;
    for ((p, _, v), (ep, _, ev)) in got.iter().zip(&expected) {
        worst = worse(worst, distance(&p.to_device(&Device::Cpu)?, ep)?);
        worst = worse(worst, distance(&v.to_device(&Device::Cpu)?, ev)?);
    }
    Ok(worst)
}

/// Two updates of convolutions' weights whose gradients are as convolutions make them, and what is kept beside them.
fn updates_as_made(gpu: &Device, dtype: DType) -> Result<f64> {
    let config = SgdConfig {
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
    };
    let shapes: Vec<[usize; 4]> = (0..100)
        .map(|k| [[64, 3, 3, 3], [32, 64, 1, 1], [40, 70, 3, 3], [8, 3, 7, 7]][k % 4])
        .collect();
    let own = |device: &Device| -> Result<Vec<(Var, Tensor, Var)>> {
        let one = |(k, shape): (usize, &[usize; 4])| {
            let (p, g) = (noise(shape, k)?, noise(shape, k + 1)?.to_dtype(dtype)?);
            let p = p.to_device(device)?;
            let v = Var::from_tensor(&p.zeros_like()?)?;
            Ok((Var::from_tensor(&p)?, g.to_device(device)?, v))
        };
        shapes.iter().enumerate().map(one).collect()
    };
    let expected = own(&Device::Cpu)?;
    for _ in 0..2 {
        for (parameter, gradient, velocity) in &expected {
            sgd_step(parameter, &gradient.to_dtype(DType::F32)?, velocity, config)?;
        }
    }
    let _on_gpu = OnGpu::new(gpu);
    let got = own(gpu)?;
    let weights = ConvWeights::new(got.iter().map(|(p, ..)| p.as_tensor()), dtype)?;
    let as_made = |(p, g, _): &(Var, Tensor, Var)| -> Result<Tensor> {
        Ok(match weights.get(p) {
            Some(turned) => g
                .permute((0, 2, 3, 1))?
                .contiguous()?
                .reshape(turned.dims())?,
            None => g.clone(),
        })
    };
    let gradients: Vec<_> = got.iter().map(as_made).collect::<Result<_>>()?;
    let rate = Tensor::new(&[0.1f32], gpu)?;
    let bad = Tensor::new(&[0f32], gpu)?;
    let updates: Vec<_> = (got.iter().zip(&gradients))
        .map(|((parameter, _, velocity), gradient)| ParameterUpdate {
            parameter,
            gradient,
            velocity,
            factor: 1.0,
            turned: weights.get(parameter),
        })
        .collect();
    for verdict in [None, Some(&bad), None] {
        sgd_steps(&updates, &rate, verdict, config)?.context("no kernel")?;
    }
    let mut worst = 0f64;
    for ((p, _, v), (ep, _, ev)) in got.iter().zip(&expected) {
        worst = worse(worst, distance(&p.to_device(&Device::Cpu)?, ep)?);
        worst = worse(worst, distance(&v.to_device(&Device::Cpu)?, ev)?);
        if let Some(turned) = weights.get(p) {
            // The GPU's own parameter, rounded.
            let turned = turned.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            let want = p.to_device(&Device::Cpu)?.permute((0, 2, 3, 1))?;
            let want = want.contiguous()?.to_dtype(dtype)?.to_dtype(DType::F32)?;
            worst = worse(worst, distance(&turned.reshape(want.dims())?, &want)?);
        }
    }
    Ok(worst)
}

/// 1 where a verdict is wrong.
fn verdicts(gpu: &Device) -> Result<f64> {
    let _on_gpu = OnGpu::new(gpu);
    let fine: Vec<Tensor> = (1..300)
        .map(|k| Ok(ramp(&[k * 17])?.to_device(gpu)?))
        .collect::<Result<_>>()?;
    for (value, expected) in [
        (0.5f32, 1.0f32),
        (f32::NAN, 0.0),
        (f32::NEG_INFINITY, 0.0),
        (3e38, 1.0),
    ] {
        for dtype in [DType::F32, DType::BF16] {
            let last = Tensor::new(&[1f32, value], gpu)?.to_dtype(dtype)?;
            let fine_too = Tensor::new(&[1f32, 2.0], gpu)?.to_dtype(DType::BF16)?;
            let all: Vec<&Tensor> = fine.iter().chain([&fine_too, &last]).collect();
            let broken = Tensor::zeros(1, DType::F32, gpu)?;
            let verdict = |tensors: &[&Tensor]| -> Result<f32> {
                let verdict = judge(tensors, Some(&broken))?.context("no kernel")?;
                Ok(verdict.to_vec1::<f32>()?[0])
            };
            // From a bad one on all are.
            if [verdict(&all)?, verdict(&all[..1])?] != [expected; 2] {
                return Ok(1.0);
            }
        }
    }
    Ok(0.0)
}

fn hits(gpu: &Device) -> Result<f64> {
    let logits = ramp(&[500, 100])?;
    let own = labels(500, 100, &logits)?;
    let expected = logits
        .argmax(1)?
        .eq(&own)?
        .to_dtype(DType::F32)?
        .sum_all()?
        .to_scalar::<f32>()?;
    let _on_gpu = OnGpu::new(gpu);
    let got = count_hits(&logits.to_device(gpu)?, &own.to_device(gpu)?)?.context("no kernel")?;
    Ok(f64::from((got.to_scalar::<f32>()? - expected).abs()))
}

/// 1 where a value comes otherwise than it was when it was asked for.
fn downloads(gpu: &Device) -> Result<f64> {
    let _on_gpu = OnGpu::new(gpu);
    let downloads = Downloads::new(gpu)?.context("no GPU")?;
    let large = ramp(&[4 << 20])?;
    let here = Var::from_tensor(&large.to_device(gpu)?)?;
    let small = ramp(&[7, 3])?.to_device(gpu)?;
    let mut worst = 0.0;
    // Into memory that is made, and into that which served before.
    for _ in 0..2 {
        here.set(&large.to_device(gpu)?)?;
        let coming = downloads.begin(&[&small, &here])?;
        here.set(&here.zeros_like()?)?;
        let zeros = downloads.begin(&[&here])?;
        let same = |got: &[f32], want: &Tensor| -> Result<bool> {
            Ok(got == want.flatten_all()?.to_vec1::<f32>()?.as_slice())
        };
        let (came, zeros) = (coming.values()?, zeros.values()?);
        let right = same(came[0], &ramp(&[7, 3])?)? && same(came[1], &large)?;
        if !right || zeros[0].iter().any(|&x| x != 0.0) {
            worst = 1.0;
        }
    }
    Ok(worst)
}

/// Windows on and beside images.
fn images(gpu: &Device) -> Result<f64> {
    let pixels: Vec<u8> = (0..50 * 32 * 32 * 3)
        .map(|i| (i * 31 % 256) as u8)
        .collect();
    let (mean, std) = ([0.5f32, 0.4, 0.3], [0.2f32, 0.3, 0.25]);
    let windows: Vec<_> = (0..64u32)
        .map(|k| ImageWindow {
            index: k * 7 % 50,
            top: (k % 9) as i32 - 4,
            left: (k % 7) as i32 - 3,
            flipped: k % 2 == 0,
        })
        .collect();
    let mut expected = Vec::new();
    for w in &windows {
        for y in 0..32 {
            for x in 0..32 {
                let x = if w.flipped { 31 - x } else { x };
                let (y, x) = (y + w.top, x + w.left);
                for c in 0..3 {
                    let inside = (0..32).contains(&y) && (0..32).contains(&x);
                    let at = |y: i32, x: i32| {
                        ((w.index as usize * 32 + y as usize) * 32 + x as usize) * 3 + c
                    };
                    let byte = if inside { pixels[at(y, x)] } else { 0 };
                    expected.push((f32::from(byte) / 255.0 - mean[c]) / std[c]);
                }
            }
        }
    }
    let expected = Tensor::from_vec(expected, (64, 32, 32, 3), &Device::Cpu)?;
    let _on_gpu = OnGpu::new(gpu);
    let set = DeviceImages::new(&pixels, (32, 32, 3), &mean, &std, gpu)?;
    let batch = set
        .batch(&windows, (32, 32), DType::F32)?
        .context("no kernel")?;
    distance(&batch.to_device(&Device::Cpu)?, &expected)
}
