//! Kernels that are no function of maps and their gradients: the update, the verdict, hits, batches of images, what is brought to the host.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use mixskd_benches::ramp;
use mixskd_kernels::{
    ConvWeights, DeviceImages, Downloads, ImageWindow, ParameterUpdate, SgdConfig, count_hits,
    judge, sgd_step, sgd_steps,
};

use crate::parity::{distance, labels, noise};
use crate::{OnGpu, worse};

/// Three updates of parameters of all lengths.
pub(crate) fn updates(gpu: &Device) -> Result<f64> {
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
pub(crate) fn updates_as_made(gpu: &Device, dtype: DType) -> Result<f64> {
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
pub(crate) fn verdicts(gpu: &Device) -> Result<f64> {
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

pub(crate) fn hits(gpu: &Device) -> Result<f64> {
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
pub(crate) fn downloads(gpu: &Device) -> Result<f64> {
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
pub(crate) fn images(gpu: &Device) -> Result<f64> {
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
