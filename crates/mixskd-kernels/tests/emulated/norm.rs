//! Batch norm: its forms, its gradients of one reader and of several, running statistics.

use candle_core::{DType, Device, Tensor, Var};
use mixskd_cuda::sum::Part;
use mixskd_cuda::{Element, Emulator, NULL, norm};
use mixskd_kernels::{BATCH_NORM_EPS, BatchStats, batch_norm_eval, batch_norm_train, move_running};

use crate::ELEMENTS;
use crate::array::{Array, check, float, rounded, var};
use crate::common::random;

fn norm_case(dims: [usize; 4], element: Element, residual: bool, relu: bool, own: bool) {
    let what = format!("norm {dims:?} residual {residual} relu {relu} own {own}");
    let c = dims[3];
    let x = var(&(rounded(&dims, 1, element) + 0.5).unwrap());
    let x = var(&Array::of(&x, element).tensor(&x));
    let added = var(&rounded(&dims, 2, element));
    let weight = var(&(rounded(&[c], 3, Element::F32) + 1.5).unwrap());
    let bias = var(&rounded(&[c], 4, Element::F32));
    let dy = rounded(&dims, 5, element);
    let given_mean = rounded(&[c], 6, Element::F32);
    let given_var = (rounded(&[c], 7, Element::F32) + 1.25).unwrap();
    let extra = residual.then_some(added.as_tensor());
    let (y, mean, variance) = if own {
        let (y, stats) = batch_norm_train(&x, &weight, &bias, BATCH_NORM_EPS, extra, relu).unwrap();
        (y, stats.mean, stats.var)
    } else {
        let y = batch_norm_eval(
            &x,
            &weight,
            &bias,
            &given_mean,
            &given_var,
            BATCH_NORM_EPS,
            extra,
            relu,
        );
        (y.unwrap(), given_mean, given_var)
    };
    let gradients = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();

    let shape = norm::Shape {
        rows: dims[0] * dims[1] * dims[2],
        channels: c,
        element,
    };
    let (ax, ar) = (Array::of(&x, element), Array::of(&added, element));
    let [aw, ab] = [&weight, &bias].map(|t| float(t));
    let scratch = Array::empty(shape.scratch(), Element::F32);
    let [mut am, mut av] = [&mean, &variance].map(float);
    let ai = Array::empty(c, Element::F32);
    let eps = BATCH_NORM_EPS as f32;
    let ay = Array::empty(ax.len, element);
    let [dx, dr] = [(); 2].map(|()| Array::empty(ax.len, element));
    let (dp, coefficients) = (
        Array::empty(2 * c, Element::F32),
        Array::empty(3 * c, Element::F32),
    );
    let ady = Array::of(&dy, element);
    // SAFETY: all arrays have the lengths that the functions ask for.
    unsafe {
        if own {
            (am, av) = (Array::empty(c, Element::F32), Array::empty(c, Element::F32));
            let to = [am.at(), av.at(), ai.at()];
            norm::statistics(&Emulator, shape, ax.at(), eps, scratch.at(), to).unwrap();
        } else {
            norm::inverse(&Emulator, c, av.at(), eps, ai.at()).unwrap();
        }
        let r = if residual { ar.at() } else { NULL };
        let statistics = [am.at(), ai.at()];
        norm::forward(
            &Emulator,
            shape,
            ax.at(),
            r,
            [aw.at(), ab.at()],
            statistics,
            relu,
            ay.at(),
        )
        .unwrap();
        let from = norm::Incoming {
            x: ax.at(),
            y: if relu && residual { ay.at() } else { NULL },
            dy: &[whole(&ady)],
            weight: aw.at(),
            bias: if relu && !residual { ab.at() } else { NULL },
            mean: am.at(),
            inv_std: ai.at(),
            own,
        };
        let to = norm::Outgoing {
            scratch: scratch.at(),
            coefficients: coefficients.at(),
            d_params: dp.at(),
            dx: dx.at(),
            behind: dr.at(),
        };
        norm::backward(&Emulator, shape, from, to).unwrap();
    }
    check(&am, &mean, &format!("{what}: mean"));
    check(&av, &variance, &format!("{what}: variance"));
    check(&ay, &y, &format!("{what}: y"));
    check(&dx, gradients.get(&x).unwrap(), &format!("{what}: dx"));
    if residual {
        check(
            if relu { &dr } else { &ady },
            gradients.get(&added).unwrap(),
            &format!("{what}: residual"),
        );
    }
    let want = [
        gradients.get(&weight).unwrap(),
        gradients.get(&bias).unwrap(),
    ];
    check(
        &dp,
        &Tensor::cat(&want, 0).unwrap(),
        &format!("{what}: parameters"),
    );
}

#[test]
fn batch_norm_in_every_form() {
    for element in ELEMENTS {
        // Widths of whole packs, of broken ones, of one tile and of several; one slab of rows and many.
        for dims in [
            [2, 3, 5, 64],
            [2, 3, 3, 5],
            [1, 4, 4, 264],
            [3, 13, 11, 20],
            [1, 1, 2, 1],
        ] {
            norm_case(dims, element, true, true, true);
        }
        norm_case([2, 3, 5, 24], element, false, true, true);
        norm_case([2, 3, 5, 24], element, true, false, true);
        norm_case([2, 3, 5, 24], element, true, true, false);
        norm_case([1, 131, 140, 3], element, false, false, true);
        // Several rows for a thread, read together, and some that are left over.
        for (residual, relu) in [(true, true), (false, true), (true, false)] {
            norm_case([1, 700, 703, 3], element, residual, relu, true);
        }
    }
}

fn whole(of: &Array) -> Part {
    let (x, len) = (of.at(), of.len);
    Part { x, first: 0, len }
}

