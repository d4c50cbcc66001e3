//! Batch norm against candle's ops in double precision, and against finite differences.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Tensor, Var};
use common::{random, relative, values};
use mixskd_kernels::{BatchStats, batch_norm_eval, batch_norm_train, compose, move_running};
use proptest::prelude::*;

struct Inputs {
    x: Var,
    weight: Var,
    bias: Var,
    residual: Option<Var>,
}

fn inputs(shape: [usize; 4], residual: bool, dtype: DType) -> Inputs {
    let var = |t: Tensor| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap();
    Inputs {
        // Far from zero, so that a naive sum of squares would lose digits.
        x: var((random(&shape, 1) + 3.0).unwrap()),
        weight: var((random(&shape[3..], 2) + 1.5).unwrap()),
        bias: var(random(&shape[3..], 3)),
        residual: residual.then(|| var(random(&shape, 4))),
    }
}

/// Output, then the gradients of a random functional of it.
fn outcome(inputs: &Inputs, relu: bool, eval: bool, composed: bool) -> Vec<Tensor> {
    let Inputs {
        x,
        weight,
        bias,
        residual,
    } = inputs;
    let residual = residual.as_ref().map(candle_core::Var::as_tensor);
    let mut out = vec![];
    let y = if eval {
        let c = weight.dims().to_vec();
        let mean = (random(&c, 5) + 3.0).unwrap().to_dtype(x.dtype()).unwrap();
        let var = (random(&c, 6) + 1.5).unwrap().to_dtype(x.dtype()).unwrap();
        let f = if composed {
            compose::batch_norm_eval
        } else {
            batch_norm_eval
        };
        f(x, weight, bias, &mean, &var, 1e-5, residual, relu).unwrap()
    } else {
        let f = if composed {
            compose::batch_norm_train
        } else {
            batch_norm_train
        };
        let (y, stats) = f(x, weight, bias, 1e-5, residual, relu).unwrap();
        assert_eq!(stats.count, x.elem_count() / weight.elem_count());
        out.extend([stats.mean, stats.var]);
        y
    };
    let direction = random(x.dims(), 7).to_dtype(x.dtype()).unwrap();
    let grads = (&y * direction)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    out.push(y);
    for v in [Some(x), Some(weight), Some(bias), inputs.residual.as_ref()]
        .into_iter()
        .flatten()
    {
        out.push(grads.get(v).unwrap().clone());
    }
    out
}

fn check(shape: [usize; 4], residual: bool, relu: bool, eval: bool) {
    let want = outcome(&inputs(shape, residual, DType::F64), relu, eval, true);
    for (dtype, bound) in [(DType::F32, 2e-4), (DType::F64, 1e-10)] {
        let got = outcome(&inputs(shape, residual, dtype), relu, eval, false);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let e = relative(g, w);
            assert!(
                e < bound,
                "{shape:?} {residual} {relu} {eval} {dtype:?}: tensor {i} off by {e}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn like_candle(
        b in 2usize..4, h in 2usize..8, w in 2usize..8, c in 1usize..70,
        residual: bool, relu: bool, eval: bool,
    ) {
        check([b, h, w, c], residual, relu, eval);
    }
}

#[test]
fn many_blocks() {
    check([8, 32, 32, 24], true, true, false);
    check([8, 8, 8, 256], false, true, false);
}

/// One value per channel: the variance is zero and the output is the bias.
#[test]
fn single_value() {
    let inputs = inputs([1, 1, 1, 19], false, DType::F32);
    let (y, _) =
        batch_norm_train(&inputs.x, &inputs.weight, &inputs.bias, 1e-5, None, false).unwrap();
    assert!(
        relative(
            &y.flatten_all().unwrap(),
            &inputs.bias.to_dtype(DType::F64).unwrap()
        ) < 1e-4
    );
}

#[test]
fn finite_differences() {
    let inputs = inputs([2, 3, 2, 5], true, DType::F64);
    let direction = random(inputs.x.dims(), 7);
    let value = || {
        let residual = inputs.residual.as_ref().map(candle_core::Var::as_tensor);
        let (y, _) = batch_norm_train(
            &inputs.x,
            &inputs.weight,
            &inputs.bias,
            1e-5,
            residual,
            true,
        )
        .unwrap();
        (y * &direction).unwrap().sum_all().unwrap()
    };
    let grads = value().backward().unwrap();
    for var in [
        &inputs.x,
        &inputs.weight,
        &inputs.bias,
        inputs.residual.as_ref().unwrap(),
    ] {
        let grad = values(grads.get(var).unwrap());
        let start = var.copy().unwrap();
        for (i, g) in grad.iter().enumerate() {
            let at = |step: f64| {
                let mut v = values(&start);
                v[i] += step;
                var.set(&Tensor::from_vec(v, start.dims(), start.device()).unwrap())
                    .unwrap();
                value().to_scalar::<f64>().unwrap()
            };
            let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((numeric - g).abs() < 1e-6, "{numeric} {g}");
        }
        var.set(&start).unwrap();
    }
}

/// A NaN must come out as NaN, ReLU or not: training has to notice it.
#[test]
fn nan_survives() {
    let inputs = inputs([1, 2, 2, 16], false, DType::F32);
    let nan = (inputs.x.as_tensor() * f64::NAN).unwrap();
    let (y, _) = batch_norm_train(&nan, &inputs.weight, &inputs.bias, 1e-5, None, true).unwrap();
    assert!(values(&y).iter().all(|v| v.is_nan()));
}

#[test]
fn statistics_of_one_value_move_nothing() {
    let var = |value: f64| Var::from_tensor(&(random(&[3], 5) + value).unwrap()).unwrap();
    for count in [0, 1] {
        let (mean, variance) = (var(0.0), var(2.0));
        let before = values(mean.as_tensor());
        let stats = BatchStats {
            mean: random(&[3], 6),
            var: random(&[3], 7),
            count,
        };
        let error = move_running(&mean, &variance, &stats, 0.1).unwrap_err();
        assert!(error.to_string().contains("no variance"), "{error}");
        assert_eq!(values(mean.as_tensor()), before);
    }
}
