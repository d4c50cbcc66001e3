//! Gradients of every kernel against central differences, in double precision.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{Device, Tensor, Var};
use common::{random, values};
use mixskd_kernels::{
    Conv2dConfig, Pool2dConfig, avg_pool2d, batch_norm_eval, conv2d, cross_entropy,
    global_avg_pool2d, interpolate, interpolated_mse, kl_divergence, linear, max_pool2d,
    mix_cross_entropy, mse, soft_cross_entropy,
};

const STEP: f64 = 1e-6;

/// Compares the gradients of a random functional of `f` with difference quotients, for every entry of every input.
fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let value = |inputs: &[Tensor]| {
        let y = f(inputs);
        let direction = random(y.dims(), 99);
        (y * direction).unwrap().sum_all().unwrap()
    };
    let vars = inputs
        .iter()
        .map(|x| Var::from_tensor(x).unwrap())
        .collect::<Vec<_>>();
    let leaves = vars
        .iter()
        .map(|v| v.as_tensor().clone())
        .collect::<Vec<_>>();
    let grads = value(&leaves).backward().unwrap();
    for (k, x) in inputs.iter().enumerate() {
        let gradient = values(grads.get(&vars[k]).unwrap());
        for (i, g) in gradient.iter().enumerate() {
            let at = |step: f64| {
                let mut moved = values(x);
                moved[i] += step;
                let mut all = inputs.to_vec();
                all[k] = Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap();
                value(&all).to_scalar::<f64>().unwrap()
            };
            let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!(
                (numeric - g).abs() < 1e-7 * (1.0 + numeric.abs()),
                "input {k}, entry {i}: difference quotient {numeric}, gradient {g}"
            );
        }
    }
}

#[test]
fn convolutions() {
    let plain = Conv2dConfig::default();
    let same = Conv2dConfig {
        padding: 1,
        ..plain
    };
    for (x, w, config) in [
        // Winograd, implicit matrix product, plain matrix product, groups, depthwise, dilation.
        ([1, 5, 4, 3], [4, 3, 3, 3], same),
        (
            [2, 5, 5, 2],
            [3, 2, 3, 3],
            Conv2dConfig { stride: 2, ..same },
        ),
        ([2, 3, 2, 3], [5, 3, 1, 1], plain),
        (
            [1, 4, 4, 4],
            [6, 2, 3, 3],
            Conv2dConfig { groups: 2, ..same },
        ),
        (
            [1, 4, 5, 3],
            [3, 1, 3, 3],
            Conv2dConfig { groups: 3, ..same },
        ),
        (
            [1, 6, 5, 2],
            [2, 2, 2, 3],
            Conv2dConfig {
                dilation: 2,
                ..same
            },
        ),
    ] {
        check(&[random(&x, 1), random(&w, 2)], |v| {
            conv2d(&v[0], &v[1], config).unwrap()
        });
    }
}

#[test]
fn pools() {
    let config = Pool2dConfig {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let x = [random(&[2, 5, 4, 3], 1)];
    check(&x, |v| max_pool2d(&v[0], config).unwrap());
    check(&x, |v| avg_pool2d(&v[0], config).unwrap());
    check(&x, |v| global_avg_pool2d(&v[0]).unwrap());
}

#[test]
fn linear_layers() {
    let inputs = [random(&[3, 4], 1), random(&[5, 4], 2), random(&[5], 3)];
    check(&inputs, |v| linear(&v[0], &v[1], Some(&v[2])).unwrap());
}

#[test]
fn batch_norm_by_running_statistics() {
    let inputs = [
        random(&[2, 2, 3, 4], 1),
        random(&[4], 2),
        random(&[4], 3),
        random(&[2, 2, 3, 4], 4),
    ];
    let (mean, var) = (random(&[4], 5), (random(&[4], 6) + 1.5).unwrap());
    check(&inputs, |v| {
        batch_norm_eval(&v[0], &v[1], &v[2], &mean, &var, 1e-5, Some(&v[3]), true).unwrap()
    });
}

#[test]
fn losses() {
    let (z, t) = (random(&[3, 5], 1), random(&[3, 5], 2));
    let y = Tensor::new(&[4u32, 0, 2], &Device::Cpu).unwrap();
    let y2 = Tensor::new(&[4u32, 1, 0], &Device::Cpu).unwrap();
    let lambda = Tensor::new(&[0.3f64, 1.0, 0.6], &Device::Cpu).unwrap();
    let logits = [z];
    check(&logits, |v| cross_entropy(&v[0], &y).unwrap());
    check(&logits, |v| {
        mix_cross_entropy(&v[0], &y, &y2, &lambda).unwrap()
    });
    check(&logits, |v| soft_cross_entropy(&v[0], &t).unwrap());
    check(&logits, |v| kl_divergence(&v[0], &t, 3.0).unwrap());
    let partner = Tensor::new(&[1u32, 1, 0], &Device::Cpu).unwrap();
    let maps = [random(&[3, 2, 3, 2], 3), random(&[3, 2, 3, 2], 4)];
    check(&maps, |v| mse(&v[0], &v[1]).unwrap());
    check(&maps, |v| {
        interpolated_mse(&v[0], &partner, &lambda, &v[1]).unwrap()
    });
    check(&maps[..1], |v| {
        interpolate(&v[0], &partner, &lambda).unwrap()
    });
}
