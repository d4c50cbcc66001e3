//! Every loss's gradient against difference quotients, in f64.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::slice::from_ref;

use common::{Numbers, check_gradient, outputs_from};
use mixskd_losses::{
    ObjectiveConfig, cross_entropy, discriminator_loss, feature_mse, gradient_reversal,
    kl_divergence, mix_cross_entropy, objective, soft_cross_entropy,
};

#[test]
fn cross_entropies() {
    let mut n = Numbers(1);
    for (batch, classes) in [(1, 2), (4, 6)] {
        let z = n.tensor(&[batch, classes], 4.0);
        let (y, y2) = (n.labels(batch, classes), n.labels(batch, classes));
        let (lambda, targets) = (n.lambda(batch), n.tensor(&[batch, classes], 1.0));
        check_gradient("cross_entropy", from_ref(&z), |x| {
            cross_entropy(&x[0], &y).unwrap()
        });
        check_gradient("mix_cross_entropy", from_ref(&z), |x| {
            mix_cross_entropy(&x[0], &y, &y2, &lambda).unwrap()
        });
        check_gradient("soft_cross_entropy", &[z], |x| {
            soft_cross_entropy(&x[0], &targets).unwrap()
        });
    }
}

#[test]
fn divergence_of_the_student() {
    let mut n = Numbers(2);
    for temperature in [0.5, 1.0, 3.0] {
        let (z, teacher) = (n.tensor(&[3, 5], 4.0), n.tensor(&[3, 5], 4.0));
        check_gradient("kl_divergence", &[z], |x| {
            kl_divergence(&x[0], &teacher, temperature).unwrap()
        });
    }
}

#[test]
fn features_on_both_sides() {
    let mut n = Numbers(3);
    let (a, b) = (n.tensor(&[2, 3, 3, 2], 2.0), n.tensor(&[2, 3, 3, 2], 2.0));
    check_gradient("feature_mse", &[a, b], |x| {
        feature_mse(&x[0], &x[1]).unwrap()
    });
}

#[test]
fn discriminators_with_one_and_two_logits() {
    let mut n = Numbers(4);
    for answers in [1, 2] {
        let (a, b) = (n.tensor(&[3, answers], 3.0), n.tensor(&[3, answers], 3.0));
        // A logit of exactly 0, where the usual stable form has a kink.
        let b = (b * 0.0).unwrap();
        check_gradient("discriminator_loss", &[a, b], |x| {
            discriminator_loss(&x[0], &x[1]).unwrap()
        });
    }
}

#[test]
fn reversal_is_minus_the_gradient() {
    let mut n = Numbers(5);
    let (z, y) = (n.tensor(&[3, 4], 2.0), n.labels(3, 4));
    // What is reversed twice has its own gradient again, times both scales.
    check_gradient("gradient_reversal", &[z], |x| {
        let twice = gradient_reversal(&gradient_reversal(&x[0], 0.5).unwrap(), 2.0).unwrap();
        cross_entropy(&twice, &y).unwrap()
    });
}

#[test]
fn objective_without_detached_sides() {
    let mut n = Numbers(6);
    let (heads, batch, classes) = (2, 2, 3);
    let mut inputs = Vec::new();
    for list in 0..7 {
        for _ in 0..heads {
            inputs.push(match list {
                0..=2 => n.tensor(&[batch, classes], 2.0),
                3 | 4 => n.tensor(&[batch, 2, 2, 2], 1.0),
                _ => n.tensor(&[batch, 2], 2.0),
            });
        }
    }
    inputs.extend([
        n.tensor(&[batch, classes], 2.0),
        n.tensor(&[batch, classes], 2.0),
    ]);
    let (y, y2, lambda) = (
        n.labels(batch, classes),
        n.labels(batch, classes),
        n.lambda(batch),
    );
    let config = ObjectiveConfig {
        branch_probability: 0.0,
        backbone_probability: 0.0,
        task_mix: 0.5,
        ..ObjectiveConfig::default()
    };
    // Interpolated logits meet only the divergences: with those off they have no gradient, so they are no inputs here.
    let fixed = inputs.clone();
    let moving: Vec<usize> = (0..inputs.len()).filter(|i| !(4..6).contains(i)).collect();
    let chosen: Vec<_> = moving.iter().map(|&i| inputs[i].clone()).collect();
    check_gradient("objective", &chosen, |x| {
        let mut all = fixed.clone();
        for (slot, tensor) in moving.iter().zip(x) {
            all[*slot] = tensor.clone();
        }
        objective(&outputs_from(&all, heads), &y, &y2, &lambda, &config)
            .unwrap()
            .total
    });
}
