//! The CUDA kernels, run thread by thread on the processor, beside the CPU's kernels: results and gradients, in float and in
//! bfloat16, with what a GPU is given as launches and arguments. What is not shown here is what only a GPU has: real concurrency,
//! its rounding of exp and log, cuDNN, and candle's own CUDA operations.
#![allow(clippy::unwrap_used)]

mod array;
#[path = "../common/mod.rs"]
mod common;
mod map;
mod norm;
mod optim;
mod sum;

use array::{Array, INCOMING, check, float, incoming, lent, of_one, one, rounded, var};
use candle_core::{Device, Tensor, Var};
use common::random;
use mixskd_cuda::loss::{Gradient, Logits, MeanSquare, Target};
use mixskd_cuda::pool::{GlobalPool, Pool, Reduction};
use mixskd_cuda::update::{Draws, Images, Pairs, Turn};
use mixskd_cuda::{Address, Element, Emulator, NULL, update};
use mixskd_kernels::{
    Pool2dConfig, avg_pool2d, cross_entropy, global_avg_pool2d, interpolate, interpolated_mse,
    kl_divergence, max_pool2d, mix_cross_entropy, mse, soft_cross_entropy,
};

const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];

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
    (tensor, lent(values))
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
        let more: Vec<_> = (0..129).map(|_| Array::empty(7200, element)).collect();
        let all = more.iter().chain([&other.1]);
        let mut first: Vec<_> = all.map(|to| turn(40, 20, 9, &other.0, to)).collect();
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
            pixels: lent(&pixels),
            size: (h, w),
            channels: c,
            mean: means.at(),
            inv_std: inverses.at(),
        };
        let draws = Draws {
            batch: 3,
            index: lent(&index),
            top: lent(&top),
            left: lent(&left),
            flip: lent(&flip),
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
