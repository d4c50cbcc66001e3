//! What the tests of several files share.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::{DType, Device, Tensor, Var};
use mixskd_losses::MixSkdOutputs;

/// Numbers that look random and are the same on every machine: a splitmix64 stream mapped to (−1, 1).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// An f64 tensor with entries in (−`scale`, `scale`).
    pub(crate) fn tensor(&mut self, shape: &[usize], scale: f64) -> Tensor {
        let data: Vec<f64> = (0..shape.iter().product())
            .map(|_| scale * self.next())
            .collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    pub(crate) fn labels(&mut self, batch: usize, classes: usize) -> Tensor {
        let data: Vec<u32> = (0..batch)
            .map(|_| (f64::midpoint(self.next(), 1.0) * classes as f64) as u32)
            .collect();
        Tensor::new(data, &Device::Cpu).unwrap()
    }

    /// λ in (0, 1), one a sample.
    pub(crate) fn lambda(&mut self, batch: usize) -> Tensor {
        ((self.tensor(&[batch], 1.0) + 1.0).unwrap() / 2.0).unwrap()
    }
}

pub(crate) fn scalar(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

pub(crate) fn flat(x: &Tensor) -> Vec<f64> {
    let x = x.to_dtype(DType::F64).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference of `got` from `expected`, over the largest expected entry.
pub(crate) fn check_close(
    what: &str,
    got: &Tensor,
    expected: &Tensor,
    relative: f64,
    absolute: f64,
) {
    assert_eq!(got.dims(), expected.dims(), "{what}: shape");
    let (got, expected) = (flat(got), flat(expected));
    let size = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let wrong = (g - e).abs();
        assert!(
            wrong <= relative * size + absolute,
            "{what}[{i}]: got {g}, expected {e} (off by {wrong:e}, largest entry {size:e})"
        );
    }
}

/// Compares the gradient of `loss` with central differences, entry by entry, for every tensor in `inputs`.
pub(crate) fn check_gradient(what: &str, inputs: &[Tensor], loss: impl Fn(&[Tensor]) -> Tensor) {
    let step = 1e-5;
    let vars: Vec<Var> = inputs
        .iter()
        .map(|x| Var::from_tensor(x).unwrap())
        .collect();
    let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = loss(&leaves).backward().unwrap();
    for (k, x) in inputs.iter().enumerate() {
        let analytic = flat(grads.get(&vars[k]).unwrap());
        let entries = flat(x);
        for i in 0..entries.len() {
            let at = |delta: f64| {
                let mut moved = entries.clone();
                moved[i] += delta;
                let mut all = inputs.to_vec();
                all[k] = Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap();
                scalar(&loss(&all))
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            let wrong = (numeric - analytic[i]).abs();
            assert!(
                wrong <= 1e-7 * (1.0 + numeric.abs()),
                "{what}: input {k}, entry {i}: difference quotient {numeric}, gradient {}",
                analytic[i]
            );
        }
    }
}

/// The tensors of `outputs` in one list, and back.
pub(crate) fn outputs_from(list: &[Tensor], heads: usize) -> MixSkdOutputs {
    let part = |i: usize| list[i * heads..(i + 1) * heads].to_vec();
    MixSkdOutputs {
        original: part(0),
        mixed: part(1),
        interpolated: part(2),
        interpolated_features: part(3),
        mixed_features: part(4),
        discriminator_interpolated: part(5),
        discriminator_mixed: part(6),
        teacher_interpolated: Some(list[7 * heads].clone()),
        teacher_mixed: Some(list[7 * heads + 1].clone()),
    }
}
