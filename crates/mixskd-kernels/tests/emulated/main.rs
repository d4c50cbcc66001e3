//! The CUDA kernels, run thread by thread on the processor, beside the CPU's kernels: results and gradients, in float and in
//! bfloat16, with what a GPU is given as launches and arguments. What is not shown here is what only a GPU has: real concurrency,
//! its rounding of exp and log, cuDNN, and candle's own CUDA operations.
#![allow(clippy::unwrap_used)]

mod array;
#[path = "../common/mod.rs"]
mod common;
mod optim;
mod sum;

use array::{Array, INCOMING, check, float, incoming, of_one, one, rounded, var};
use candle_core::{DType, Device, Tensor, Var};
use common::random;
use mixskd_cuda::loss::{Gradient, Logits, MeanSquare, Target};
use mixskd_cuda::pool::{GlobalPool, Pool, Reduction};
use mixskd_cuda::sum::Part;
use mixskd_cuda::update::{Draws, Images, Pairs, Turn};
use mixskd_cuda::{Address, Element, Emulator, NULL, norm, update};
use mixskd_kernels::{
    BATCH_NORM_EPS, BatchStats, Pool2dConfig, avg_pool2d, batch_norm_eval, batch_norm_train,
    cross_entropy, global_avg_pool2d, interpolate, interpolated_mse, kl_divergence, max_pool2d,
    mix_cross_entropy, move_running, mse, soft_cross_entropy,
};

const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];

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

#[test]
fn pools() {
    for element in ELEMENTS {
        for (dims, kernel, stride, padding) in [
            ([2, 7, 6, 5], 3, 2, 1),
            ([1, 8, 8, 3], 2, 2, 0),
            ([2, 5, 5, 4], 3, 1, 1),
            ([1, 9, 7, 2], 2, 3, 0),
        ] {
            let config = Pool2dConfig {
                kernel,
                stride,
                padding,
            };
            // Five values in all: windows have several maxima, of which the first counts.
            let few = (rounded(&dims, 1, element) * 2.0).unwrap().round().unwrap();
            let x = var(&few);
            for reduction in [Reduction::Max, Reduction::Mean] {
                let y = match reduction {
                    Reduction::Max => max_pool2d(&x, config),
                    Reduction::Mean => avg_pool2d(&x, config),
                };
                let y = y.unwrap();
                let dy = rounded(y.dims(), 2, element);
                let gradients = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
                let pool = Pool {
                    batch: dims[0],
                    input: (dims[1], dims[2]),
                    output: (y.dims()[1], y.dims()[2]),
                    channels: dims[3],
                    kernel,
                    stride,
                    padding,
                    reduction,
                    element,
                };
                let [ax, ady] = [x.as_tensor(), &dy].map(|t| Array::of(t, element));
                let (ay, adx) = (
                    Array::empty(ady.len, element),
                    Array::empty(ax.len, element),
                );
                // SAFETY: the arrays are as long as the sizes say.
                unsafe {
                    pool.forward(&Emulator, ax.at(), ay.at()).unwrap();
                    pool.backward(&Emulator, ax.at(), ady.at(), adx.at())
                        .unwrap();
                }
                let what = format!("{reduction:?} {dims:?} {config:?}");
                check(&ay, &y, &format!("{what}: y"));
                check(&adx, gradients.get(&x).unwrap(), &format!("{what}: dx"));
            }
        }
        let x = var(&rounded(&[3, 5, 4, 37], 3, element));
        let y = global_avg_pool2d(&x).unwrap();
        let dy = rounded(y.dims(), 4, element);
        let gradients = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let pool = GlobalPool {
            means: element,
            batch: 3,
            pixels: 20,
            channels: 37,
            element,
        };
        let [ax, ady] = [x.as_tensor(), &dy].map(|t| Array::of(t, element));
        let (ay, adx) = (
            Array::empty(ady.len, element),
            Array::empty(ax.len, element),
        );
        // SAFETY: the arrays are as long as the sizes say.
        unsafe {
            pool.forward(&Emulator, ax.at(), ay.at()).unwrap();
            pool.backward(&Emulator, ady.at(), adx.at()).unwrap();
        }
        check(&ay, &y, "global pool: y");
        check(&adx, gradients.get(&x).unwrap(), "global pool: dx");
    }
}

fn u32s(values: &[u32]) -> (Tensor, Address) {
    let tensor = Tensor::new(values, &Device::Cpu).unwrap();
    (tensor, values.as_ptr() as Address)
}

