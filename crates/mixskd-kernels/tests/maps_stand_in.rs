//! With the processor in the GPU's place: what mobile and gated networks are made of. In a process of its own, as it changes places.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Tensor, Var};
use common::random;
use mixskd_kernels::{
    Tape, add_bias, attention_pool2d, backward, concat_channels, emulate_gpu, mse, relu, relu6,
    scale_channels, shift_channels, shuffle_channels, sigmoid, silu, slice_channels, tanh,
};

fn var(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&random(shape, seed).to_dtype(DType::F32).unwrap()).unwrap()
}

/// The tape and candle's graph over the GPU's kernels, beside the CPU's.
#[test]
fn gates_activations_and_taken_channels() {
    let map = var(&[2, 4, 3, 8], 1);
    let scores = var(&[2, 4, 3, 1], 2);
    let (factors, bias) = (var(&[2, 8], 3), var(&[8], 4));
    let loss = || -> mixskd_kernels::Result<Tensor> {
        let x = add_bias(&silu(&map)?, &bias)?;
        let shuffled = shuffle_channels(&x, 2)?;
        // Both halves, one of them read twice.
        let (left, right) = (
            slice_channels(&shuffled, 0, 4)?,
            slice_channels(&shuffled, 3, 5)?,
        );
        let joined = concat_channels(&relu6(&(&left * 8.0)?)?, &tanh(&right)?)?;
        let joined = slice_channels(&joined, 1, 8)?;
        let seen = attention_pool2d(&joined, &scores)?;
        let gate = sigmoid(&(factors.as_tensor() * seen.flatten_from(1)?)?)?;
        let y = shift_channels(&scale_channels(&joined, &gate)?, &factors)?;
        let y = relu(&(y - left.mean_all()?.reshape(1)?.broadcast_as(joined.shape())?)?)?;
        mse(&y, &x)
    };
    let variables = [&map, &scores, &factors, &bias];
    emulate_gpu(false);
    let expected = backward(&loss().unwrap()).unwrap();
    emulate_gpu(true);
    let graph = backward(&loss().unwrap()).unwrap();
    let tape = Tape::start();
    let taped = tape.backward(&loss().unwrap()).unwrap();
    let largest = |t: &Tensor| {
        let values = t.abs().unwrap().flatten_all().unwrap().to_vec1::<f32>();
        values.unwrap().into_iter().max_by(f32::total_cmp).unwrap()
    };
    for (k, variable) in variables.into_iter().enumerate() {
        let want = expected.get(variable).unwrap();
        for got in [&graph, &taped] {
            let got = got.get(variable).unwrap();
            let apart = largest(&(got - want).unwrap()) / largest(want);
            assert!(apart < 1e-4, "variable {k}: {apart}");
        }
    }
}
