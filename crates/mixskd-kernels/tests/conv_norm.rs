//! Convolution and batch norm as one op: the bits of the two ops apart.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Tensor, Var};
use common::random;
use mixskd_kernels::{BATCH_NORM_EPS, Conv2dConfig, batch_norm_train, conv_norm_train, conv2d};

const EPS: f64 = BATCH_NORM_EPS;

/// Which of the inputs are variables.
#[derive(Debug, Clone, Copy)]
struct Trained {
    x: bool,
    weight: bool,
    norm: bool,
}

const ALL: Trained = Trained {
    x: true,
    weight: true,
    norm: true,
};

struct Case {
    x: [usize; 4],
    w: [usize; 4],
    config: Conv2dConfig,
    residual: bool,
    relu: bool,
}

fn bits(t: &Tensor) -> Vec<u64> {
    let t = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    let values: Vec<f64> = t.to_vec1().unwrap();
    values.into_iter().map(f64::to_bits).collect()
}

/// Output, statistics, and the gradients of a random functional of the output and of its square, each if there is one.
fn outcome(case: &Case, trained: Trained, dtype: DType, fused: bool) -> Vec<Option<Vec<u64>>> {
    let var = |shape: &[usize], seed| {
        Var::from_tensor(&random(shape, seed).to_dtype(dtype).unwrap()).unwrap()
    };
    let out = case.w[0];
    let (x, w) = (var(&case.x, 1), var(&case.w, 2));
    let (scale, shift) = (var(&[out], 3), var(&[out], 4));
    let take = |v: &Var, trained: bool| {
        if trained {
            v.as_tensor().clone()
        } else {
            v.as_detached_tensor()
        }
    };
    let (xt, wt) = (take(&x, trained.x), take(&w, trained.weight));
    let (scale_t, shift_t) = (take(&scale, trained.norm), take(&shift, trained.norm));
    let plain = conv2d(&xt.detach(), &wt.detach(), case.config).unwrap();
    let residual = case.residual.then(|| var(plain.dims(), 5));
    let r = residual.as_ref().map(Var::as_tensor);
    let (y, stats) = if fused {
        let norm = [&scale_t, &shift_t];
        conv_norm_train(&xt, &wt, case.config, norm, EPS, r, case.relu).unwrap()
    } else {
        let y = conv2d(&xt, &wt, case.config).unwrap();
        batch_norm_train(&y, &scale_t, &shift_t, EPS, r, case.relu).unwrap()
    };
    let direction = random(y.dims(), 6).to_dtype(dtype).unwrap();
    let loss = ((&y * direction).unwrap() + y.sqr().unwrap()).unwrap();
    let loss = loss.sum_all().unwrap();
    // Twice: a backward pass leaves nothing behind that the next would trip over.
    loss.backward().unwrap();
    let grads = loss.backward().unwrap();
    let mut out = vec![
        Some(bits(&y)),
        Some(bits(&stats.mean)),
        Some(bits(&stats.var)),
    ];
    for v in [
        Some(&x),
        Some(&w),
        Some(&scale),
        Some(&shift),
        residual.as_ref(),
    ] {
        out.push(v.and_then(|v| grads.get(v)).map(bits));
    }
    out
}

fn cases() -> Vec<Case> {
    let plain = Conv2dConfig::default();
    let same = Conv2dConfig {
        padding: 1,
        ..plain
    };
    let mut cases = vec![];
    for (x, w, config) in [
        ([4, 16, 16, 24], [40, 24, 3, 3], same),
        ([2, 7, 9, 3], [10, 3, 3, 3], same),
        (
            [3, 9, 9, 20],
            [33, 20, 3, 3],
            Conv2dConfig { stride: 2, ..same },
        ),
        ([2, 5, 5, 16], [24, 16, 1, 1], plain),
        (
            [2, 8, 8, 12],
            [12, 1, 3, 3],
            Conv2dConfig { groups: 12, ..same },
        ),
    ] {
        for (residual, relu) in [(false, true), (true, true), (true, false)] {
            cases.push(Case {
                x,
                w,
                config,
                residual,
                relu,
            });
        }
    }
    cases
}

#[test]
fn has_the_bits_of_both_ops() {
    for case in cases() {
        for dtype in [DType::F32, DType::F64] {
            let apart = outcome(&case, ALL, dtype, false);
            assert!(apart[3..7].iter().all(Option::is_some));
            let fused = outcome(&case, ALL, dtype, true);
            assert!(apart == fused, "{:?} {:?} {dtype:?}", case.x, case.w);
        }
    }
}

#[test]
fn leaves_out_what_is_frozen() {
    let case = &cases()[1];
    for number in 0..8 {
        let trained = Trained {
            x: number & 1 > 0,
            weight: number & 2 > 0,
            norm: number & 4 > 0,
        };
        let apart = outcome(case, trained, DType::F32, false);
        let fused = outcome(case, trained, DType::F32, true);
        for (i, wants) in [trained.x, trained.weight, trained.norm, trained.norm]
            .into_iter()
            .enumerate()
        {
            assert_eq!(apart[3 + i].is_some(), wants);
            assert!(!wants || apart[3 + i] == fused[3 + i], "{trained:?}: {i}");
        }
        assert!(
            apart[..3] == fused[..3] && apart[7] == fused[7],
            "{trained:?}"
        );
    }
}

#[test]
fn says_what_does_not_fit() {
    let t = |shape: &[usize]| random(shape, 1).to_dtype(DType::F32).unwrap();
    let (x, w) = (t(&[1, 4, 4, 2]), t(&[3, 2, 1, 1]));
    let run = |scale: &Tensor, residual: Option<&Tensor>| {
        let config = Conv2dConfig::default();
        conv_norm_train(&x, &w, config, [scale, &t(&[3])], EPS, residual, true)
    };
    assert!(run(&t(&[3]), None).is_ok());
    assert!(
        run(&t(&[2]), None)
            .unwrap_err()
            .to_string()
            .contains("batch_norm")
    );
    let residual = t(&[1, 4, 4, 2]);
    assert!(
        run(&t(&[3]), Some(&residual))
            .unwrap_err()
            .to_string()
            .contains("residual")
    );
}
