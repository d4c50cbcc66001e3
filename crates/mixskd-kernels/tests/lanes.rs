//! Work side by side, with the processor in the GPU's place: what lanes share of memory, use by use, and that they change no bit.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use common::random;
use mixskd_kernels::{
    BATCH_NORM_EPS, Conv2dConfig, ConvWeights, Tape, add, batch_norm_train, collect, conv2d,
    cross_entropy, discriminator_loss, emulate_gpu, global_avg_pool2d, interpolated_mse,
    kl_divergence, landmark, linear, move_running, mse, races, relu, samples, side_by_side,
    unhurried, weighted_sum,
};

#[global_allocator]
static MEMORY: races::Allocator = races::Allocator;

/// Who watches is the whole process's.
static TURN: Mutex<()> = Mutex::new(());

fn var(shape: &[usize], seed: u64) -> Var {
    let values = random(shape, seed).to_dtype(DType::F32).unwrap();
    Var::from_tensor(&values).unwrap()
}

type Outcome = (Vec<Vec<f32>>, races::Found);

/// Loss and gradients of `work`, without lanes and with them: the same bits, and no races. What was seen with them.
fn both(variables: &[&Var], work: &dyn Fn() -> Tensor) -> races::Found {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    emulate_gpu(true);
    let run = || {
        let tape = Tape::start();
        let weights = variables.iter().map(|v| v.as_tensor());
        tape.use_weights(&ConvWeights::new(weights, DType::F32).unwrap());
        let loss = work();
        let gradients = tape.backward(&loss).unwrap();
        // A kernel is seen to read it.
        let loss = collect(&[&loss.detach()]).unwrap().unwrap();
        let of = |v: &&Var| gradients.get(v).unwrap().clone();
        let all = std::iter::once(loss).chain(variables.iter().map(of));
        all.map(|t| t.flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    };
    let in_turn: Vec<Vec<f32>> = run();
    let watching = races::start();
    let beside = run();
    let found = watching.stop();
    let (beside, found): Outcome = (beside, found);
    assert_eq!(found.races, [""; 0]);
    assert!(in_turn == beside, "other numbers");
    assert!(found.lanes > 1, "nothing is side by side");
    found
}

/// Convolutions of three pixels a side that leave a map's size as it is.
const SAME: Conv2dConfig = Conv2dConfig {
    stride: 1,
    padding: 1,
    dilation: 1,
    groups: 1,
};

fn loss_of(y: &Tensor) -> Tensor {
    mse(y, &Tensor::zeros_like(y).unwrap()).unwrap()
}

#[test]
fn what_lanes_share_with_what_comes_after_them_is_held() {
    let x = var(&[4, 6, 6, 8], 1);
    let (a, b) = (var(&[8, 8, 3, 3], 2), var(&[8, 8, 1, 1], 3));
    let after = var(&[8, 8, 3, 3], 4);
    both(&[&x, &a, &b, &after], &|| {
        let x = relu(&x).unwrap();
        landmark(&x).unwrap();
        let weights = [&a, &b];
        let maps = side_by_side(&[&x, &x], |index| {
            let padding = 1 - index;
            let same = Conv2dConfig {
                padding,
                ..Conv2dConfig::default()
            };
            relu(&conv2d(&x, weights[index], same)?)
        })
        .unwrap();
        // One sum hands its gradient to both; a convolution's weight's is made beside the first lane, out of what another made.
        let sum = add(&maps[0], &maps[1]).unwrap();
        let read = conv2d(&maps[0], &after, SAME).unwrap();
        // Between these and a loss lies an operation of candle's.
        let scaled = (&maps[1] * 2.0).unwrap();
        let losses = [loss_of(&sum), loss_of(&read), loss_of(&scaled)];
        let all: Vec<_> = losses.iter().map(|loss| (loss, 1.0)).collect();
        weighted_sum(&all).unwrap().unwrap()
    });
}

#[test]
fn a_gradient_of_lanes_that_came_later_is_held_by_each_that_reads_it() {
    let x = var(&[2, 4, 4, 8], 1);
    both(&[&x], &|| {
        let x = relu(&x).unwrap();
        landmark(&x).unwrap();
        let maps = side_by_side(&[&x, &x], |_| relu(&x)).unwrap();
        // The sum's gradient is made in the lane that made the first of the maps, and handed to both.
        let parts = side_by_side(&[&maps[0], &maps[0]], |index| {
            mse(&add(&maps[0], &maps[1])?, &maps[index])
        });
        let parts: Vec<_> = parts.unwrap();
        let all: Vec<_> = parts.iter().map(|part| (part, 1.0)).collect();
        weighted_sum(&all).unwrap().unwrap()
    });
}

#[test]
fn parameters_and_statistics_that_lanes_share_are_used_in_turn() {
    let x = var(&[4, 4, 4, 8], 1);
    let (scale, shift) = (var(&[8], 2), var(&[8], 3));
    let (weight, bias) = (var(&[5, 8], 4), var(&[5], 5));
    let labels = Tensor::new(&[0u32, 4, 2, 1], &Device::Cpu).unwrap();
    let running = [var(&[8], 6), var(&[8], 7)];
    both(&[&x, &scale, &shift, &weight, &bias], &|| {
        let x = relu(&x).unwrap();
        landmark(&x).unwrap();
        let heads = side_by_side::<_, mixskd_kernels::Error>(&[&x, &x, &x], |index| {
            let (y, stats) = batch_norm_train(&x, &scale, &shift, BATCH_NORM_EPS, None, true)?;
            move_running(&running[0], &running[1], &stats, 0.0)?;
            // An operation of candle's between kernels, other for each.
            let y = (y * (index + 1) as f64)?;
            let z = linear(&global_avg_pool2d(&y)?, &weight, Some(&bias))?;
            cross_entropy(&z, &labels)
        });
        let heads: Vec<_> = heads.unwrap();
        let all: Vec<_> = heads.iter().map(|z| (z, 0.5)).collect();
        weighted_sum(&all).unwrap().unwrap()
    });
}

#[test]
fn what_has_no_gradient_is_held_while_others_read_it() {
    let x = var(&[2, 3], 1);
    both(&[&x], &|| {
        let z = relu(&x).unwrap();
        // A target: nothing flows back to what made it, which is passed by while a lane beside the first is at work.
        let target = relu(&(x.as_tensor() * 2.0).unwrap()).unwrap().detach();
        landmark(&z).unwrap();
        let losses = side_by_side(&[&z; 4], |index| match index {
            3 => kl_divergence(&z, &target, 2.0),
            _ => mse(&z, &z.zeros_like()?),
        });
        let losses: Vec<_> = losses.unwrap();
        let all: Vec<_> = losses.iter().map(|loss| (loss, 1.0)).collect();
        weighted_sum(&all).unwrap().unwrap()
    });
}

#[test]
fn a_lane_that_was_joined_holds_what_it_made_before() {
    let x = var(&[2, 3], 1);
    both(&[&x], &|| {
        let x = relu(&x).unwrap();
        landmark(&x).unwrap();
        let maps = side_by_side(&[&x, &x], |index| {
            if index == 1 {
                return relu(&x);
            }
            let (c, a) = (relu(&x)?, relu(&x)?);
            // On the way back candle's operation is the first lane's, which waits for this one; then this one goes on.
            add(&relu(&(a * 2.0)?)?, &c)
        })
        .unwrap();
        loss_of(&add(&maps[0], &maps[1]).unwrap())
    });
}

#[test]
fn more_work_than_lanes_and_lanes_in_lanes() {
    let x = var(&[2, 4, 4, 8], 1);
    let weights: Vec<_> = (0..6).map(|k| var(&[8, 8, 3, 3], 2 + k)).collect();
    let variables: Vec<_> = std::iter::once(&x).chain(&weights).collect();
    let seen = both(&variables, &|| {
        let x = relu(&x).unwrap();
        landmark(&x).unwrap();
        let mut maps = side_by_side(&[&x; 6], |index| {
            let mut y = conv2d(&x, &weights[index], SAME)?;
            // Where the first lane has work of its own.
            for _ in 0..if index == 3 { 3 } else { 0 } {
                y = conv2d(&y, &weights[index], SAME)?;
            }
            landmark(&y)?;
            let both = side_by_side(&[&y, &y], |_| relu(&y))?;
            add(&both[0], &both[1])
        })
        .unwrap();
        // Read again by others side by side, some of them in the lane that made it.
        let parts = side_by_side(&[&x; 3], |index| mse(&maps[index], &maps[index + 3])).unwrap();
        let rest = maps.split_off(5);
        let mut all: Vec<_> = parts.iter().map(|part| (part, 1.0)).collect();
        // A gradient beside the first lane, out of what the third made.
        let after = conv2d(&maps[2], &weights[0], SAME).unwrap();
        let last = [loss_of(&rest[0]), loss_of(&after)];
        all.extend(last.iter().map(|loss| (loss, 1.0)));
        weighted_sum(&all).unwrap().unwrap()
    });
    assert!(3 * seen.longest < 2 * seen.launches, "{seen:?}");
}

#[test]
fn what_has_no_landmark_waits_for_none_of_the_others() {
    let x = var(&[2, 4, 4, 8], 1);
    let weights: Vec<_> = (0..7).map(|k| var(&[8, 8, 3, 3], 2 + k)).collect();
    let variables: Vec<_> = std::iter::once(&x).chain(&weights).collect();
    let seen = |marked: bool| {
        both(&variables, &|| {
            let first = relu(&x).unwrap();
            landmark(&first).unwrap();
            let x = relu(&first).unwrap();
            if marked {
                landmark(&x).unwrap();
            }
            // The first lane's own is the longest, and some come after it.
            let maps = side_by_side(&[&x; 7], |index| {
                let more = if index == 3 { 6 } else { 0 };
                let y = conv2d(&x, &weights[index], SAME)?;
                (0..more).try_fold(y, |y, _| conv2d(&y, &weights[index], SAME))
            })
            .unwrap();
            let losses: Vec<_> = maps.iter().map(loss_of).collect();
            let all: Vec<_> = losses.iter().map(|loss| (loss, 1.0)).collect();
            weighted_sum(&all).unwrap().unwrap()
        })
    };
    let (marked, plain) = (seen(true), seen(false));
    assert_eq!(plain.launches, marked.launches);
    assert_eq!(plain.longest, marked.longest);
}

#[test]
fn losses_that_nobody_waits_for_are_there_in_the_end() {
    let z = var(&[4, 2], 1);
    let labels = Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu).unwrap();
    let objective = || {
        // A way back that is longer than all losses together.
        let z = (0..20).fold(z.as_tensor().clone(), |z, _| relu(&z).unwrap());
        landmark(&z).unwrap();
        let value = |index: usize| {
            // Maps that are given back as soon as nobody needs them any more.
            let (a, b) = (relu(&z)?, relu(&z)?);
            let losses = match index {
                0 => [cross_entropy(&a, &labels)?, kl_divergence(&a, &b, 2.0)?],
                1 => [discriminator_loss(&a, &b)?.unwrap(), mse(&a, &b)?],
                _ => [mse(&b, &z)?, cross_entropy(&b, &labels)?],
            };
            let all: Vec<_> = losses.iter().map(|loss| (loss, 0.5)).collect();
            Ok::<_, mixskd_kernels::Error>(weighted_sum(&all)?.unwrap())
        };
        let terms = side_by_side(&[&z; 3], value).unwrap();
        let all: Vec<_> = terms.iter().map(|term| (term, 3.0)).collect();
        weighted_sum(&all).unwrap().unwrap()
    };
    let beside = both(&[&z], &|| unhurried(objective));
    let between = both(&[&z], &objective);
    assert_eq!(beside.launches, between.launches);
    assert!(beside.longest < between.longest, "{beside:?} {between:?}");
}

