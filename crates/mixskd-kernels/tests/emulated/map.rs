//! Activations, numbers for each channel, channels taken and shuffled, pooling by attention.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use mixskd_cuda::map::{self, Activation, AttentionPool, PerChannel, Taken};
use mixskd_cuda::{Element, Emulator, NULL};
use mixskd_kernels::{
    add_bias, attention_pool2d, relu, relu6, scale_channels, shift_channels, shuffle_channels,
    sigmoid, silu, slice_channels, tanh,
};

use crate::ELEMENTS;
use crate::array::{Array, check, rounded, var};

/// `y`'s gradient, and those of what it was made of.
fn back(y: &Tensor, element: Element) -> (Tensor, Array, GradStore) {
    let dy = rounded(y.dims(), 77, element);
    let gradients = (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let array = Array::of(&dy, element);
    (dy, array, gradients)
}

fn like(t: &Tensor, element: Element) -> Array {
    Array::empty(t.elem_count(), element)
}

#[test]
fn activations() {
    type Known = fn(&Tensor) -> mixskd_kernels::Result<Tensor>;
    let all: [(Activation, Known); 5] = [
        (Activation::Relu, relu),
        (Activation::Relu6, relu6),
        (Activation::Silu, silu),
        (Activation::Sigmoid, sigmoid),
        (Activation::Tanh, tanh),
    ];
    for element in ELEMENTS {
        for (activation, known) in all {
            // A whole number of packs, and not.
            for len in [512, 37] {
                let x = var(&(rounded(&[len], 1, element) * 8.0).unwrap());
                let y = known(&x).unwrap();
                let (_, ady, gradients) = back(&y, element);
                let ax = Array::of(&x, element);
                let (ay, adx) = (like(&x, element), like(&x, element));
                // SAFETY: all are as long.
                unsafe {
                    activation
                        .forward(&Emulator, element, len, ax.at(), ay.at())
                        .unwrap();
                    let from = [ax.at(), ady.at()];
                    activation
                        .backward(&Emulator, element, len, from, adx.at())
                        .unwrap();
                }
                check(&ay, &y, &format!("{activation:?} of {len}"));
                let dx = gradients.get(&x).unwrap();
                check(&adx, dx, &format!("{activation:?} of {len}: dx"));
            }
        }
    }
}

/// Where each function ends, a NaN stays one, and nothing overflows.
#[test]
fn activations_at_the_ends() {
    let x = [f32::NAN, -1e30, -200.0, 0.0, 6.0, 200.0, 1e30];
    let given = Tensor::new(&x, &candle_core::Device::Cpu).unwrap();
    let ax = Array::of(&given, Element::F32);
    let one = Array::of(&given.ones_like().unwrap(), Element::F32);
    for (activation, values, slopes) in [
        (
            Activation::Relu,
            [0.0, 0.0, 0.0, 6.0, 200.0, 1e30],
            [0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        ),
        (Activation::Relu6, [0.0, 0.0, 0.0, 6.0, 6.0, 6.0], [0.0; 6]),
        (
            Activation::Silu,
            [0.0, 0.0, 0.0, 5.985_164, 200.0, 1e30],
            [0.0, 0.0, 0.5, 1.012_326_5, 1.0, 1.0],
        ),
        (
            Activation::Sigmoid,
            [0.0, 0.0, 0.5, 0.997_527_4, 1.0, 1.0],
            [0.0, 0.0, 0.25, 0.002_466_5, 0.0, 0.0],
        ),
        (
            Activation::Tanh,
            [-1.0, -1.0, 0.0, 0.999_987_7, 1.0, 1.0],
            [0.0, 0.0, 1.0, 2.457_7e-5, 0.0, 0.0],
        ),
    ] {
        let (y, dx) = (like(&given, Element::F32), like(&given, Element::F32));
        // SAFETY: all are as long.
        unsafe {
            activation
                .forward(&Emulator, Element::F32, x.len(), ax.at(), y.at())
                .unwrap();
            let from = [ax.at(), one.at()];
            activation
                .backward(&Emulator, Element::F32, x.len(), from, dx.at())
                .unwrap();
        }
        let got = |array: &Array| crate::common::values(&array.tensor(&given));
        assert!(got(&y)[0].is_nan(), "{activation:?}");
        for (got, want) in got(&y)[1..].iter().zip(values) {
            assert!(
                (got - want).abs() <= 1e-6 * want.abs().max(1.0),
                "{activation:?}: {got}, not {want}"
            );
        }
        for (got, want) in got(&dx)[1..].iter().zip(slopes) {
            assert!(
                (got - want).abs() <= 1e-6,
                "{activation:?}: slope {got}, not {want}"
            );
        }
    }
}

fn per_channel_case(dims: [usize; 4], element: Element, numbers: Element, what: &str) {
    let [batch, h, w, channels] = dims;
    let x = var(&rounded(&dims, 1, element));
    let bias = what == "bias";
    let shape: &[usize] = if bias {
        &[channels]
    } else {
        &[batch, channels]
    };
    let v = var(&rounded(shape, 2, numbers));
    let y = match what {
        "scale" => scale_channels(&x, &v),
        "shift" => shift_channels(&x, &v),
        _ => add_bias(&x, &v),
    }
    .unwrap();
    let (_, ady, gradients) = back(&y, element);
    let each = PerChannel {
        sets: if bias { 1 } else { batch },
        pixels: if bias { batch * h * w } else { h * w },
        channels,
        element,
        numbers,
    };
    let times = what == "scale";
    let (ax, av) = (Array::of(&x, element), Array::of(&v, numbers));
    let (ay, adx, sums) = (like(&x, element), like(&x, element), like(&v, numbers));
    // SAFETY: the arrays are as long as the sizes say.
    unsafe {
        each.forward(&Emulator, [ax.at(), av.at()], times, ay.at())
            .unwrap();
        each.forward(&Emulator, [ady.at(), av.at()], true, adx.at())
            .unwrap();
        let read = if times { ax.at() } else { NULL };
        each.sums(&Emulator, [read, ady.at()], sums.at()).unwrap();
    }
    check(&ay, &y, &format!("{what} {dims:?}"));
    if times {
        check(&adx, gradients.get(&x).unwrap(), &format!("{what}: dx"));
    }
    check(&sums, gradients.get(&v).unwrap(), &format!("{what}: sums"));
}

#[test]
fn numbers_for_each_channel() {
    for (element, numbers) in [
        (Element::F32, Element::F32),
        (Element::Bf16, Element::Bf16),
        (Element::Bf16, Element::F32),
    ] {
        for dims in [[3, 5, 4, 40], [2, 1, 1, 7], [1, 9, 3, 33]] {
            for what in ["scale", "shift", "bias"] {
                per_channel_case(dims, element, numbers, what);
            }
        }
    }
}

#[test]
fn channels_taken_and_shuffled() {
    for element in ELEMENTS {
        for (first, count) in [(8, 16), (0, 24), (3, 10), (23, 1)] {
            let x = var(&rounded(&[2, 3, 3, 24], 1, element));
            let y = slice_channels(&x, first, count).unwrap();
            let (_, ady, gradients) = back(&y, element);
            let taken = Taken {
                pixels: 18,
                channels: 24,
                first,
                count,
                element,
            };
            let ax = Array::of(&x, element);
            let (ay, adx) = (like(&y, element), like(&x, element));
            // SAFETY: the arrays are as long as the sizes say.
            unsafe {
                taken.copy(&Emulator, ax.at(), false, ay.at()).unwrap();
                taken.copy(&Emulator, ady.at(), true, adx.at()).unwrap();
            }
            check(&ay, &y, "taken");
            check(&adx, gradients.get(&x).unwrap(), "taken: dx");
        }
        for (channels, groups) in [(24, 2), (15, 5), (6, 1), (6, 6)] {
            let x = var(&rounded(&[2, 3, 2, channels], 1, element));
            let y = shuffle_channels(&x, groups).unwrap();
            let (_, ady, gradients) = back(&y, element);
            let ax = Array::of(&x, element);
            let (ay, adx) = (like(&y, element), like(&x, element));
            // SAFETY: as above.
            unsafe {
                let sizes = (12, channels, groups);
                map::shuffle_channels(&Emulator, element, sizes, ax.at(), ay.at()).unwrap();
                let sizes = (12, channels, channels / groups);
                map::shuffle_channels(&Emulator, element, sizes, ady.at(), adx.at()).unwrap();
            }
            check(&ay, &y, "shuffled");
            check(&adx, gradients.get(&x).unwrap(), "shuffled: dx");
        }
    }
}

#[test]
fn attention() {
    for element in ELEMENTS {
        for dims in [[3, 5, 4, 40], [2, 1, 1, 7], [2, 17, 16, 33]] {
            let [batch, h, w, channels] = dims;
            let x = var(&rounded(&dims, 1, element));
            let far = (rounded(&[batch, h, w, 1], 2, element) * 16.0).unwrap();
            let scores: Var = var(&far);
            let y = attention_pool2d(&x, &scores).unwrap();
            let (_, ady, gradients) = back(&y, element);
            let sizes = AttentionPool {
                batch,
                pixels: h * w,
                channels,
                element,
            };
            let (ax, scored) = (Array::of(&x, element), Array::of(&scores, element));
            let [shares, products] = [(); 2].map(|()| like(&scores, Element::F32));
            let (ay, adx, ds) = (like(&y, element), like(&x, element), like(&scores, element));
            // SAFETY: the arrays are as long as the sizes say.
            unsafe {
                let from = [ax.at(), scored.at()];
                sizes
                    .forward(&Emulator, from, shares.at(), ay.at())
                    .unwrap();
                let from = [ax.at(), ady.at(), shares.at()];
                sizes
                    .backward(&Emulator, from, products.at(), [adx.at(), ds.at()])
                    .unwrap();
            }
            check(&ay, &y, &format!("attention {dims:?}"));
            check(&adx, gradients.get(&x).unwrap(), "attention: dx");
            let want = gradients.get(&scores).unwrap();
            if h * w > 1 {
                check(&ds, want, "attention: scores");
            }
        }
    }
}