fn loss_case(z: &Var, logits: Logits, target: Target, loss: &Tensor, what: &str) {
    let gradients = (loss * INCOMING).unwrap().backward().unwrap();
    let az = Array::of(z, logits.element);
    let (scratch, value) = (Array::empty(logits.rows, Element::F32), one());
    let (g, dz) = (incoming(), Array::empty(az.len, logits.element));
    // SAFETY: the arrays are as long as the sizes say.
    unsafe {
        logits
            .forward(&Emulator, az.at(), target, scratch.at(), value.at())
            .unwrap();
        logits
            .backward(&Emulator, az.at(), target, of_one(&g), dz.at())
            .unwrap();
        // A gradient that the host knows.
        let (at, factor) = (NULL, INCOMING as f32);
        let again = Array::empty(az.len, logits.element);
        logits
            .backward(
                &Emulator,
                az.at(),
                target,
                Gradient { at, factor },
                again.at(),
            )
            .unwrap();
        let [got, want] = [&again, &dz].map(|array| array.tensor(z).flatten_all().unwrap());
        assert_eq!(
            got.to_vec1::<f64>().unwrap(),
            want.to_vec1::<f64>().unwrap()
        );
    }
    check(&value, &loss.reshape(1).unwrap(), &format!("{what}: loss"));
    check(&dz, gradients.get(z).unwrap(), &format!("{what}: dz"));
}

#[test]
fn losses_on_logits() {
    for element in ELEMENTS {
        for (rows, classes) in [(5, 100), (3, 7), (2, 1000)] {
            let spread = |seed| (rounded(&[rows, classes], seed, element) * 8.0).unwrap();
            let z = var(&spread(1));
            let logits = Logits {
                rows,
                classes,
                element,
            };
            let own: Vec<u32> = (0..rows as u32).map(|i| i * 3 % classes as u32).collect();
            let other: Vec<u32> = (0..rows as u32)
                .map(|i| (i * 5 + 1) % classes as u32)
                .collect();
            let ((labels, own), (partners, other)) = (u32s(&own), u32s(&other));
            let lambda = ((random(&[rows], 2) + 1.0).unwrap() / 2.0).unwrap();
            let shares = float(&lambda);
            let what = format!("{rows}×{classes}");

            let loss = cross_entropy(&z, &labels).unwrap();
            let target = Target::Labels {
                own,
                partner: NULL,
                lambda: NULL,
            };
            loss_case(&z, logits, target, &loss, &format!("cross-entropy {what}"));
            let loss = mix_cross_entropy(&z, &labels, &partners, &lambda).unwrap();
            let target = Target::Labels {
                own,
                partner: other,
                lambda: shares.at(),
            };
            loss_case(&z, logits, target, &loss, &format!("mix {what}"));

            let soft = ((rounded(&[rows, classes], 3, element) + 1.0).unwrap() / 4.0).unwrap();
            let array = Array::of(&soft, element);
            let soft = array.tensor(&soft);
            let loss = soft_cross_entropy(&z, &soft).unwrap();
            loss_case(
                &z,
                logits,
                Target::Soft(array.at()),
                &loss,
                &format!("soft {what}"),
            );

            let teacher = spread(4);
            let array = Array::of(&teacher, element);
            let loss = kl_divergence(&z, &teacher, 3.0).unwrap();
            let target = Target::Teacher(array.at(), 3.0);
            loss_case(&z, logits, target, &loss, &format!("KL {what}"));
        }
    }
}

#[test]
fn mean_squares_and_interpolation() {
    // Not a permutation: sample 1 is the partner of three.
    let partner = [2u32, 1, 1, 0, 1];
    let (pi, pi_at) = u32s(&partner);
    let lambda = ((random(&[5], 9) + 1.0).unwrap() / 2.0).unwrap();
    let shares = float(&lambda);
    for element in ELEMENTS {
        for rest in [[3, 3, 7], [17, 16, 8], [1, 1, 1]] {
            let dims = [&[5][..], &rest].concat();
            let length = rest.iter().product();
            let (x, y) = (
                var(&rounded(&dims, 1, element)),
                var(&rounded(&dims, 2, element)),
            );
            let [ax, ay] = [&x, &y].map(|t| Array::of(t, element));
            let [first, second, back] = [(); 3].map(|()| Array::empty(ax.len, element));
            let g = incoming();
            for paired in [false, true] {
                let loss = if paired {
                    interpolated_mse(&x, &pi, &lambda, &y).unwrap()
                } else {
                    mse(&x, &y).unwrap()
                };
                let gradients = (&loss * INCOMING).unwrap().backward().unwrap();
                let square = MeanSquare {
                    rows: if paired { 5 } else { 1 },
                    length: if paired { length } else { 5 * length },
                    partner: if paired { pi_at } else { NULL },
                    lambda: if paired { shares.at() } else { NULL },
                    element,
                };
                let (scratch, value) =
                    (Array::empty(square.scratch().unwrap(), Element::F32), one());
                let pairs = Pairs {
                    batch: 5,
                    length,
                    partner: pi_at,
                    lambda: shares.at(),
                    element,
                };
                // SAFETY: the arrays are as long as the sizes say.
                unsafe {
                    square
                        .forward(&Emulator, ax.at(), ay.at(), scratch.at(), value.at())
                        .unwrap();
                    let to = [first.at(), second.at()];
                    square
                        .backward(&Emulator, ax.at(), ay.at(), of_one(&g), to)
                        .unwrap();
                    update::interpolate_backward(&Emulator, pairs, first.at(), 1.0, back.at())
                        .unwrap();
                }
                let what = format!("mean square {dims:?} paired {paired}");
                check(&value, &loss.reshape(1).unwrap(), &what);
                let dx = if paired { &back } else { &first };
                check(dx, gradients.get(&x).unwrap(), &format!("{what}: dx"));
                check(&second, gradients.get(&y).unwrap(), &format!("{what}: dy"));
            }
            let mixed = interpolate(&x, &pi, &lambda).unwrap();
            let gradients = (&mixed * y.as_tensor())
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            let pairs = Pairs {
                batch: 5,
                length,
                partner: pi_at,
                lambda: shares.at(),
                element,
            };
            // SAFETY: as above.
            unsafe {
                update::interpolate(&Emulator, pairs, ax.at(), first.at()).unwrap();
                update::interpolate_backward(&Emulator, pairs, ay.at(), 1.0, back.at()).unwrap();
            }
            check(&first, &mixed, "interpolation");
            check(&back, gradients.get(&x).unwrap(), "interpolation: dx");
        }
    }
}