#[test]
fn losses_that_nobody_reads_keep_their_memory_until_they_are_made() {
    let z = var(&[4, 2], 1);
    let labels = Tensor::new(&[0u32, 1, 1, 0], &Device::Cpu).unwrap();
    let partner = Tensor::new(&[1u32, 0, 3, 2], &Device::Cpu).unwrap();
    both(&[&z], &|| {
        let z = relu(&z).unwrap();
        landmark(&z).unwrap();
        let value = |index: usize| {
            drop(cross_entropy(&relu(&z)?, &labels)?);
            drop(mse(&z.detach(), &relu(&z.detach())?)?);
            // What a loss alone uses.
            let said = discriminator_loss(&relu(&z)?, &relu(&relu(&z)?)?)?.unwrap();
            let lambda = relu(&Tensor::full(0.25f32, 4, &Device::Cpu)?)?;
            let near = interpolated_mse(&relu(&z)?, &partner, &lambda, &relu(&z)?)?;
            drop(lambda);
            let weight = 1.0 + index as f64;
            Ok::<_, mixskd_kernels::Error>(weighted_sum(&[(&said, weight), (&near, 0.5)])?.unwrap())
        };
        unhurried(|| {
            let terms = side_by_side(&[&z; 3], value).unwrap();
            let all: Vec<_> = terms.iter().map(|term| (term, 1.5)).collect();
            weighted_sum(&all).unwrap().unwrap()
        })
    });
}

