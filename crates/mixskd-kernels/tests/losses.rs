//! The losses against naive loops in double precision, forward and gradients.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{random, relative, values};
use mixskd_kernels::{
    compose, cross_entropy, interpolated_mse, kl_divergence, mix_cross_entropy, mse,
    soft_cross_entropy,
};
use proptest::prelude::*;

/// A loss and its gradients by definition.
struct Naive {
    value: f64,
    gradients: Vec<Tensor>,
}

/// Compares a loss of `inputs` with the naive answer: values, and gradients of `1.5 · loss`.
fn check(inputs: &[&Tensor], naive: &Naive, loss: impl Fn(&[Tensor]) -> Tensor) {
    for (dtype, bound) in [(DType::F32, 5e-6), (DType::F64, 1e-12)] {
        let vars = inputs
            .iter()
            .map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap())
            .collect::<Vec<_>>();
        let leaves = vars
            .iter()
            .map(|v| v.as_tensor().clone())
            .collect::<Vec<_>>();
        let y = loss(&leaves);
        assert_eq!((y.rank(), y.dtype()), (0, dtype));
        let value = values(&y)[0];
        let off = (value - naive.value).abs() / naive.value.abs().max(1.0);
        assert!(off < bound, "{dtype:?}: {value}, wanted {}", naive.value);
        let grads = (y * 1.5).unwrap().backward().unwrap();
        for (i, (var, want)) in vars.iter().zip(&naive.gradients).enumerate() {
            let want = (want * 1.5).unwrap();
            // Gradients of a mean are small where there are many elements.
            let unit = want.elem_count() as f64;
            let got = (grads.get(var).unwrap().to_dtype(DType::F64).unwrap() * unit).unwrap();
            let e = relative(&got, &(want * unit).unwrap());
            assert!(e < bound, "{dtype:?}: gradient {i} off by {e}");
        }
    }
}

fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::MIN, f64::max);
    let e = row.iter().map(|z| ((z - max) / temperature).exp());
    let e = e.collect::<Vec<_>>();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

fn matrix(data: Vec<f64>, like: &Tensor) -> Tensor {
    Tensor::from_vec(data, like.dims(), &Device::Cpu).unwrap()
}

/// `−mean_i Σ_c t_ic · log p_ic`.
fn naive_cross_entropy(z: &Tensor, targets: &[f64]) -> Naive {
    let (batch, classes) = z.dims2().unwrap();
    let (mut value, mut gradient) = (0.0, vec![]);
    for (row, t) in values(z).chunks(classes).zip(targets.chunks(classes)) {
        let p = softmax(row, 1.0);
        let sum: f64 = t.iter().sum();
        for c in 0..classes {
            value -= t[c] * p[c].ln() / batch as f64;
            gradient.push((sum * p[c] - t[c]) / batch as f64);
        }
    }
    Naive {
        value,
        gradients: vec![matrix(gradient, z)],
    }
}

fn naive_divergence(student: &Tensor, teacher: &Tensor, t: f64) -> Naive {
    let (batch, classes) = student.dims2().unwrap();
    let (mut value, mut gradient) = (0.0, vec![]);
    let (s, te) = (values(student), values(teacher));
    for (s, te) in s.chunks(classes).zip(te.chunks(classes)) {
        let (q, p) = (softmax(s, t), softmax(te, t));
        for c in 0..classes {
            value += t * t * p[c] * (p[c].ln() - q[c].ln()) / batch as f64;
            gradient.push(t * (q[c] - p[c]) / batch as f64);
        }
    }
    Naive {
        value,
        gradients: vec![matrix(gradient, student)],
    }
}

fn naive_interpolated_mse(x: &Tensor, partner: &[u32], lambda: &[f64], y: &Tensor) -> Naive {
    let (xs, ys) = (values(x), values(y));
    let (total, row) = (xs.len() as f64, xs.len() / partner.len());
    let (mut value, mut dx, mut dy) = (0.0, vec![0.0; xs.len()], vec![0.0; xs.len()]);
    for (i, (&p, l)) in partner.iter().zip(lambda).enumerate() {
        for e in 0..row {
            let (own, other) = (i * row + e, p as usize * row + e);
            let d = l * xs[own] + (1.0 - l) * xs[other] - ys[own];
            value += d * d / total;
            dx[own] += 2.0 * l * d / total;
            dx[other] += 2.0 * (1.0 - l) * d / total;
            dy[own] -= 2.0 * d / total;
        }
    }
    Naive {
        value,
        gradients: vec![matrix(dx, x), matrix(dy, y)],
    }
}

