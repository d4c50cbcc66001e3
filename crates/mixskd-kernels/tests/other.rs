//! Pools, linear, interpolation and the SGD step against candle's ops in double precision.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{random, relative};
use mixskd_kernels::{
    Conv2dConfig, Pool2dConfig, SgdConfig, avg_pool2d, compose, conv2d, global_avg_pool2d,
    interpolate, linear, max_pool2d, sgd_step,
};
use proptest::prelude::*;

/// Output and gradients of `f` at `inputs`, for a random functional of the output.
fn outcome(inputs: &[Tensor], dtype: DType, f: impl Fn(&[Var]) -> Tensor) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap())
        .collect();
    let y = f(&vars);
    let direction = random(y.dims(), 9).to_dtype(dtype).unwrap();
    let grads = (&y * direction)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let mut out = vec![y];
    out.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
    out
}

fn check(
    inputs: &[Tensor],
    kernel: impl Fn(&[Var]) -> Tensor,
    composed: impl Fn(&[Var]) -> Tensor,
) {
    let want = outcome(inputs, DType::F64, composed);
    for (dtype, bound) in [(DType::F32, 2e-5), (DType::F64, 1e-12)] {
        let got = outcome(inputs, dtype, &kernel);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let e = relative(g, w);
            assert!(e < bound, "{dtype:?}: tensor {i} off by {e}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pools(b in 1usize..4, h in 1usize..9, w in 1usize..9, c in 1usize..40,
             kernel in 1usize..4, stride in 1usize..4, padding in 0usize..2) {
        let config = Pool2dConfig { kernel, stride, padding: padding.min(kernel / 2) };
        prop_assume!(config.out_size(h).is_ok() && config.out_size(w).is_ok());
        let x = [random(&[b, h, w, c], 1)];
        check(&x, |v| max_pool2d(&v[0], config).unwrap(), |v| compose::max_pool2d(&v[0], config).unwrap());
        check(&x, |v| avg_pool2d(&v[0], config).unwrap(), |v| compose::avg_pool2d(&v[0], config).unwrap());
        check(&x, |v| global_avg_pool2d(&v[0]).unwrap(), |v| compose::global_avg_pool2d(&v[0]).unwrap());
    }

    #[test]
    fn linears(b in 1usize..130, input in 1usize..70, out in 1usize..140) {
        let inputs = [random(&[b, input], 1), random(&[out, input], 2), random(&[out], 3)];
        check(
            &inputs,
            |v| linear(&v[0], &v[1], Some(&v[2])).unwrap(),
            |v| compose::linear(&v[0], &v[1], Some(&v[2])).unwrap(),
        );
        check(&inputs[..2], |v| linear(&v[0], &v[1], None).unwrap(), |v| compose::linear(&v[0], &v[1], None).unwrap());
    }

    #[test]
    fn interpolations(partner in prop::collection::vec(0u32..5, 5), inner in 1usize..50) {
        let x = [random(&[5, inner, 2], 1)];
        let partner = Tensor::new(partner, &Device::Cpu).unwrap();
        let lambda = random(&[5], 2);
        let mix = |f: fn(&Tensor, &Tensor, &Tensor) -> mixskd_kernels::Result<Tensor>| {
            let (partner, lambda) = (partner.clone(), lambda.clone());
            move |v: &[Var]| f(&v[0], &partner, &lambda.to_dtype(v[0].dtype()).unwrap()).unwrap()
        };
        check(&x, mix(interpolate), mix(compose::interpolate));
    }

    #[test]
    fn sgd(len in 1usize..100, nesterov: bool, momentum in 0.0..0.99, weight_decay in 0.0..0.1) {
        let config = SgdConfig { lr: 0.1, momentum, nesterov, weight_decay };
        let run = |dtype: DType, f: fn(&Var, &Tensor, &Var, SgdConfig) -> mixskd_kernels::Result<()>| {
            let p = Var::from_tensor(&random(&[len], 1).to_dtype(dtype).unwrap()).unwrap();
            let v = Var::from_tensor(&p.zeros_like().unwrap()).unwrap();
            for step in 0..3 {
                f(&p, &random(&[len], 2 + step).to_dtype(dtype).unwrap(), &v, config).unwrap();
            }
            [p.as_detached_tensor(), v.as_detached_tensor()]
        };
        let want = run(DType::F64, compose::sgd_step);
        for (got, want) in run(DType::F32, sgd_step).iter().zip(&want) {
            prop_assert!(relative(got, want) < 1e-5);
        }
        for (got, want) in run(DType::F64, sgd_step).iter().zip(&want) {
            prop_assert!(relative(got, want) < 1e-13);
        }
    }
}

/// A parameter given as its own gradient shares memory with it; the step must neither hang nor go wrong.
#[test]
fn sgd_with_shared_memory() {
    let config = SgdConfig {
        lr: 0.5,
        momentum: 0.0,
        nesterov: false,
        weight_decay: 0.0,
    };
    let p = Var::new(&[2.0f32, 4.0], &Device::Cpu).unwrap();
    let v = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
    sgd_step(&p, &p.as_detached_tensor(), &v, config).unwrap();
    assert_eq!(p.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
}

#[test]
fn interpolate_refuses_a_partner_outside() {
    let x = random(&[2, 3], 1);
    let partner = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
    let error = interpolate(&x, &partner, &random(&[2], 2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "interpolate: partner 2 is not in a batch of 2"
    );
    // A weight of 0.7 is none among bytes.
    let bytes = Tensor::new(&[[100u8, 100], [200, 200]], &Device::Cpu).unwrap();
    let partner = Tensor::new(&[1u32, 0], &Device::Cpu).unwrap();
    let error = interpolate(&bytes, &partner, &random(&[2], 2)).unwrap_err();
    assert!(error.to_string().contains("must be floats, got U8"));
}

#[test]
fn windows_that_see_padding_alone_and_sizes_beyond_counting_are_refused() {
    let x = random(&[1, 4, 4, 2], 1);
    let pool = |kernel, padding| {
        let config = Pool2dConfig {
            kernel,
            stride: 1,
            padding,
        };
        max_pool2d(&x, config)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    pool(3, 1).unwrap();
    assert!(
        pool(2, 2)
            .unwrap_err()
            .contains("more than half of the window")
    );
    let config = Conv2dConfig {
        padding: usize::MAX / 2,
        ..Conv2dConfig::default()
    };
    let error = conv2d(&x, &random(&[2, 2, 3, 3], 2), config).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
}