#[test]
fn weights_change_order_and_back() {
    for element in ELEMENTS {
        let w = rounded(&[5, 3, 2, 4], 1, element);
        let turned = w.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let large = rounded(&[40, 20, 3, 3], 2, element);
        let (from, to, back) = (float(&w), Array::empty(120, element), one_of(120));
        let other = (float(&large), Array::empty(7200, element), one_of(7200));
        let turn = |out, input, taps, from: &Array, to: &Array| Turn {
            out,
            input,
            taps,
            from: from.at(),
            to: to.at(),
        };
        // More weights than a launch has room for.
        let mut first = vec![turn(40, 20, 9, &other.0, &other.1); 130];
        first.push(turn(5, 3, 8, &from, &to));
        let last = [
            turn(5, 3, 8, &to, &back),
            turn(40, 20, 9, &other.1, &other.2),
        ];
        // SAFETY: the arrays have as many numbers as the sizes say.
        unsafe {
            update::taps_first(&Emulator, element, &first).unwrap();
            update::taps_last(&Emulator, element, &last).unwrap();
        }
        assert_eq!(common::values(&to.tensor(&turned)), common::values(&turned));
        assert_eq!(common::values(&back.tensor(&w)), common::values(&w));
        assert_eq!(
            common::values(&other.2.tensor(&large)),
            common::values(&large)
        );
    }
}

fn one_of(len: usize) -> Array {
    Array::empty(len, Element::F32)
}

#[test]
fn batches_of_images() {
    let (n, h, w, c) = (4usize, 6usize, 5usize, 3usize);
    let pixels: Vec<u8> = (0..n * h * w * c).map(|i| (i * 37 % 256) as u8).collect();
    let (mean, deviation) = ([0.5f64, 0.4, 0.3], [0.2f64, 0.25, 0.3]);
    let array = |values: [f64; 3]| float(&Tensor::new(&values, &Device::Cpu).unwrap());
    let (means, inverses) = (array(mean), array(deviation.map(|d| 1.0 / d)));
    let (index, flip) = ([3u32, 0, 2], [0u32, 1, 1]);
    let (top, left) = ([-1i32, 0, 2], [1i32, -2, 0]);
    for (element, black) in ELEMENTS.into_iter().flat_map(|e| [(e, false), (e, true)]) {
        let mut want = vec![];
        for (b, y, x, k) in
            (0..3 * h * w * c).map(|i| (i / c / w / h, i / c / w % h, i / c % w, i % c))
        {
            let x = if flip[b] == 1 { w - 1 - x } else { x };
            let (y, x) = (y as i32 + top[b], x as i32 + left[b]);
            let inside = (0..h as i32).contains(&y) && (0..w as i32).contains(&x);
            let value = if inside {
                let at = ((index[b] as usize * h + y as usize) * w + x as usize) * c + k;
                f64::from(pixels[at]) / 255.0
            } else {
                0.0
            };
            want.push(if inside || black {
                (value - mean[k]) / deviation[k]
            } else {
                0.0
            });
        }
        let want = Tensor::from_vec(want, (3, h, w, c), &Device::Cpu).unwrap();
        let images = Images {
            pixels: pixels.as_ptr() as Address,
            size: (h, w),
            channels: c,
            mean: means.at(),
            inv_std: inverses.at(),
        };
        let draws = Draws {
            batch: 3,
            index: index.as_ptr() as Address,
            top: top.as_ptr() as Address,
            left: left.as_ptr() as Address,
            flip: flip.as_ptr() as Address,
            black,
        };
        let got = Array::empty(3 * h * w * c, element);
        // SAFETY: the arrays are as their fields say.
        unsafe { images.batch(&Emulator, draws, (h, w), element, got.at()) }.unwrap();
        check(&got, &want, "batch of images");
    }
}

#[test]
fn what_cannot_run_is_said() {
    let logits = Logits {
        rows: usize::MAX / 8,
        classes: 1,
        element: Element::F32,
    };
    // SAFETY: refused before anything is read.
    let error = unsafe { logits.forward(&Emulator, 0, Target::Soft(0), 0, 0) }.unwrap_err();
    assert!(error.to_string().contains("hint:"), "{error}");
}
