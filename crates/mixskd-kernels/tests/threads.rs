//! The same bits from one, two and three threads, for every kernel, forward and backward.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::random;
use mixskd_kernels::{
    Conv2dConfig, Pool2dConfig, SgdConfig, avg_pool2d, batch_norm_eval, batch_norm_train, conv2d,
    cross_entropy, global_avg_pool2d, interpolate, interpolated_mse, kl_divergence, linear,
    max_pool2d, mix_cross_entropy, mse, sgd_step, soft_cross_entropy,
};

fn bits(t: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Output and gradients of `f`, and what it left in its inputs, in a pool of `threads`.
fn outcome(
    inputs: &[Tensor],
    f: &(dyn Fn(&[Var]) -> Tensor + Sync),
    threads: usize,
) -> Vec<Vec<u32>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        let vars = inputs
            .iter()
            .map(|t| Var::from_tensor(&t.to_dtype(DType::F32).unwrap()).unwrap())
            .collect::<Vec<_>>();
        let y = f(&vars);
        let direction = random(y.dims(), 9).to_dtype(DType::F32).unwrap();
        let grads = (&y * direction).unwrap().sum_all().unwrap();
        let grads = grads.backward().unwrap();
        let mut out = vec![bits(&y)];
        for var in &vars {
            out.extend(grads.get(var).map(bits));
            out.push(bits(var));
        }
        out
    })
}

fn check(name: &str, inputs: &[Tensor], f: impl Fn(&[Var]) -> Tensor + Sync) {
    let one = outcome(inputs, &f, 1);
    for threads in [2, 3] {
        assert!(
            one == outcome(inputs, &f, threads),
            "{name}: {threads} threads"
        );
    }
}

#[test]
fn convolutions() {
    let plain = Conv2dConfig::default();
    let same = Conv2dConfig {
        padding: 1,
        ..plain
    };
    for (name, x, w, config) in [
        ("3×3", [5, 16, 16, 24], [40, 24, 3, 3], same),
        ("4 px", [7, 4, 4, 64], [96, 64, 3, 3], same),
        (
            "stride 2",
            [3, 15, 15, 32],
            [48, 32, 3, 3],
            Conv2dConfig { stride: 2, ..same },
        ),
        ("1×1", [3, 9, 9, 40], [70, 40, 1, 1], plain),
        (
            "depthwise",
            [3, 14, 14, 50],
            [50, 1, 3, 3],
            Conv2dConfig { groups: 50, ..same },
        ),
        (
            "groups",
            [3, 9, 9, 32],
            [32, 8, 3, 3],
            Conv2dConfig { groups: 4, ..same },
        ),
        (
            "groups of several images",
            [3, 32, 32, 96],
            [96, 16, 3, 3],
            Conv2dConfig { groups: 6, ..same },
        ),
        (
            "7×7",
            [2, 33, 33, 3],
            [24, 3, 7, 7],
            Conv2dConfig {
                stride: 2,
                padding: 3,
                ..plain
            },
        ),
    ] {
        check(name, &[random(&x, 1), random(&w, 2)], |v| {
            conv2d(&v[0], &v[1], config).unwrap()
        });
    }
}

#[test]
fn norms() {
    let x = [4, 13, 13, 70];
    let inputs = [
        random(&x, 1),
        random(&[70], 2),
        random(&[70], 3),
        random(&x, 4),
    ];
    check("batch_norm_train", &inputs, |v| {
        batch_norm_train(&v[0], &v[1], &v[2], 1e-5, Some(&v[3]), true)
            .unwrap()
            .0
    });
    let cast = |t: Tensor| t.to_dtype(DType::F32).unwrap();
    let (mean, var) = (
        cast(random(&[70], 5)),
        cast((random(&[70], 6) + 2.0).unwrap()),
    );
    check("batch_norm_eval", &inputs, |v| {
        batch_norm_eval(&v[0], &v[1], &v[2], &mean, &var, 1e-5, Some(&v[3]), true).unwrap()
    });
}

#[test]
fn pools_and_linear() {
    let config = Pool2dConfig {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let x = [random(&[5, 17, 17, 40], 1)];
    check("max_pool2d", &x, |v| max_pool2d(&v[0], config).unwrap());
    check("avg_pool2d", &x, |v| avg_pool2d(&v[0], config).unwrap());
    check("global_avg_pool2d", &x, |v| {
        global_avg_pool2d(&v[0]).unwrap()
    });
    let inputs = [
        random(&[33, 300], 1),
        random(&[130, 300], 2),
        random(&[130], 3),
    ];
    check("linear", &inputs, |v| {
        linear(&v[0], &v[1], Some(&v[2])).unwrap()
    });
}

#[test]
fn losses() {
    let count = 300;
    let index = |f: fn(u32) -> u32| {
        Tensor::new((0..count).map(f).collect::<Vec<_>>(), &Device::Cpu).unwrap()
    };
    let (y, y2, partner) = (
        index(|i| i % 100),
        index(|i| i * 7 % 100),
        index(|i| (i + 1) % 300),
    );
    let lambda = random(&[count as usize], 3)
        .abs()
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let z = [random(&[300, 100], 1), random(&[300, 100], 2)];
    check("cross_entropy", &z[..1], |v| {
        cross_entropy(&v[0], &y).unwrap()
    });
    check("mix_cross_entropy", &z[..1], |v| {
        mix_cross_entropy(&v[0], &y, &y2, &lambda).unwrap()
    });
    check("soft_cross_entropy", &z, |v| {
        soft_cross_entropy(&v[0], &v[1]).unwrap()
    });
    check("kl_divergence", &z, |v| {
        kl_divergence(&v[0], &v[1], 3.0).unwrap()
    });
    let maps = [random(&[300, 3, 5, 40], 4), random(&[300, 3, 5, 40], 5)];
    check("mse", &maps, |v| mse(&v[0], &v[1]).unwrap());
    check("interpolated_mse", &maps, |v| {
        interpolated_mse(&v[0], &partner, &lambda, &v[1]).unwrap()
    });
    check("interpolate", &maps[..1], |v| {
        interpolate(&v[0], &partner, &lambda).unwrap()
    });
}

#[test]
fn updates() {
    let config = SgdConfig {
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 1e-3,
    };
    let inputs = [random(&[300, 333], 1), random(&[300, 333], 2)];
    let gradient = random(&[300, 333], 3).to_dtype(DType::F32).unwrap();
    check("sgd_step", &inputs, |v| {
        sgd_step(&v[0], &gradient, &v[1], config).unwrap();
        v[0].as_detached_tensor()
    });
}