/// The gradients of a batch norm, bit by bit, where the output's is the sum of `parts`: added up on the way, or, with `before`, by a kernel of its own.
fn norm_gradients(
    dims: [usize; 4],
    element: Element,
    [relu, residual]: [bool; 2],
    parts: &[(usize, usize)],
    before: bool,
) -> Vec<Vec<u64>> {
    let (count, c) = (dims.iter().product::<usize>(), dims[3]);
    let shape = norm::Shape {
        rows: count / c,
        channels: c,
        element,
    };
    // Zeros of both signs among them.
    let sharp = |seed| {
        let map = Array::of(&rounded(&[count], seed, element), element);
        let at = |t: &Tensor| (t * 4.0).unwrap().round().unwrap();
        Array::of(&at(&map.tensor(&random(&[count], seed))), element)
    };
    let (x, y) = (sharp(1), sharp(2));
    let channel = |seed| float(&rounded(&[c], seed, Element::F32));
    let [weight, bias, mean, inv_std] = [3, 4, 5, 6].map(channel);
    // Of sizes so different that another order gives another sum.
    let part = |i: u64| {
        let size = [1e-3, 1e3, 1.0, 1e-1][i as usize % 4];
        Array::of(
            &(rounded(&[count], 10 + i, element) * size).unwrap(),
            element,
        )
    };
    let arrays: Vec<_> = (0..).map(part).take(parts.len()).collect();
    let parts = parts.iter().zip(&arrays);
    let parts: Vec<_> = parts
        .map(|(&(first, len), array)| Part {
            x: array.at(),
            first,
            len,
        })
        .collect();
    let sum = Array::empty(count, element);
    let [dx, behind] = [(); 2].map(|()| Array::empty(count, element));
    let float = |len| Array::empty(len, Element::F32);
    let (scratch, coefficients, dp) = (float(shape.scratch()), float(3 * c), float(2 * c));
    let of_sum = [whole(&sum)];
    let from = norm::Incoming {
        x: x.at(),
        y: if relu && residual { y.at() } else { NULL },
        dy: if before { &of_sum } else { &parts },
        weight: weight.at(),
        bias: if relu && !residual { bias.at() } else { NULL },
        mean: mean.at(),
        inv_std: inv_std.at(),
        own: true,
    };
    let to = norm::Outgoing {
        scratch: scratch.at(),
        coefficients: coefficients.at(),
        d_params: dp.at(),
        dx: dx.at(),
        behind: behind.at(),
    };
    // SAFETY: all arrays have the lengths that the functions ask for.
    unsafe {
        mixskd_cuda::sum::parts(&Emulator, element, &parts, sum.at(), count).unwrap();
        norm::backward(&Emulator, shape, from, to).unwrap();
    }
    let bits = |array: &Array| {
        let values = array.tensor(&Tensor::zeros(array.len, DType::F64, &Device::Cpu).unwrap());
        let values = values.to_vec1::<f64>().unwrap();
        values.into_iter().map(f64::to_bits).collect()
    };
    // One that is whole and that no ReLU's output is read for is what it was.
    let behind = if from.gathers() { &behind } else { &sum };
    let behind = if relu && !residual { &dx } else { behind };
    vec![bits(&dx), bits(behind), bits(&dp)]
}

#[test]
fn gradients_that_are_added_up_on_the_way_have_the_bits_of_their_sum() {
    for element in ELEMENTS {
        for dims in [[2, 5, 7, 64], [2, 3, 5, 5], [4, 11, 17, 24]] {
            let count: usize = dims.iter().product();
            let half = count / 2;
            let (all, first, second) = ((0, count), (0, half), (half, count - half));
            for parts in [
                &[all, all][..],
                &[first, second],
                &[second, all, first],
                &[all, all, all, second],
            ] {
                for form in [[true, true], [true, false], [false, true]] {
                    let got =
                        [true, false].map(|way| norm_gradients(dims, element, form, parts, way));
                    assert!(got[0] == got[1], "{element:?} {dims:?} {parts:?} {form:?}");
                }
            }
        }
    }
}

#[test]
fn running_statistics() {
    let channels = 300;
    let at = |seed| (rounded(&[channels], seed, Element::F32) + 1.5).unwrap();
    let [mean, var] = [11, 12].map(|seed| Var::from_tensor(&at(seed)).unwrap());
    let [to_mean, to_var] = [&mean, &var].map(|t| float(t));
    let stats = BatchStats {
        mean: at(13),
        var: at(14),
        count: 50,
    };
    move_running(&mean, &var, &stats, 0.1).unwrap();
    let batch = [float(&stats.mean), float(&stats.var)];
    let layer = norm::Running {
        channels,
        momentum: 0.1,
        unbiased: 50.0 / 49.0,
        batch: [batch[0].at(), batch[1].at()],
        running: [to_mean.at(), to_var.at()],
    };
    let ones = Tensor::ones(3, DType::F64, &Device::Cpu).unwrap();
    // More layers than a launch has room for, the others with fewer channels and arrays of their own.
    let others: Vec<_> = (0..100).map(|_| [float(&ones), float(&ones)]).collect();
    let mut layers = vec![layer];
    layers.extend(others.iter().map(|to| norm::Running {
        channels: 3,
        running: [to[0].at(), to[1].at()],
        ..layer
    }));
    // SAFETY: all arrays have a float for each channel.
    unsafe { norm::advance(&Emulator, &layers) }.unwrap();
    let firsts = |t: &Tensor| (t.narrow(0, 0, 3).unwrap() * 0.1).unwrap();
    let moved = (firsts(&stats.mean) + 0.9).unwrap();
    for [mean, _] in &others {
        check(mean, &moved, "another layer's running mean");
    }
    check(&to_mean, &mean, "running mean");
    check(&to_var, &var, "running variance");
}
