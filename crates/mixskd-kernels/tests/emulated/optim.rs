//! The optimiser's update and the verdict on a step.

use candle_core::{DType, Device, Tensor};
use mixskd_cuda::optim::{self, Sgd, Slot, TurnedSlot, View};
use mixskd_cuda::{Element, Emulator, NULL};
use mixskd_kernels::{SgdConfig, sgd_step};

use super::array::{Array, check, float, lent, rounded, var};

/// More parameters than a launch has room for, some shorter than a block, some longer than what a block takes.
fn lengths() -> Vec<usize> {
    (0..130).map(|k| [1, 5, 300, 2048, 9500][k % 5]).collect()
}

fn values(array: &Array) -> Vec<f64> {
    let like = Tensor::zeros(array.len, DType::F32, &Device::Cpu).unwrap();
    array.tensor(&like).to_vec1().unwrap()
}

fn verdict_of(number: f32) -> Array {
    float(&Tensor::new(&[number], &Device::Cpu).unwrap())
}

#[test]
fn many_parameters_are_updated_as_one_by_one() {
    let config = SgdConfig {
        lr: 0.2,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-2,
    };
    for (nesterov, verdict) in [(false, None), (true, Some(1.0)), (true, Some(0.0))] {
        let config = SgdConfig { nesterov, ..config };
        let tensors: Vec<_> = (0u64..)
            .zip(lengths())
            .map(|(k, len)| [1, 2, 3].map(|seed| rounded(&[len], 3 * k + seed, Element::F32)))
            .collect();
        let arrays: Vec<_> = tensors.iter().map(|t| t.each_ref().map(float)).collect();
        let slots: Vec<_> = arrays
            .iter()
            .enumerate()
            .map(|(k, [p, g, v])| Slot {
                parameter: p.at(),
                gradient: g.at(),
                velocity: v.at(),
                len: p.len,
                factor: if k % 2 == 0 { 1.0 } else { 0.5 },
            })
            .collect();
        let sgd = Sgd {
            momentum: 0.9,
            decay: 5e-2,
            nesterov,
        };
        let lr = float(&Tensor::new(&[0.2f32], &Device::Cpu).unwrap());
        let verdict = verdict.map(verdict_of);
        let at = verdict.as_ref().map_or(NULL, Array::at);
        // SAFETY: all arrays have the lengths that the slots say.
        unsafe { sgd.step(&Emulator, &slots, lr.at(), at) }.unwrap();
        let left_out = verdict.as_ref().is_some_and(|v| values(v) == [0.0]);
        for (k, ([p, g, v], [ap, _, av])) in tensors.iter().zip(&arrays).enumerate() {
            let (p, v) = (var(p), var(v));
            if !left_out {
                let lr = if k % 2 == 0 { 0.2 } else { 0.1 };
                sgd_step(&p, g, &v, SgdConfig { lr, ..config }).unwrap();
            }
            check(ap, &p, &format!("parameter {k}"));
            check(av, &v, &format!("velocity {k}"));
        }
    }
}

/// Windows of one pixel and of many, fewer pairs than a block has and more, more weights than a launch has room for.
#[test]
fn weights_beside_their_parameters_are_updated_with_them() {
    let config = SgdConfig {
        lr: 0.2,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-2,
    };
    let sgd = Sgd {
        momentum: 0.9,
        decay: 5e-2,
        nesterov: true,
    };
    let shapes: Vec<[usize; 4]> = (0..75)
        .map(|k| [[3, 2, 3, 3], [40, 70, 1, 1], [20, 33, 3, 3], [2, 3, 5, 7]][k % 4])
        .collect();
    let lr = float(&Tensor::new(&[0.2f32], &Device::Cpu).unwrap());
    for element in [Element::F32, Element::Bf16] {
        for verdict in [None, Some(0.0)] {
            let weights: Vec<_> = (0u64..)
                .zip(&shapes)
                .map(|(k, shape)| {
                    let [p, v] = [1, 2].map(|seed| rounded(shape, 3 * k + seed, Element::F32));
                    let g = rounded(shape, 3 * k, element);
                    let as_made = g.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
                    let arrays = [float(&p), float(&v), Array::of(&as_made, element)];
                    let turned = Array::empty(g.elem_count(), element);
                    (p, v, g, arrays, turned)
                })
                .collect();
            let slot = |(k, (_, _, g, [p, v, as_made], turned)): (
                usize,
                &(_, _, Tensor, [Array; 3], Array),
            )| {
                let (out, input, height, width) = g.dims4().unwrap();
                TurnedSlot {
                    parameter: p.at(),
                    gradient: as_made.at(),
                    velocity: v.at(),
                    turned: turned.at(),
                    out,
                    input,
                    taps: height * width,
                    factor: if k % 2 == 0 { 1.0 } else { 0.5 },
                }
            };
            let slots: Vec<_> = weights.iter().enumerate().map(slot).collect();
            let verdict = verdict.map(verdict_of);
            let at = verdict.as_ref().map_or(NULL, Array::at);
            // SAFETY: all arrays have the sizes that the slots say.
            unsafe { sgd.step_turned(&Emulator, element, &slots, lr.at(), at) }.unwrap();
            for (k, (p, v, g, [got_p, got_v, _], turned)) in weights.iter().enumerate() {
                let (p, v) = (var(p), var(v));
                if verdict.is_some() {
                    // Not even what nobody has written yet.
                    assert!(values(turned).iter().all(|x| x.is_nan()), "{k}");
                } else {
                    let lr = if k % 2 == 0 { 0.2 } else { 0.1 };
                    sgd_step(&p, g, &v, SgdConfig { lr, ..config }).unwrap();
                    let dtype = match element {
                        Element::F32 => DType::F32,
                        Element::Bf16 => DType::BF16,
                    };
                    let want = got_p.tensor(&p).permute((0, 2, 3, 1)).unwrap();
                    let want = want.to_dtype(DType::F32).unwrap().to_dtype(dtype);
                    let want = want.unwrap().to_dtype(DType::F64).unwrap();
                    let want = want.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                    assert!(values(turned) == want, "{k}");
                }
                check(got_p, &p, &format!("parameter {k}"));
                check(got_v, &v, &format!("velocity {k}"));
            }
        }
    }
}

