//! Identities that hold for any logits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use candle_core::{Device, Tensor, Var};
use common::{flat, scalar};
use mixskd_losses::{
    cross_entropy, discriminator_loss, gradient_reversal, interpolate, kl_divergence,
    mix_cross_entropy, soft_cross_entropy,
};
use proptest::prelude::*;

const CLASSES: usize = 4;

#[derive(Debug, Clone)]
struct Batch {
    logits: Vec<f64>,
    teacher: Vec<f64>,
    labels: Vec<u32>,
    partner: Vec<u32>,
    lambda: Vec<f64>,
}

impl Batch {
    fn logits(&self) -> Tensor {
        self.matrix(&self.logits)
    }
    fn teacher(&self) -> Tensor {
        self.matrix(&self.teacher)
    }
    fn matrix(&self, data: &[f64]) -> Tensor {
        let shape = (self.labels.len(), CLASSES);
        Tensor::from_vec(data.to_vec(), shape, &Device::Cpu).unwrap()
    }
    fn labels(&self) -> Tensor {
        Tensor::new(self.labels.as_slice(), &Device::Cpu).unwrap()
    }
    fn partner(&self) -> Tensor {
        Tensor::new(self.partner.as_slice(), &Device::Cpu).unwrap()
    }
    fn partner_labels(&self) -> Tensor {
        self.labels().index_select(&self.partner(), 0).unwrap()
    }
    fn lambda(&self) -> Tensor {
        Tensor::new(self.lambda.as_slice(), &Device::Cpu).unwrap()
    }
    fn all_lambda(&self, value: f64) -> Tensor {
        Tensor::new(vec![value; self.labels.len()], &Device::Cpu).unwrap()
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    (1usize..6).prop_flat_map(|n| {
        let logit = prop_oneof![4 => -8.0..8.0f64, 1 => Just(50.0), 1 => Just(-50.0)];
        let identity: Vec<u32> = (0..n as u32).collect();
        (
            prop::collection::vec(logit.clone(), n * CLASSES),
            prop::collection::vec(logit, n * CLASSES),
            prop::collection::vec(0..CLASSES as u32, n),
            Just(identity).prop_shuffle(),
            prop::collection::vec(0.0..=1.0f64, n),
        )
            .prop_map(|(logits, teacher, labels, partner, lambda)| Batch {
                logits,
                teacher,
                labels,
                partner,
                lambda,
            })
    })
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * (1.0 + b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn lambda_one_is_the_plain_batch(b in batch()) {
        let plain = scalar(&cross_entropy(&b.logits(), &b.labels()).unwrap());
        let own = mix_cross_entropy(&b.logits(), &b.labels(), &b.partner_labels(), &b.all_lambda(1.0)).unwrap();
        prop_assert!(near(scalar(&own), plain));
        let other = mix_cross_entropy(&b.logits(), &b.partner_labels(), &b.labels(), &b.all_lambda(0.0)).unwrap();
        prop_assert!(near(scalar(&other), plain));
        let same = interpolate(&b.logits(), &b.partner(), &b.all_lambda(1.0)).unwrap();
        prop_assert_eq!(flat(&same), b.logits);
    }

    #[test]
    fn each_its_own_partner_makes_mixing_a_no_op(b in batch()) {
        let plain = scalar(&cross_entropy(&b.logits(), &b.labels()).unwrap());
        let mixed = mix_cross_entropy(&b.logits(), &b.labels(), &b.labels(), &b.lambda()).unwrap();
        prop_assert!(near(scalar(&mixed), plain));
    }

    #[test]
    fn mixing_labels_is_mixing_targets(b in batch()) {
        let one_hot = |labels: &[u32]| {
            let mut t = vec![0.0; labels.len() * CLASSES];
            for (i, &y) in labels.iter().enumerate() {
                t[i * CLASSES + y as usize] = 1.0;
            }
            b.matrix(&t)
        };
        let targets = interpolate(&one_hot(&b.labels), &b.partner(), &b.lambda()).unwrap();
        let soft = soft_cross_entropy(&b.logits(), &targets).unwrap();
        let mix = mix_cross_entropy(&b.logits(), &b.labels(), &b.partner_labels(), &b.lambda()).unwrap();
        prop_assert!(near(scalar(&mix), scalar(&soft)));
    }

    #[test]
    fn divergence_is_zero_only_of_equals(b in batch(), t in 0.5..20.0f64, shift in -5.0..5.0f64) {
        let same = kl_divergence(&b.logits(), &b.logits(), t).unwrap();
        prop_assert_eq!(scalar(&same), 0.0);
        let shifted = kl_divergence(&(b.logits() + shift).unwrap(), &b.logits(), t).unwrap();
        prop_assert!(scalar(&shifted).abs() < 1e-9 * t * t);
        let other = scalar(&kl_divergence(&b.logits(), &b.teacher(), t).unwrap());
        prop_assert!(other.is_finite() && other > -1e-9 * t * t, "{}", other);
    }

    #[test]
    fn divergence_and_cross_entropy_differ_by_the_teachers_entropy(b in batch()) {
        // At T = 1, KL(q ‖ p) + H(p) = CE with targets p; both sides have the same gradient in the student.
        let (student, other) = (Var::from_tensor(&b.logits()).unwrap(), Var::from_tensor(&b.logits()).unwrap());
        let p = candle_softmax(&b.teacher());
        let kl = kl_divergence(&student, &b.teacher(), 1.0).unwrap().backward().unwrap();
        let ce = soft_cross_entropy(&other, &p).unwrap().backward().unwrap();
        for (x, y) in flat(kl.get(&student).unwrap()).iter().zip(flat(ce.get(&other).unwrap())) {
            prop_assert!(near(*x, y));
        }
    }

    #[test]
    fn nothing_flows_to_a_detached_side(b in batch()) {
        let student = Var::from_tensor(&b.logits()).unwrap();
        let teacher = Var::from_tensor(&b.teacher()).unwrap();
        let lambda = Var::from_tensor(&b.lambda()).unwrap();
        let kl = kl_divergence(&student, &teacher, 3.0).unwrap();
        let soft = soft_cross_entropy(&student, &teacher).unwrap();
        let mix = mix_cross_entropy(&student, &b.labels(), &b.partner_labels(), &lambda).unwrap();
        let grads = ((kl + soft).unwrap() + mix).unwrap().backward().unwrap();
        prop_assert!(grads.get(&student).is_some());
        prop_assert!(grads.get(&teacher).is_none());
        prop_assert!(grads.get(&lambda).is_none());
    }

    #[test]
    fn logits_shifted_as_one_change_nothing(b in batch(), shift in -20.0..20.0f64) {
        let moved = (b.logits() + shift).unwrap();
        let plain = scalar(&cross_entropy(&b.logits(), &b.labels()).unwrap());
        prop_assert!(near(scalar(&cross_entropy(&moved, &b.labels()).unwrap()), plain));
    }

    #[test]
    fn an_undecided_discriminator_pays_log_two(n in 1usize..6, answers in 1usize..3) {
        let zero = Tensor::zeros((n, answers), candle_core::DType::F64, &Device::Cpu).unwrap();
        let loss = discriminator_loss(&zero, &zero).unwrap();
        prop_assert!(near(scalar(&loss), std::f64::consts::LN_2));
    }

    #[test]
    fn two_opposed_logits_are_one(b in batch()) {
        // (u, −u) asks the same question twice.
        let one = b.logits().narrow(1, 0, 1).unwrap();
        let two = b.teacher().narrow(1, 0, 1).unwrap();
        let pair = |u: &Tensor| Tensor::cat(&[u, &u.neg().unwrap()], 1).unwrap();
        let single = discriminator_loss(&one, &two).unwrap();
        let double = discriminator_loss(&pair(&one), &pair(&two)).unwrap();
        prop_assert!(near(scalar(&single), scalar(&double)));
    }

    #[test]
    fn reversal_keeps_values_of_any_view(b in batch(), scale in 0.0..3.0f64) {
        let x = Var::from_tensor(&b.logits()).unwrap();
        let view = x.t().unwrap().narrow(0, 1, 2).unwrap();
        let reversed = gradient_reversal(&view, scale).unwrap();
        prop_assert_eq!(flat(&reversed), flat(&view));
        let grads = (&reversed * 2.0).unwrap().sum_all().unwrap().backward().unwrap();
        for (i, g) in flat(grads.get(&x).unwrap()).into_iter().enumerate() {
            let inside = (1..3).contains(&(i % CLASSES));
            let expected = if inside { -2.0 * scale } else { 0.0 };
            prop_assert!(near(g, expected));
        }
    }
}

fn candle_softmax(z: &Tensor) -> Tensor {
    let e = z
        .broadcast_sub(&z.max_keepdim(1).unwrap())
        .unwrap()
        .exp()
        .unwrap();
    e.broadcast_div(&e.sum_keepdim(1).unwrap()).unwrap()
}
