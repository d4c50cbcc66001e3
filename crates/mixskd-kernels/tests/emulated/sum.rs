//! Sums, what surrounds a matrix product, joined channels.

use candle_core::Tensor;
use mixskd_cuda::sum::{self, MOST_NUMBERS, MOST_PARTS, Part, TwoSides};
use mixskd_cuda::{Element, Emulator, NULL};

use crate::array::{Array, check, float, of_one, rounded};
use crate::{ELEMENTS, random};

/// A part of every kind: the whole, one from the middle, one up to the end; lengths with packs and without.
#[test]
fn parts_are_added_where_they_belong() {
    for element in ELEMENTS {
        for (len, first, own) in [(64, 16, 24), (63, 5, 17)] {
            let whole = rounded(&[len], 1, element);
            let middle = rounded(&[own], 2, element);
            let end = rounded(&[own], 3, element);
            let pad = |x: &Tensor, at: usize| x.pad_with_zeros(0, at, len - at - own).unwrap();
            for with_whole in [true, false] {
                let mut want = (pad(&middle, first) + pad(&end, len - own)).unwrap();
                let arrays = [&whole, &middle, &end].map(|x| Array::of(x, element));
                let part = |i: usize, first| {
                    let (x, len) = (arrays[i].at(), arrays[i].len);
                    Part { x, first, len }
                };
                let mut parts = vec![part(1, first), part(2, len - own)];
                if with_whole {
                    want = (want + &whole).unwrap();
                    parts.push(part(0, 0));
                }
                let y = Array::empty(len, element);
                // SAFETY: each part has its length, and ends within the sum.
                unsafe { sum::parts(&Emulator, element, &parts, y.at(), len) }.unwrap();
                check(&y, &want, "sum of parts");
            }
        }
    }
}

#[test]
fn channels_are_joined_and_parted() {
    for element in ELEMENTS {
        for channels in [[8usize, 16, 8], [3, 5, 2]] {
            let pixels = 7;
            let maps: Vec<Tensor> = (0..3)
                .map(|i| rounded(&[pixels, channels[i]], i as u64, element))
                .collect();
            let want = Tensor::cat(&maps, 1).unwrap();
            let sizes = (pixels, channels.iter().sum());
            let arrays: Vec<Array> = maps.iter().map(|map| Array::of(map, element)).collect();
            let parts = |arrays: &[Array]| -> Vec<Part> {
                let first = |i| channels[..i].iter().sum();
                let part = |(i, array): (usize, &Array)| Part {
                    x: array.at(),
                    first: first(i),
                    len: channels[i],
                };
                arrays.iter().enumerate().map(part).collect()
            };
            let y = Array::empty(sizes.0 * sizes.1, element);
            // SAFETY: the maps are as long as the parts say.
            unsafe { sum::join(&Emulator, element, &parts(&arrays), y.at(), sizes, false) }
                .unwrap();
            check(&y, &want, "joined");
            let back: Vec<Array> = arrays
                .iter()
                .map(|array| Array::empty(array.len, element))
                .collect();
            // SAFETY: as above.
            unsafe { sum::join(&Emulator, element, &parts(&back), y.at(), sizes, true) }.unwrap();
            for (array, map) in back.iter().zip(&maps) {
                check(array, map, "parted");
            }
        }
    }
}