#[test]
fn one_value_that_is_not_finite_is_seen() {
    let lengths: Vec<_> = lengths().into_iter().chain(lengths()).collect();
    // Of an array: its first, its last, and one between them.
    let places: [fn(usize) -> usize; 3] = [|_| 0, |len| len - 1, |len| len / 2];
    for (spoiled, value) in [
        (None, 0.0),
        // Floats at even places, bfloat16 at odd ones.
        (Some(4), f32::NAN),
        (Some(3), f32::NAN),
        (Some(258), f32::INFINITY),
        (Some(259), f32::NEG_INFINITY),
        (Some(0), f32::MAX),
        (Some(0), -f32::MAX),
        (Some(1), 3e38),
    ] {
        // Where packs may begin, and where they may not.
        for (place, skip) in places.iter().flat_map(|place| [(place, 0), (place, 1)]) {
            let arrays: Vec<_> = lengths
                .iter()
                .enumerate()
                .map(|(k, &len)| {
                    let value_at = |i: usize| match spoiled {
                        Some(spoiled) if spoiled == k && i == place(len) => value,
                        _ => ((i + k) as f32 * 0.7).sin(),
                    };
                    // Gradients of both types, one after another. What lies before and behind is nobody's concern.
                    let element = [Element::F32, Element::Bf16][k % 2];
                    let mut all = vec![f32::NAN; skip];
                    all.extend((0..len).map(value_at));
                    all.push(f32::NAN);
                    let all = Tensor::new(all.as_slice(), &Device::Cpu).unwrap();
                    Array::of(&all, element)
                })
                .collect();
            let view = |a: &Array| View {
                at: a.at() + (skip * a.element.size()) as u64,
                len: a.len - skip - 1,
                element: a.element,
            };
            let views: Vec<_> = arrays.iter().map(view).collect();
            let room = optim::judge_scratch(lengths.iter().copied());
            let [scratch, verdict] = [room, 1].map(|len| Array::empty(len, Element::F32));
            let broken = verdict_of(0.0);
            let judge = |views: &[View], broken| {
                let (scratch, verdict) = (scratch.at(), verdict.at());
                // SAFETY: all arrays have the lengths that the function asks for.
                unsafe { optim::judge(&Emulator, views, scratch, verdict, broken) }.unwrap();
            };
            judge(&views, broken.at());
            let got = values(&verdict);
            let finite = value.is_finite();
            let number = |yes: bool| [f64::from(u8::from(yes))];
            assert_eq!(got, number(finite), "{spoiled:?}");
            // From the first bad one on all are, by whoever is told of it.
            assert_eq!(values(&broken), number(!finite));
            judge(&views[4..5], broken.at());
            assert_eq!(values(&verdict), got, "{spoiled:?}");
            judge(&views[4..5], NULL);
            assert_eq!(values(&verdict), number(spoiled != Some(4) || finite));
        }
    }
}

#[test]
fn hits_are_counted_and_the_first_of_equals_wins() {
    let rows = 300;
    let logits: Vec<f32> = (0..rows * 7).map(|i| ((i * 37) % 11) as f32).collect();
    let targets: Vec<u32> = (0..rows as u32).map(|i| i % 7).collect();
    let hit = |row: usize| {
        let row = (&logits[row * 7..row * 7 + 7], targets[row] as usize);
        let before = row.0[..row.1].iter().all(|&z| z < row.0[row.1]);
        before && row.0[row.1..].iter().all(|&z| z <= row.0[row.1])
    };
    let expected = (0..rows).filter(|&row| hit(row)).count();
    let z = float(&Tensor::from_slice(&logits, (rows, 7), &Device::Cpu).unwrap());
    let (scratch, hits) = (
        Array::empty(rows, Element::F32),
        Array::empty(1, Element::F32),
    );
    // SAFETY: the arrays have the sizes given.
    unsafe {
        let targets = lent(&targets);
        optim::count_hits(
            &Emulator,
            [rows, 7],
            [z.at(), targets],
            scratch.at(),
            hits.at(),
        )
        .unwrap();
    }
    assert_eq!(values(&hits), [expected as f64]);
    assert!(expected > 10);
}
