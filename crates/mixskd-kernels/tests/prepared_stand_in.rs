//! Convolutions for inference with the processor in the GPU's place, beside the CPU's.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Tensor};
use common::random;
use mixskd_kernels::{Activation, Conv2dConfig, PreparedConv2d, emulate_gpu};

fn floats(shape: &[usize], seed: u64) -> Tensor {
    random(shape, seed).to_dtype(DType::F32).unwrap()
}

fn largest(t: &Tensor) -> f32 {
    let largest = t.abs().unwrap().max_all().unwrap();
    largest.to_scalar().unwrap()
}

#[test]
fn prepared_convolutions_are_the_processors() {
    let x = floats(&[2, 6, 6, 8], 60);
    let residual = floats(&[2, 6, 6, 8], 61);
    let bias = floats(&[8], 62);
    let activations = [
        Activation::None,
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
    ];
    for groups in [1, 2, 8] {
        let config = Conv2dConfig {
            padding: 1,
            groups,
            ..Conv2dConfig::default()
        };
        let weight = floats(&[8, 8 / groups, 3, 3], 63);
        for activation in activations {
            for bias in [None, Some(&bias)] {
                for residual in [None, Some(&residual)] {
                    let conv = PreparedConv2d::new(&weight, bias, config, activation).unwrap();
                    let host = conv.forward(&x, residual).unwrap();
                    emulate_gpu(true);
                    let stand_in = conv.forward(&x, residual).unwrap();
                    emulate_gpu(false);
                    let apart = largest(&(&host - stand_in).unwrap()) / largest(&host);
                    assert!(apart < 1e-5, "{groups} groups, {activation:?}: {apart}");
                    // Once more, with what was kept, and with another batch.
                    let less = |t: &Tensor| t.narrow(0, 0, 1).unwrap();
                    emulate_gpu(true);
                    let again = conv
                        .forward(&less(&x), residual.map(less).as_ref())
                        .unwrap();
                    emulate_gpu(false);
                    let apart = largest(&(less(&host) - again).unwrap()) / largest(&host);
                    assert!(apart < 1e-5, "{groups} groups, {activation:?}: {apart}");
                    // Maps of bfloat16 beside parameters of float.
                    let short = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
                    emulate_gpu(true);
                    let rough = conv
                        .forward(&short(&x), residual.map(short).as_ref())
                        .unwrap();
                    emulate_gpu(false);
                    let rough = rough.to_dtype(DType::F32).unwrap();
                    let apart = largest(&(&host - rough).unwrap()) / largest(&host);
                    assert!(apart < 2e-2, "{groups} groups, {activation:?}: {apart}");
                }
            }
        }
    }
}