#[test]
fn views_are_read_in_any_lane() {
    let x = var(&[6, 4, 4, 8], 1);
    let (scale, shift, weight) = (var(&[8], 2), var(&[8], 3), var(&[8, 8, 3, 3], 4));
    both(&[&x, &scale, &shift, &weight], &|| {
        let x = relu(&x).unwrap();
        landmark(&x).unwrap();
        let maps = side_by_side::<_, mixskd_kernels::Error>(&[&x, &x, &x], |index| {
            let residual = (index == 1).then_some(&x);
            let (y, _) = batch_norm_train(&x, &scale, &shift, BATCH_NORM_EPS, residual, true)?;
            let view = samples(&y, index, 4)?;
            let part = relu(&samples(&view, 1, 2)?)?;
            let read = relu(&conv2d(&view, &weight, SAME)?)?;
            Ok((y, view, part, read))
        });
        let maps: Vec<_> = maps.unwrap();
        let later =
            side_by_side::<_, mixskd_kernels::Error>(&[&maps[0].0, &maps[1].1, &x], |index| {
                let (own, other) = (&maps[index], &maps[(index + 1) % 3]);
                let sum = add(&samples(&own.0, 0, 4)?, &other.1)?;
                let both = add(&samples(&relu(&sum)?, 2, 2)?, &own.2)?;
                Ok((relu(&both)?, relu(&add(&own.3, &other.3)?)?))
            });
        let mut losses = Vec::new();
        for (a, b) in later.unwrap() {
            losses.extend([loss_of(&a), loss_of(&b)]);
        }
        losses.extend(maps.iter().map(|map| loss_of(&map.1)));
        let all: Vec<_> = losses.iter().map(|loss| (loss, 0.5)).collect();
        weighted_sum(&all).unwrap().unwrap()
    });
}

#[test]
fn an_error_in_a_lane_leaves_no_lane_behind() {
    let x = var(&[2, 4, 4, 8], 1);
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    emulate_gpu(true);
    let watching = races::start();
    let tape = Tape::start();
    let y = relu(&x).unwrap();
    landmark(&y).unwrap();
    let failed = side_by_side(&[&y, &y], |index| {
        let y = relu(&y)?;
        if index == 1 {
            // Nine channels where there are eight.
            add(&y, &var(&[2, 4, 4, 9], 2))
        } else {
            Ok(y)
        }
    });
    assert!(failed.is_err());
    drop(tape);
    // The next step knows nothing of it.
    let tape = Tape::start();
    let y = relu(&x).unwrap();
    landmark(&y).unwrap();
    let maps = side_by_side(&[&y, &y], |_| relu(&y)).unwrap();
    let gradients = tape
        .backward(&loss_of(&add(&maps[0], &maps[1]).unwrap()))
        .unwrap();
    assert!(gradients.get(&x).is_some());
    drop(maps);
    assert_eq!(watching.stop().races, [""; 0]);
}
