//! Inference as `eval`, `predict` and `analyze` do it: prepared convolutions and whole networks, beside the CPU's.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use mixskd_kernels::{Activation, Conv2dConfig, PreparedConv2d};
use mixskd_models::graph::{Executor, Graph};
use mixskd_models::{ModelConfig, ParamStore};

use crate::parity::{distance, noise};
use crate::{OnGpu, worse};

/// Convolutions of maps of `dtype` with everything that can follow one, called with two batches each.
pub(crate) fn convolutions(gpu: &Device, dtype: DType) -> Result<f64> {
    let side = 9;
    let input = |batch: usize| -> Result<Tensor> {
        // Both sides begin with numbers that bfloat16 knows.
        Ok(noise(&[batch, side, side, 24], batch)?.to_dtype(DType::BF16)?)
    };
    let bias = noise(&[24], 7)?;
    let mut worst = 0f64;
    for (groups, kernel) in [(1, 3), (1, 1), (3, 3), (24, 3)] {
        let config = Conv2dConfig {
            padding: kernel / 2,
            groups,
            ..Conv2dConfig::default()
        };
        let weight = noise(&[24, 24 / groups, kernel, kernel], 11)?;
        let weight = weight.to_dtype(DType::BF16)?.to_dtype(DType::F32)?;
        for activation in [
            Activation::None,
            Activation::Relu,
            Activation::Relu6,
            Activation::Silu,
        ] {
            for (biased, added) in [(true, true), (true, false), (false, true), (false, false)] {
                let bias = biased.then_some(&bias);
                let host = PreparedConv2d::new(&weight, bias, config, activation)?;
                let own = |t: &Tensor| t.to_device(gpu);
                let own_bias = bias.map(own).transpose()?;
                let on_gpu =
                    PreparedConv2d::new(&own(&weight)?, own_bias.as_ref(), config, activation)?;
                for batch in [8, 3] {
                    let x = input(batch)?;
                    let residual = if added {
                        Some(input(batch + 1)?.narrow(0, 0, batch)?)
                    } else {
                        None
                    };
                    let as_float = |t: &Tensor| t.to_dtype(DType::F32);
                    let expected = host.forward(
                        &as_float(&x)?,
                        residual.as_ref().map(as_float).transpose()?.as_ref(),
                    )?;
                    let as_map = |t: &Tensor| t.to_dtype(dtype)?.to_device(gpu);
                    let (x, residual) = (as_map(&x)?, residual.as_ref().map(as_map).transpose()?);
                    let running = OnGpu::new(gpu);
                    let got = on_gpu.forward(&x, residual.as_ref())?;
                    drop(running);
                    let got = got.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                    worst = worse(worst, distance(&got, &expected)?);
                }
            }
        }
    }
    Ok(worst)
}

/// Logits of networks with batch norms folded into their convolutions, of two batches of another size each.
pub(crate) fn networks(gpu: &Device) -> Result<f64> {
    let mut worst = 0f64;
    for (name, width) in [
        ("cifar_resnet18", 0.25),
        ("cifar_mobilenetv2", 0.5),
        ("cifar_densenet40_12", 0.5),
        ("cifar_shufflenetv2", 0.5),
        ("cifar_hcgnet_a1", 0.5),
        ("efficientnet_b0", 0.25),
    ] {
        let config = ModelConfig {
            width,
            input: 32,
            ..ModelConfig::new(name, 10)?
        };
        let network = |device: &Device| -> Result<Executor> {
            let store = ParamStore::new(3, DType::F32, device);
            let backbone = config.build(store.builder())?;
            let graph = Graph::of(backbone.as_ref(), config.channels)?;
            Ok(Executor::new(&graph.fold_batch_norm()?.fuse())?)
        };
        let (host, own) = (network(&Device::Cpu)?, network(gpu)?);
        for batch in [6, 2] {
            let images = noise(&[batch, config.input, config.input, config.channels], 5)?;
            let expected = host.run(&images)?;
            let images = images.to_device(gpu)?;
            let running = OnGpu::new(gpu);
            let got = own.run(&images)?;
            drop(running);
            worst = worse(worst, distance(&got.to_device(&Device::Cpu)?, &expected)?);
        }
    }
    Ok(worst)
}
