//! The convolution kernels against a naive loop in double precision.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Tensor, Var};
use common::{Naive, random, relative};
use mixskd_kernels::{Conv2dConfig, conv2d};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    h: usize,
    w: usize,
    in_group: usize,
    out_group: usize,
    kernel: (usize, usize),
    config: Conv2dConfig,
}

/// Runs output and both gradients, and returns the largest relative error of each.
fn errors(case: Case, dtype: DType) -> Option<[f64; 3]> {
    let c = case.config;
    let (kh, kw) = case.kernel;
    let out = (c.out_size(case.h, kh).ok()?, c.out_size(case.w, kw).ok()?);
    let (ci, co) = (case.in_group * c.groups, case.out_group * c.groups);
    let x = random(&[case.batch, case.h, case.w, ci], 1);
    let w = random(&[co, case.in_group, kh, kw], 2);
    let dy = random(&[case.batch, out.0, out.1, co], 3);
    let naive = Naive::conv2d(&x, &w, &dy, c);

    let xv = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
    let wv = Var::from_tensor(&w.to_dtype(dtype).unwrap()).unwrap();
    let y = conv2d(&xv, &wv, c).unwrap();
    let grads = (&y * dy.to_dtype(dtype).unwrap())
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    Some([
        relative(&y, &naive.y),
        relative(grads.get(&xv).unwrap(), &naive.dx),
        relative(grads.get(&wv).unwrap(), &naive.dw),
    ])
}

fn check(case: Case) {
    for (dtype, bound) in [(DType::F32, 1e-4), (DType::F64, 1e-12)] {
        if let Some(errors) = errors(case, dtype) {
            assert!(
                errors.iter().all(|&e| e < bound),
                "{case:?} {dtype:?}: {errors:?}"
            );
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1usize..4, 1usize..12, 1usize..12);
    let channels = (
        prop_oneof![1usize..8, 12usize..40],
        prop_oneof![1usize..8, 12usize..90],
        1usize..3,
    );
    let window = (1usize..4, 1usize..4, 1usize..4, 0usize..3, 1usize..3);
    (sizes, channels, window).prop_map(|((batch, h, w), (in_group, out_group, groups), win)| Case {
        batch,
        h,
        w,
        in_group,
        out_group,
        kernel: (win.0, win.1),
        config: Conv2dConfig {
            stride: win.2,
            padding: win.3,
            dilation: win.4,
            groups,
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_convolution(case in cases()) {
        check(case);
    }

    #[test]
    fn three_by_three(batch in 1usize..5, h in 1usize..14, w in 1usize..14, ci in 1usize..40, co in 1usize..40) {
        let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
        check(Case { batch, h, w, in_group: ci, out_group: co, kernel: (3, 3), config });
    }
}

/// The shapes that networks are made of, large enough for every way of cutting the work.
#[test]
fn shapes_of_networks() {
    let plain = Conv2dConfig::default();
    let same = Conv2dConfig {
        padding: 1,
        ..plain
    };
    let down = Conv2dConfig { stride: 2, ..same };
    for (batch, size, ci, co, kernel, config) in [
        (5, 32, 3, 16, 3, same),
        (4, 16, 64, 64, 3, same),
        (9, 4, 130, 140, 3, same),
        (9, 4, 128, 256, 3, down),
        (3, 9, 64, 128, 1, Conv2dConfig { stride: 2, ..plain }),
        (2, 8, 256, 576, 1, plain),
        (
            1,
            40,
            3,
            64,
            7,
            Conv2dConfig {
                stride: 2,
                padding: 3,
                ..plain
            },
        ),
        (2, 8, 1, 1, 3, Conv2dConfig { groups: 32, ..same }),
        (2, 9, 1, 1, 3, Conv2dConfig { groups: 20, ..down }),
        (2, 8, 4, 8, 3, Conv2dConfig { groups: 8, ..same }),
        // Images shared out among slices, unevenly; groups among tasks; a group's weight cut into panels.
        (5, 24, 16, 16, 3, Conv2dConfig { groups: 6, ..same }),
        (4, 25, 18, 20, 3, Conv2dConfig { groups: 3, ..down }),
        (3, 5, 40, 40, 3, Conv2dConfig { groups: 16, ..same }),
        (1, 3, 150, 170, 3, Conv2dConfig { groups: 2, ..same }),
    ] {
        check(Case {
            batch,
            h: size,
            w: size,
            in_group: ci,
            out_group: co,
            kernel: (kernel, kernel),
            config,
        });
    }
}

/// The same bits from one thread and from two.
#[test]
fn independent_of_threads() {
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let x = Var::from_tensor(&random(&[6, 16, 16, 24], 4).to_dtype(DType::F32).unwrap())
                .unwrap();
            let w = Var::from_tensor(&random(&[40, 24, 3, 3], 5).to_dtype(DType::F32).unwrap())
                .unwrap();
            let y = conv2d(&x, &w, config).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (
                bits(&y),
                bits(grads.get(&x).unwrap()),
                bits(grads.get(&w).unwrap()),
            )
        })
    };
    assert!(run(1) == run(2));
}

/// Depthwise and narrow groups, at channel counts around a vector's.
#[test]
fn depthwise_and_groups() {
    let case = |size: (usize, usize), group: usize, groups, kernel, stride, dilation| Case {
        batch: 2,
        h: size.0,
        w: size.1,
        in_group: group,
        out_group: group,
        kernel: (kernel, kernel),
        config: Conv2dConfig {
            stride,
            padding: dilation * (kernel / 2),
            dilation,
            groups,
        },
    };
    for channels in [2, 15, 16, 33, 72] {
        for (kernel, stride, dilation) in [
            (3, 1, 1),
            (3, 2, 1),
            (5, 1, 1),
            (5, 2, 1),
            (3, 1, 2),
            (7, 1, 1),
            (7, 2, 1),
            (7, 3, 1),
        ] {
            check(case((13, 22), 1, channels, kernel, stride, dilation));
            check(case((5, 15), 1, channels, kernel, stride, dilation));
        }
    }
    check(case((1, 1), 1, 24, 3, 1, 1));
    check(case((2, 1), 1, 24, 5, 2, 1));
    for (group, groups) in [(4, 8), (8, 4), (4, 3), (3, 7), (16, 2), (20, 3)] {
        check(case((7, 10), group, groups, 3, 1, 1));
        check(case((7, 10), group, groups, 3, 2, 1));
        check(case((7, 10), group, groups, 1, 1, 1));
    }
}