fn labels(of: &[u32]) -> Tensor {
    Tensor::new(of, &Device::Cpu).unwrap()
}

/// Labels, partners' labels, partners and λ of a batch.
#[derive(Debug, Clone)]
struct Pairs {
    own: Vec<u32>,
    other: Vec<u32>,
    partner: Vec<u32>,
    lambda: Vec<f64>,
    classes: usize,
}

impl Pairs {
    fn batch(&self) -> usize {
        self.own.len()
    }

    fn lambda(&self) -> Tensor {
        Tensor::new(self.lambda.as_slice(), &Device::Cpu).unwrap()
    }

    fn logits(&self, seed: u64, scale: f64) -> Tensor {
        (random(&[self.batch(), self.classes], seed) * scale).unwrap()
    }

    fn targets(&self, weights: impl Fn(usize) -> (f64, f64)) -> Vec<f64> {
        let mut t = vec![0.0; self.batch() * self.classes];
        for i in 0..self.batch() {
            let (own, other) = weights(i);
            t[i * self.classes + self.own[i] as usize] += own;
            t[i * self.classes + self.other[i] as usize] += other;
        }
        t
    }
}

fn pairs() -> impl Strategy<Value = Pairs> {
    let sizes = (1usize..12, prop_oneof![1usize..20, 90usize..130]);
    sizes.prop_flat_map(|(batch, classes)| {
        let label = || prop::collection::vec(0..classes as u32, batch);
        let partner = prop::collection::vec(0..batch as u32, batch);
        let lambda = prop::collection::vec(0.0..=1.0f64, batch);
        (label(), label(), partner, lambda).prop_map(move |(own, other, partner, lambda)| Pairs {
            own,
            other,
            partner,
            lambda,
            classes,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn labels_of_one_and_of_two_images(p in pairs(), scale in 0.1..20.0f64) {
        let z = p.logits(1, scale);
        let y = labels(&p.own);
        let naive = naive_cross_entropy(&z, &p.targets(|_| (1.0, 0.0)));
        check(&[&z], &naive, |v| cross_entropy(&v[0], &y).unwrap());
        let (y2, lambda) = (labels(&p.other), p.lambda());
        let naive = naive_cross_entropy(&z, &p.targets(|i| (p.lambda[i], 1.0 - p.lambda[i])));
        check(&[&z], &naive, |v| mix_cross_entropy(&v[0], &y, &y2, &lambda).unwrap());
    }

    #[test]
    fn soft_targets(p in pairs()) {
        let (z, t) = (p.logits(1, 5.0), p.logits(2, 1.0));
        let naive = naive_cross_entropy(&z, &values(&t));
        check(&[&z], &naive, |v| soft_cross_entropy(&v[0], &t.to_dtype(v[0].dtype()).unwrap()).unwrap());
    }

    #[test]
    fn divergences(p in pairs(), scale in 0.1..8.0f64, temperature in 0.5..10.0f64) {
        let (student, teacher) = (p.logits(1, scale), p.logits(2, scale));
        let naive = naive_divergence(&student, &teacher, temperature);
        check(&[&student], &naive, |v| {
            kl_divergence(&v[0], &teacher.to_dtype(v[0].dtype()).unwrap(), temperature).unwrap()
        });
    }

    #[test]
    fn maps(p in pairs(), h in 1usize..6, w in 1usize..6, c in 1usize..50) {
        let shape = [p.batch(), h, w, c];
        let (x, y) = (random(&shape, 1), random(&shape, 2));
        let (partner, lambda) = (labels(&p.partner), p.lambda());
        let naive = naive_interpolated_mse(&x, &p.partner, &p.lambda, &y);
        check(&[&x, &y], &naive, |v| interpolated_mse(&v[0], &partner, &lambda, &v[1]).unwrap());
        let own = (0..p.batch() as u32).collect::<Vec<_>>();
        let naive = naive_interpolated_mse(&x, &own, &p.lambda, &y);
        check(&[&x, &y], &naive, |v| mse(&v[0], &v[1]).unwrap());
    }
}

/// Several blocks and tasks, and views that are not contiguous.
#[test]
fn larger_than_a_block() {
    let (x, y) = (random(&[3, 17, 33, 70], 1), random(&[3, 17, 33, 70], 2));
    let (p, l) = ([2u32, 2, 0], [0.3, 1.0, 0.0]);
    let (partner, lambda) = (labels(&p), Tensor::new(&l, &Device::Cpu).unwrap());
    check(&[&x, &y], &naive_interpolated_mse(&x, &p, &l, &y), |v| {
        interpolated_mse(&v[0], &partner, &lambda, &v[1]).unwrap()
    });
    let z = random(&[1000, 70], 3);
    let y = (0..70).map(|i| i * 14).collect::<Vec<u32>>();
    let mut targets = vec![0.0; 70_000];
    for (i, &y) in y.iter().enumerate() {
        targets[i * 1000 + y as usize] = 1.0;
    }
    let turned = z.t().unwrap().contiguous().unwrap();
    let mut naive = naive_cross_entropy(&turned, &targets);
    naive.gradients[0] = naive.gradients[0].t().unwrap().contiguous().unwrap();
    check(&[&z], &naive, |v| {
        cross_entropy(&v[0].t().unwrap(), &labels(&y)).unwrap()
    });
}

/// The chains of candle's ops give the same, so that every device has the same losses.
#[test]
fn chains_of_candle_ops_agree() {
    let device = Device::Cpu;
    let (z, t) = (random(&[5, 9], 1), random(&[5, 9], 2));
    let (y, y2) = (labels(&[0, 8, 3, 3, 1]), labels(&[1, 8, 0, 3, 2]));
    let lambda = Tensor::new(&[0.1, 0.9, 0.5, 0.0, 1.0], &device).unwrap();
    let partner = labels(&[1, 0, 4, 4, 2]);
    let pairs = [
        (cross_entropy(&z, &y), compose::cross_entropy(&z, &y)),
        (
            mix_cross_entropy(&z, &y, &y2, &lambda),
            compose::mix_cross_entropy(&z, &y, &y2, &lambda),
        ),
        (
            soft_cross_entropy(&z, &t),
            compose::soft_cross_entropy(&z, &t),
        ),
        (
            kl_divergence(&z, &t, 3.0),
            compose::kl_divergence(&z, &t, 3.0),
        ),
        (mse(&z, &t), compose::mse(&z, &t)),
        (
            interpolated_mse(&z, &partner, &lambda, &t),
            compose::interpolated_mse(&z, &partner, &lambda, &t),
        ),
    ];
    for (i, (kernel, composed)) in pairs.into_iter().enumerate() {
        assert!(
            relative(&kernel.unwrap(), &composed.unwrap()) < 1e-13,
            "pair {i}"
        );
    }
}

/// A divergence far smaller than float32's rounding of its terms survives float32 input.
#[test]
fn a_small_divergence_of_float32_logits() {
    let student = Tensor::new(&[[1.0f32, 2.0, 3.0]], &Device::Cpu).unwrap();
    let teacher = Tensor::new(&[[1.0f32, 2.0, 3.0 + 1e-4]], &Device::Cpu).unwrap();
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let naive = naive_divergence(&wide(&student), &wide(&teacher), 1.0).value;
    let got = values(&kl_divergence(&student, &teacher, 1.0).unwrap())[0];
    assert!(
        naive > 0.0 && (got / naive - 1.0).abs() < 1e-4,
        "{got} {naive}"
    );
}

/// NaN and infinite logits must come out as NaN: training has to notice them.
#[test]
fn nan_survives() {
    let y = labels(&[0]);
    for bad in [f32::NAN, f32::INFINITY] {
        let z = Tensor::new(&[[1.0, bad, 0.5]], &Device::Cpu).unwrap();
        let good = Tensor::new(&[[1.0f32, 0.0, 0.5]], &Device::Cpu).unwrap();
        for loss in [
            cross_entropy(&z, &y),
            kl_divergence(&z, &good, 2.0),
            kl_divergence(&good, &z, 2.0),
            mse(&(&z * 0.0).unwrap(), &good),
        ] {
            assert!(values(&loss.unwrap())[0].is_nan(), "{bad}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let z = random(&[2, 3], 1);
    let said = |result: mixskd_kernels::Result<Tensor>| result.unwrap_err().to_string();
    assert_eq!(
        said(cross_entropy(&z, &labels(&[0, 3]))),
        "cross_entropy: label 3 is not one of 3 classes"
    );
    assert_eq!(
        said(cross_entropy(&z, &labels(&[0]))),
        "cross_entropy: labels must be [2], got [1]"
    );
    assert_eq!(
        said(kl_divergence(&z, &z, 0.0)),
        "kl_divergence: temperature must be finite and above 0, got 0"
    );
    let lambda = random(&[2], 2);
    assert_eq!(
        said(interpolated_mse(&z, &labels(&[0, 2]), &lambda, &z)),
        "interpolated_mse: partner 2 is not in a batch of 2"
    );
}
