//! What networks beyond ResNets need, against candle's ops in double precision.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{random, relative, values};
use mixskd_kernels::{
    add_bias, attention_pool2d, compose, concat_channels, relu6, scale_channels, shift_channels,
    shuffle_channels, silu, slice_channels,
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
    let loss = (&y * direction).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
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
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn activations(b in 1usize..4, h in 1usize..40, c in 1usize..60, scale in 0.1..30.0) {
        let x = [random(&[b, h, 3, c], 1).affine(scale, 0.0).unwrap()];
        check(&x, |v| silu(&v[0]).unwrap(), |v| compose::silu(&v[0]).unwrap());
        check(&x, |v| relu6(&v[0]).unwrap(), |v| compose::relu6(&v[0]).unwrap());
    }

    #[test]
    fn joined_and_taken(b in 1usize..3, h in 1usize..30, left in 1usize..40, right in 1usize..40) {
        let maps = [random(&[b, h, 20, left], 1), random(&[b, h, 20, right], 2)];
        check(
            &maps,
            |v| concat_channels(&v[0], &v[1]).unwrap(),
            |v| compose::concat_channels(&v[0], &v[1]).unwrap(),
        );
        let count = left.div_ceil(2);
        let start = left - count;
        check(
            &maps[..1],
            |v| slice_channels(&v[0], start, count).unwrap(),
            |v| compose::slice_channels(&v[0], start, count).unwrap(),
        );
    }

    #[test]
    fn shuffled(b in 1usize..3, h in 1usize..30, groups in 1usize..5, each in 1usize..20) {
        let x = [random(&[b, h, 20, groups * each], 1)];
        check(
            &x,
            |v| shuffle_channels(&v[0], groups).unwrap(),
            |v| compose::shuffle_channels(&v[0], groups).unwrap(),
        );
    }

    #[test]
    fn per_channel(b in 1usize..5, h in 1usize..9, w in 1usize..9, c in 1usize..50) {
        let scale = [random(&[b, h, w, c], 1), random(&[b, c], 2)];
        check(
            &scale,
            |v| scale_channels(&v[0], &v[1]).unwrap(),
            |v| compose::scale_channels(&v[0], &v[1]).unwrap(),
        );
        check(
            &scale,
            |v| shift_channels(&v[0], &v[1]).unwrap(),
            |v| compose::shift_channels(&v[0], &v[1]).unwrap(),
        );
        let bias = [random(&[b, h, w, c], 1), random(&[c], 2)];
        check(
            &bias,
            |v| add_bias(&v[0], &v[1]).unwrap(),
            |v| compose::add_bias(&v[0], &v[1]).unwrap(),
        );
    }

    #[test]
    fn attention(b in 1usize..5, h in 1usize..9, w in 1usize..9, c in 1usize..50) {
        let inputs = [random(&[b, h, w, c], 1), random(&[b, h, w, 1], 2).affine(4.0, 0.0).unwrap()];
        check(
            &inputs,
            |v| attention_pool2d(&v[0], &v[1]).unwrap(),
            |v| compose::attention_pool2d(&v[0], &v[1]).unwrap(),
        );
    }
}

/// Finite differences in double precision.
#[test]
fn slopes_are_those_of_the_functions() {
    let x: Vec<f64> = (-40..=40).map(|i| f64::from(i) * 0.37 + 0.011).collect();
    let at = |x: &[f64], f: fn(&Tensor) -> mixskd_kernels::Result<Tensor>| {
        values(&f(&Tensor::new(x, &Device::Cpu).unwrap()).unwrap())
    };
    for f in [silu, relu6] {
        let var = Var::new(x.as_slice(), &Device::Cpu).unwrap();
        let loss = f(&var).unwrap().sum_all().unwrap();
        let slopes = values(loss.backward().unwrap().get(&var).unwrap());
        let h = 1e-6;
        let up = at(&x.iter().map(|x| x + h).collect::<Vec<_>>(), f);
        let down = at(&x.iter().map(|x| x - h).collect::<Vec<_>>(), f);
        for (i, slope) in slopes.iter().enumerate() {
            let difference = (up[i] - down[i]) / (2.0 * h);
            assert!(
                (slope - difference).abs() < 1e-8,
                "at {}: {slope} {difference}",
                x[i]
            );
        }
    }
}

/// Far out the exponential must neither overflow nor hide a NaN.
#[test]
fn silu_at_the_ends() {
    let x = Tensor::new(&[-1e30f32, -100.0, 100.0, 1e30, f32::NAN], &Device::Cpu).unwrap();
    let y: Vec<f32> = silu(&x).unwrap().to_vec1().unwrap();
    assert!(y[1].abs() < 1e-30 && y[2] == 100.0 && y[3] == 1e30, "{y:?}");
    assert!(y[0].is_finite() && y[4].is_nan(), "{y:?}");
    let x = Tensor::new(&[f32::NAN, -1.0, 7.0], &Device::Cpu).unwrap();
    let y: Vec<f32> = relu6(&x).unwrap().to_vec1().unwrap();
    assert!(y[0].is_nan() && y[1] == 0.0 && y[2] == 6.0);
}

#[test]
fn what_does_not_fit_is_named() {
    let x = random(&[2, 3, 3, 6], 1);
    let refused = [
        concat_channels(&x, &random(&[2, 3, 2, 6], 2)),
        slice_channels(&x, 4, 3),
        shuffle_channels(&x, 4),
        scale_channels(&x, &random(&[6], 2)),
        shift_channels(&x, &random(&[2, 5], 2)),
        add_bias(&x, &random(&[5], 2)),
        attention_pool2d(&x, &random(&[2, 3, 3], 2)),
    ];
    let names = [
        "concat_channels: right map",
        "3 channels from channel 4 are not in 6",
        "4 groups do not divide 6 channels",
        "scale_channels: factors",
        "shift_channels: shift",
        "add_bias: bias",
        "attention_pool2d: scores",
    ];
    for (result, name) in refused.into_iter().zip(names) {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
