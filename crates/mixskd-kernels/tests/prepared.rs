//! The inference convolution against the training one and the activations' definitions.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Tensor};
use common::{Naive, random, relative, values};
use mixskd_kernels::{Activation, Conv2dConfig, PreparedConv2d};

const ACTIVATIONS: [Activation; 4] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
];

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// Shape of the input, output channels, kernel, and geometry.
fn check(shape: [usize; 4], out: usize, kernel: usize, config: Conv2dConfig) {
    let x = random(&shape, 1);
    // Large enough for sums on both sides of every activation's bends.
    let w = (random(&[out, shape[3] / config.groups, kernel, kernel], 2) * 2.0).unwrap();
    let bias = (random(&[out], 3) * 4.0).unwrap();
    let size = |s| config.out_size(s, kernel).unwrap();
    let residual = random(&[shape[0], size(shape[1]), size(shape[2]), out], 4);
    let y = Naive::conv2d(&x, &w, &residual, config).y;
    for activation in ACTIVATIONS {
        for with in [false, true] {
            let (b, r) = (values(&bias), values(&residual));
            let want: Vec<f64> = values(&y)
                .into_iter()
                .enumerate()
                .map(|(i, y)| {
                    let sum = if with { y + b[i % out] + r[i] } else { y };
                    activate(activation, sum)
                })
                .collect();
            let want = Tensor::from_vec(want, y.dims(), x.device()).unwrap();
            for (dtype, bound) in [(DType::F32, 1e-4), (DType::F64, 1e-12)] {
                let to = |t: &Tensor| t.to_dtype(dtype).unwrap();
                let (b, r) = (to(&bias), to(&residual));
                let conv =
                    PreparedConv2d::new(&to(&w), with.then_some(&b), config, activation).unwrap();
                // Twice: the second call finds the weights prepared.
                for _ in 0..2 {
                    let got = conv.forward(&to(&x), with.then_some(&r)).unwrap();
                    let error = relative(&got, &want);
                    assert!(
                        error < bound,
                        "{shape:?} {config:?} {activation:?} {dtype:?}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_way_of_convolving() {
    let plain = Conv2dConfig::default();
    let same = Conv2dConfig {
        padding: 1,
        ..plain
    };
    let down = Conv2dConfig { stride: 2, ..same };
    check([2, 5, 7, 3], 20, 3, same);
    check([1, 13, 12, 16], 24, 3, same);
    check([2, 9, 8, 24], 70, 3, down);
    check([1, 7, 7, 40], 33, 1, plain);
    check([2, 9, 9, 24], 24, 3, Conv2dConfig { groups: 24, ..same });
    check([2, 9, 9, 24], 24, 3, Conv2dConfig { groups: 6, ..down });
    check([1, 1, 1, 8], 8, 3, same);
}

#[test]
fn shapes_are_checked() {
    let weight = random(&[4, 3, 3, 3], 1);
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    assert!(
        PreparedConv2d::new(&weight, Some(&random(&[5], 2)), config, Activation::None).is_err()
    );
    let conv = PreparedConv2d::new(&weight, None, config, Activation::None).unwrap();
    let x = random(&[1, 6, 6, 3], 3);
    assert!(conv.forward(&x, Some(&random(&[1, 6, 6, 5], 4))).is_err());
    assert!(conv.forward(&random(&[1, 6, 6, 4], 5), None).is_err());
}