#[test]
fn numbers_are_weighted() {
    let x = random(&[5], 4);
    let array = float(&x);
    let weights = [1.0f32, -2.0, 0.5, 0.0, 3.0];
    let all: Vec<_> = weights
        .iter()
        .enumerate()
        .map(|(i, &weight)| (array.at() + 4 * i as u64, weight))
        .collect();
    let weights = weights.map(f64::from);
    let want = (&x * Tensor::new(&weights, x.device()).unwrap()).unwrap();
    let (each, one) = (Array::empty(5, Element::F32), Array::empty(1, Element::F32));
    // SAFETY: every address is one float's.
    unsafe {
        sum::weighted(&Emulator, &all, each.at()).unwrap();
        sum::weighted_sum(&Emulator, &all, one.at()).unwrap();
    }
    check(&each, &want, "weighted");
    check(&one, &want.sum_all().unwrap(), "weighted sum");
    let many = vec![(array.at(), 1.0); MOST_NUMBERS + 1];
    // SAFETY: refused before anything is read.
    let error = unsafe { sum::weighted_sum(&Emulator, &many, one.at()) }.unwrap_err();
    assert!(error.to_string().contains("240 at most"), "{error}");
    let part = Part {
        x: array.at(),
        first: 0,
        len: 5,
    };
    // SAFETY: refused before anything is read.
    let error = unsafe {
        sum::parts(
            &Emulator,
            Element::F32,
            &[part; MOST_PARTS + 1],
            each.at(),
            5,
        )
    };
    assert!(error.unwrap_err().to_string().contains("16 at most"));
}

#[test]
fn what_surrounds_a_product() {
    let (rows, channels) = (19, 37);
    let (x, bias) = (random(&[rows, channels], 1), random(&[channels], 2));
    let dy = random(&[rows, channels], 3);
    let [ax, ab, ady] = [&x, &bias, &dy].map(float);
    let y = Array::empty(rows * channels, Element::F32);
    let size = (rows, channels);
    for (bias, want) in [
        (ab.at(), x.broadcast_add(&bias).unwrap()),
        (NULL, x.clone()),
    ] {
        // SAFETY: the arrays are as long as the sizes say.
        unsafe { sum::add_row(&Emulator, size, ax.at(), bias, y.at()) }.unwrap();
        check(&y, &want, "bias");
    }
    let sums = Array::empty(channels, Element::F32);
    // SAFETY: as above.
    unsafe {
        sum::columns(&Emulator, size, ady.at(), sums.at()).unwrap();
    }
    check(&sums, &dy.sum(0).unwrap(), "columns");
}

/// ½·mean softplus(s·a) + ½·mean softplus(−s·b) and its gradients, by the definition, far from 0 too.
#[test]
fn two_sides_of_a_discriminator() {
    let rows = 9;
    for answers in [1usize, 2] {
        let large = |seed| (random(&[rows, answers], seed) * 30.0).unwrap();
        let (a, b) = (large(1), large(2));
        let count = rows * answers;
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (va, vb) = (values(&a), values(&b));
        let softplus = |u: f64| u.max(0.0) + (-u.abs()).exp().ln_1p();
        let sigmoid = |u: f64| 1.0 / (1.0 + (-u).exp());
        let sign = |i: usize| if i.is_multiple_of(answers) { -1.0 } else { 1.0 };
        let g = 0.75;
        let scale = 0.5 / count as f64;
        let mut loss = 0.0;
        let (mut da, mut db) = (Vec::new(), Vec::new());
        for i in 0..count {
            let s = sign(i);
            loss += scale * (softplus(s * va[i]) + softplus(-s * vb[i]));
            da.push(g * scale * s * sigmoid(s * va[i]));
            db.push(-g * scale * s * sigmoid(-s * vb[i]));
        }
        let cpu = a.device();
        let want = |v: Vec<f64>| Tensor::from_vec(v, (rows, answers), cpu).unwrap();
        let sizes = TwoSides { rows, answers };
        let from = [float(&a), float(&b)];
        let to = [(); 2].map(|()| Array::empty(count, Element::F32));
        let (one, gradient) = (
            Array::empty(1, Element::F32),
            float(&Tensor::new(&[g], cpu).unwrap()),
        );
        // SAFETY: the arrays are as long as the sizes say.
        unsafe {
            let at = [from[0].at(), from[1].at()];
            sizes.forward(&Emulator, at, one.at()).unwrap();
            sizes
                .backward(&Emulator, at, of_one(&gradient), [to[0].at(), to[1].at()])
                .unwrap();
        }
        check(&one, &Tensor::new(&[loss], cpu).unwrap(), "loss");
        check(&to[0], &want(da), "first gradient");
        check(&to[1], &want(db), "second gradient");
    }
}
