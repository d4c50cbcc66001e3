//! With the processor in the GPU's place: the way back from kernel to kernel beside candle's own, and uploads.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use common::random;
use mixskd_kernels::{
    BATCH_NORM_EPS, Conv2dConfig, ConvWeights, Downloads, ParameterUpdate, SgdConfig, Tape,
    Uploads, add, backward, batch_norm_eval, batch_norm_train, concat_channels, conv2d,
    cross_entropy, discriminator_loss, emulate_gpu, global_avg_pool2d, join_channels, join_samples,
    linear, max_pool2d, mse, relu, samples, sgd_steps, weighted_sum,
};

const BATCH: usize = 4;

/// A small network whose parts are read by several others, with candle's operations between kernels.
struct Network {
    images: Tensor,
    labels: Tensor,
    stem: Var,
    shared: Var,
    scale: Var,
    shift: Var,
    head: Var,
    /// In no kernel's reach: a factor of the loss.
    factor: Var,
}

fn floats(shape: &[usize], seed: u64) -> Tensor {
    random(shape, seed).to_dtype(DType::F32).unwrap()
}

fn var(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&floats(shape, seed)).unwrap()
}

/// Of a convolution by 3×3 that keeps the size.
fn same() -> Conv2dConfig {
    Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    }
}

impl Network {
    fn new() -> Self {
        Self {
            images: floats(&[2 * BATCH, 6, 6, 3], 1),
            labels: Tensor::new(&[0u32, 2, 1, 2], &Device::Cpu).unwrap(),
            stem: var(&[8, 3, 3, 3], 2),
            shared: var(&[8, 8, 3, 3], 3),
            scale: var(&[8], 4),
            shift: var(&[8], 5),
            head: var(&[3, 8], 6),
            factor: var(&[1], 7),
        }
    }

    fn variables(&self) -> [&Var; 6] {
        [
            &self.stem,
            &self.shared,
            &self.scale,
            &self.shift,
            &self.head,
            &self.factor,
        ]
    }

    fn loss(&self) -> Tensor {
        let norm = |x: &Tensor, residual| {
            batch_norm_train(x, &self.scale, &self.shift, BATCH_NORM_EPS, residual, true)
                .unwrap()
                .0
        };
        let first = norm(&conv2d(&self.images, &self.stem, same()).unwrap(), None);
        // The same weight twice, and a map that three others read.
        let second = norm(&conv2d(&first, &self.shared, same()).unwrap(), Some(&first));
        let third = conv2d(&second, &self.shared, same()).unwrap();
        // candle's own between two kernels.
        let bent = (third.tanh().unwrap() + &first).unwrap();
        let pooled = max_pool2d(
            &bent,
            mixskd_kernels::Pool2dConfig {
                kernel: 2,
                stride: 2,
                padding: 0,
            },
        )
        .unwrap();
        let features = global_avg_pool2d(&pooled).unwrap();
        let logits = linear(&features, &self.head, None).unwrap();
        let half = |t: &Tensor, k: usize| t.narrow(0, k * BATCH, BATCH).unwrap();
        let task = cross_entropy(&half(&logits, 0), &self.labels).unwrap();
        let other = cross_entropy(&half(&logits, 1), &self.labels).unwrap();
        let near = mse(&half(&second, 0), &half(&second, 1)).unwrap();
        // Read by nothing.
        let _unused = conv2d(&pooled, &self.shared, same()).unwrap();
        let sum = ((task + other).unwrap() + (near * 0.5).unwrap()).unwrap();
        (sum.reshape(1).unwrap() * self.factor.as_tensor())
            .unwrap()
            .sum_all()
            .unwrap()
    }
}

fn assert_same(network: &Network, ours: &GradStore, candles: &GradStore) {
    for (k, variable) in network.variables().into_iter().enumerate() {
        let (ours, candles) = (ours.get(variable).unwrap(), candles.get(variable).unwrap());
        assert_eq!(ours.dims(), candles.dims());
        let largest = |t: &Tensor| {
            let values = t.abs().unwrap().flatten_all().unwrap().to_vec1::<f32>();
            // In the total order NaN is above all numbers.
            values.unwrap().into_iter().max_by(f32::total_cmp).unwrap()
        };
        let apart = largest(&(ours - candles).unwrap()) / largest(candles);
        assert!(apart < 1e-5, "variable {k}: {apart}");
    }
}

#[test]
fn gradients_are_candles() {
    emulate_gpu(true);
    let network = Network::new();
    let candles = backward(&network.loss()).unwrap();
    let tape = Tape::start();
    let ours = tape.backward(&network.loss()).unwrap();
    assert_same(&network, &ours, &candles);
    // Weights brought into the convolutions' order beforehand, whose gradients come when the way has been gone.
    let tape = Tape::start();
    let weights = network.variables().map(Var::as_tensor);
    tape.use_weights(&ConvWeights::new(weights, DType::F32).unwrap());
    let put_off = tape.backward(&network.loss()).unwrap();
    assert_same(&network, &put_off, &candles);
    assert_eq!(put_off.get_ids().count(), network.variables().len());
    // Nothing but the variables' own: outputs of kernels are none to whoever asks.
    assert_eq!(ours.get_ids().count(), network.variables().len());
}

/// What convolutions made is left as it is, but for a weight that is used twice; what was made beside a parameter follows its update, and is none of what
/// others change.
#[test]
fn gradients_as_they_were_made() {
    emulate_gpu(true);
    let network = Network::new();
    let weights = ConvWeights::new(network.variables().map(Var::as_tensor), DType::F32).unwrap();
    let expected = backward(&network.loss()).unwrap();
    let tape = Tape::start();
    tape.use_weights(&weights);
    let made = tape.backward_as_made(&network.loss()).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    for (k, variable) in network.variables().into_iter().enumerate() {
        let (made, expected) = (made.get(variable).unwrap(), expected.get(variable).unwrap());
        // The stem's is the one weight that is used once.
        let mut expected = expected.clone();
        if k == 0 {
            assert_eq!(made.dims(), [8, 9, 3]);
            expected = expected.permute((0, 2, 3, 1)).unwrap();
        } else {
            assert_eq!(made.dims(), variable.dims());
        }
        assert!(near(&flat(made), &flat(&expected)), "variable {k}");
    }
    // Both ways of one update come to the same.
    let config = SgdConfig {
        lr: 0.0,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-2,
    };
    let zeros = network
        .variables()
        .map(|v| Var::from_tensor(&v.zeros_like().unwrap()).unwrap());
    let before = network
        .variables()
        .map(|v| v.as_detached_tensor().copy().unwrap());
    let rate = Tensor::new(&[0.1f32], &Device::Cpu).unwrap();
    let update = |all: &dyn Fn(usize) -> Tensor, turned: bool| {
        let variables = network.variables();
        let gradients: Vec<_> = (0..variables.len()).map(all).collect();
        let updates: Vec<_> = (variables.iter().zip(&gradients).zip(&zeros))
            .map(|((parameter, gradient), velocity)| ParameterUpdate {
                parameter,
                gradient,
                velocity,
                factor: 1.0,
                turned: if turned { weights.get(parameter) } else { None },
            })
            .collect();
        sgd_steps(&updates, &rate, None, config).unwrap().unwrap();
        variables.map(|v| flat(v))
    };
    let one = update(&|k| made.get(network.variables()[k]).unwrap().clone(), true);
    let beside = [&network.stem, &network.shared].map(|v| {
        let want = v.permute((0, 2, 3, 1)).unwrap();
        assert_eq!(flat(weights.get(v).unwrap()), flat(&want));
        flat(weights.get(v).unwrap())
    });
    for ((v, before), zero) in network.variables().into_iter().zip(&before).zip(&zeros) {
        v.set(before).unwrap();
        zero.set(&zero.zeros_like().unwrap()).unwrap();
    }
    let other = update(
        &|k| expected.get(network.variables()[k]).unwrap().clone(),
        false,
    );
    for (one, other) in one.iter().zip(&other) {
        assert!(near(one, other));
    }
    // Nothing was said of that update: they are of the one before, until they are renewed.
    assert!(flat(weights.get(&network.stem).unwrap()) == beside[0]);
    network
        .stem
        .set(&network.stem.zeros_like().unwrap())
        .unwrap();
    weights.renew().unwrap();
    assert!(
        flat(weights.get(&network.stem).unwrap())
            .iter()
            .all(|&x| x == 0.0)
    );
    // A weight of another's size is refused.
    let wrong = ParameterUpdate {
        parameter: &network.shared,
        gradient: weights.get(&network.stem).unwrap(),
        velocity: &zeros[1],
        factor: 1.0,
        turned: weights.get(&network.stem),
    };
    assert!(sgd_steps(&[wrong], &rate, None, config).is_err());
}

/// Parts of a batch, several maps joined, layers with a bias, a ReLU, losses summed: nodes of the tape, beside candle's operations for the same.
#[test]
fn what_lies_between_maps_and_losses() {
    emulate_gpu(true);
    let maps = [5usize, 8, 3].map(|c| var(&[2 * BATCH, 2, 2, c], c as u64));
    let (weight, bias) = (var(&[7, 16], 20), var(&[7], 21));
    let head = var(&[2, 7], 22);
    let loss = |taped: bool| {
        let half = |t: &Tensor, k: usize| {
            let at = k * BATCH;
            if taped {
                samples(t, at, BATCH).unwrap()
            } else {
                t.narrow(0, at, BATCH).unwrap()
            }
        };
        let all = maps.each_ref().map(Var::as_tensor);
        let joined = if taped {
            join_channels(&all).unwrap()
        } else {
            Tensor::cat(&all, 3).unwrap()
        };
        // The second half before the first, and the whole besides.
        let halves = [half(&joined, 1), half(&joined, 0)];
        let turned = if taped {
            join_samples(&[&halves[0], &halves[1]]).unwrap()
        } else {
            Tensor::cat(&halves, 0).unwrap()
        };
        let layer = |x: &Tensor| {
            let pooled = global_avg_pool2d(x).unwrap();
            if taped {
                relu(&linear(&pooled, &weight, Some(&bias)).unwrap()).unwrap()
            } else {
                let y = pooled.matmul(&weight.t().unwrap()).unwrap();
                y.broadcast_add(&bias).unwrap().relu().unwrap()
            }
        };
        let hidden = layer(&turned);
        let said = if taped {
            linear(&hidden, &head, None).unwrap()
        } else {
            hidden.matmul(&head.t().unwrap()).unwrap()
        };
        let (a, b) = (half(&said, 0), half(&said, 1));
        let judged = if taped {
            discriminator_loss(&a, &b).unwrap().unwrap()
        } else {
            let sign = Tensor::new(&[-1f32, 1.0], &Device::Cpu).unwrap();
            let cost = |u: Tensor| {
                let powers = (u.exp().unwrap() + 1.0).unwrap();
                powers.log().unwrap().mean_all().unwrap()
            };
            let yes = cost(a.broadcast_mul(&sign).unwrap());
            let no = cost(b.broadcast_mul(&sign.neg().unwrap()).unwrap());
            ((yes + no).unwrap() * 0.5).unwrap()
        };
        let near = mse(&half(&joined, 0), &half(&joined, 1)).unwrap();
        if taped {
            weighted_sum(&[(&judged, 2.0), (&near, -0.5)])
                .unwrap()
                .unwrap()
        } else {
            ((judged * 2.0).unwrap() + (near * -0.5).unwrap()).unwrap()
        }
    };
    let theirs = backward(&loss(false)).unwrap();
    let tape = Tape::start();
    let total = loss(true);
    let value = |t: &Tensor| t.to_scalar::<f32>().unwrap();
    assert!((value(&total) - value(&loss(false))).abs() < 1e-6);
    let ours = tape.backward(&total).unwrap();
    let largest = |t: &Tensor| {
        let values = t.abs().unwrap().flatten_all().unwrap().to_vec1::<f32>();
        values.unwrap().into_iter().max_by(f32::total_cmp).unwrap()
    };
    for (k, variable) in maps.iter().chain([&weight, &bias, &head]).enumerate() {
        let (ours, theirs) = (ours.get(variable).unwrap(), theirs.get(variable).unwrap());
        let apart = largest(&(ours - theirs).unwrap()) / largest(theirs);
        assert!(apart < 1e-5, "variable {k}: {apart}");
    }
}

/// What dense and pre-activated networks are: each map joined with or added to all before it, and read by a kernel.
#[test]
fn chains_of_joined_maps() {
    emulate_gpu(true);
    let images = var(&[2, 5, 5, 4], 1);
    // Of maps of 4, 8, 12 and 16 channels to 4, and of the sum's.
    let grow: Vec<Var> = (1..5).map(|k| var(&[4, 4 * k, 3, 3], k as u64)).collect();
    let turn = var(&[20, 20, 3, 3], 9);
    let loss = || {
        let mut x = images.as_tensor().clone();
        for weight in &grow {
            let y = conv2d(&x, weight, same()).unwrap();
            x = concat_channels(&x, &y).unwrap();
        }
        for _ in 0..3 {
            let y = conv2d(&x, &turn, same()).unwrap();
            x = (add(&y, &x).unwrap() * 0.1).unwrap();
        }
        mse(&x, &(x.detach() * 0.5).unwrap()).unwrap()
    };
    let theirs = backward(&loss()).unwrap();
    let tape = Tape::start();
    let ours = tape.backward(&loss()).unwrap();
    for variable in grow.iter().chain([&turn, &images]) {
        let (ours, theirs) = (ours.get(variable).unwrap(), theirs.get(variable).unwrap());
        let apart = (ours - theirs).unwrap().sqr().unwrap().sum_all().unwrap();
        let length = theirs.sqr().unwrap().sum_all().unwrap();
        let apart = apart.to_scalar::<f32>().unwrap() / length.to_scalar::<f32>().unwrap();
        assert!(apart < 1e-10, "{apart}");
    }
}

#[test]
fn the_same_bits_every_time() {
    emulate_gpu(true);
    let network = Network::new();
    let gradients = || {
        let tape = Tape::start();
        let gradients = tape.backward(&network.loss()).unwrap();
        network.variables().map(|v| {
            let gradient = gradients.get(v).unwrap().flatten_all().unwrap();
            gradient.to_vec1::<f32>().unwrap()
        })
    };
    assert_eq!(gradients(), gradients());
}

#[test]
fn a_loss_that_is_a_kernels_output_or_none() {
    emulate_gpu(true);
    let z = var(&[BATCH, 3], 8);
    let labels = Tensor::new(&[0u32, 2, 1, 2], &Device::Cpu).unwrap();
    let tape = Tape::start();
    let loss = cross_entropy(&z, &labels).unwrap();
    let ours = tape.backward(&loss).unwrap();
    let theirs = backward(&cross_entropy(&z, &labels).unwrap()).unwrap();
    let values = |store: &GradStore| store.get(&z).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(values(&ours), values(&theirs));

    let tape = Tape::start();
    let ours = tape.backward(&z.sqr().unwrap().sum_all().unwrap()).unwrap();
    let expected = (z.as_tensor() * 2.0).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(values(&ours), expected);
}

#[test]
fn a_tape_inside_another_leaves_it_alone() {
    emulate_gpu(true);
    let network = Network::new();
    let candles = backward(&network.loss()).unwrap();
    let outer = Tape::start();
    let loss = network.loss();
    let inner = Tape::start();
    let first = inner.backward(&network.loss()).unwrap();
    drop(Tape::start());
    let second = outer.backward(&loss).unwrap();
    assert_same(&network, &first, &candles);
    assert_same(&network, &second, &candles);
    // And nothing is noted any more.
    let again = backward(&network.loss()).unwrap();
    assert_same(&network, &again, &candles);
}

#[test]
fn what_wants_no_gradient_gets_none() {
    emulate_gpu(true);
    let network = Network::new();
    let tape = Tape::start();
    let frozen = network.stem.as_detached_tensor();
    let y = conv2d(&network.images, &frozen, same()).unwrap();
    assert!(!y.track_op());
    let z = conv2d(&y, &network.shared, same()).unwrap();
    // At the output of a kernel candle's graph ends.
    assert!(z.is_variable());
    let gradients = tape.backward(&z.sum_all().unwrap()).unwrap();
    assert!(gradients.get(&network.stem).is_none());
    assert!(gradients.get(&network.shared).is_some());
}

#[test]
fn uploads_give_what_was_sent_last() {
    emulate_gpu(true);
    let mut uploads = Uploads::new(&Device::Cpu).unwrap().unwrap();
    assert!(uploads.receive(DType::F32).is_err());
    let batches = [[4, 3], [2, 3], [7, 5]].map(|shape| floats(&shape, shape[0] as u64));
    for dtype in [DType::F32, DType::BF16] {
        for batch in &batches {
            uploads.send(batch).unwrap();
            let got = uploads.receive(dtype).unwrap();
            assert_eq!(got.dtype(), dtype);
            let [got, sent] = [&got, &batch.to_dtype(dtype).unwrap()]
                .map(|t| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap());
            assert_eq!(got, sent);
        }
    }
    // What was not asked for is lost, and a batch is given once.
    uploads.send(&batches[0]).unwrap();
    uploads.send(&batches[1]).unwrap();
    assert_eq!(uploads.receive(DType::F32).unwrap().dims(), [2, 3]);
    assert!(uploads.receive(DType::F32).is_err());
    // Something else than floats is refused, and what was sent before it is lost too.
    uploads.send(&batches[0]).unwrap();
    let bytes = batches[0].to_dtype(DType::U8).unwrap();
    assert!(uploads.send(&bytes).is_err());
    assert!(uploads.receive(DType::F32).is_err());
}

#[test]
fn downloads_give_what_was_there_when_they_were_begun() {
    emulate_gpu(true);
    let downloads = Downloads::new(&Device::Cpu).unwrap().unwrap();
    let first = Var::from_tensor(&floats(&[2, 3], 1)).unwrap();
    let second = floats(&[5], 2);
    let want = [first.as_tensor(), &second].map(|t| {
        let values = t.flatten_all().unwrap().to_vec1::<f32>();
        values.unwrap()
    });
    let both = downloads.begin(&[&first, &second]).unwrap();
    first.set(&first.zeros_like().unwrap()).unwrap();
    let after = downloads.begin(&[&first]).unwrap();
    // On whatever thread.
    let got = std::thread::spawn(move || {
        let values = both.values().unwrap();
        values.into_iter().map(<[f32]>::to_vec).collect::<Vec<_>>()
    });
    assert_eq!(got.join().unwrap(), want);
    assert_eq!(after.values().unwrap(), [[0.0; 6]]);
    assert!(downloads.begin(&[]).unwrap().values().unwrap().is_empty());
    // What kernels do not know as float is the caller's to bring.
    let half = second.to_dtype(DType::BF16).unwrap();
    assert!(downloads.begin(&[&half]).is_err());
    assert!(
        downloads
            .begin(&[&floats(&[2, 3], 1).t().unwrap()])
            .is_err()
    );
}

/// A network of views: of a map in parts that overlap, of views, of the whole, of a variable; read by kernels, by candle, several times over; and losses that come to
/// the sum on several ways.
fn of_views([x, scale, shift, kernel, head]: [&Var; 5], form: usize, dtype: DType) -> Tensor {
    let channels = scale.elem_count();
    let (mean, var) = (floats(&[channels], 8), floats(&[channels], 9));
    let var = (var.abs().unwrap() + 0.5).unwrap();
    let near = |t: &Tensor| {
        let t = t.to_dtype(DType::F32).unwrap();
        mse(&t, &t.zeros_like().unwrap()).unwrap()
    };
    let maps = relu(&x.to_dtype(dtype).unwrap()).unwrap();
    let added = relu(&(&maps * 0.5).unwrap()).unwrap();
    let (fixed, fixed_too) = (maps.detach(), added.detach());
    let (input, residual, act) = match form {
        0 => (&maps, None, true),
        1 => (&maps, Some(&added), true),
        2 => (&maps, Some(&added), false),
        3 => (&maps, Some(&fixed_too), true),
        4 => (&fixed, Some(&added), true),
        _ => (&maps, None, false),
    };
    let y = if form == 5 {
        batch_norm_eval(
            input,
            scale,
            shift,
            &mean,
            &var,
            BATCH_NORM_EPS,
            Some(&added),
            true,
        )
    } else {
        batch_norm_train(input, scale, shift, BATCH_NORM_EPS, residual, act).map(|(y, _)| y)
    };
    let y = y.unwrap();
    let part = |t: &Tensor, at, count| samples(t, at, count).unwrap();
    let view = part(&y, 1, 4);
    let inner = part(&view, 1, 3);
    let pooled = global_avg_pool2d(&inner)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let labels = Tensor::new(&[0u32, 2, 1], &Device::Cpu).unwrap();
    let task = cross_entropy(&linear(&pooled, head, None).unwrap(), &labels).unwrap();
    let read = conv2d(&view, kernel, same()).unwrap();
    let again = batch_norm_train(&read, scale, shift, BATCH_NORM_EPS, Some(&view), true);
    let (again, _) = again.unwrap();
    let turned = part(&y.transpose(1, 2).unwrap(), 1, 2)
        .contiguous()
        .unwrap();
    let pair = add(&part(&y, 0, 2), &part(&y, 3, 2)).unwrap();
    let mut losses = vec![task];
    for map in [
        &again,
        &part(&inner, 2, 1),
        &part(&y, 0, 5),
        &turned,
        &part(x, 2, 3),
        &pair,
        &relu(&inner).unwrap(),
    ] {
        losses.push(near(&relu(map).unwrap()));
    }
    losses.push(near(&(inner.tanh().unwrap() * 2.0).unwrap()));
    // Twice by the sum, by candle, and by a sum of sums.
    let product = (&losses[1] * &losses[2]).unwrap();
    let mut all: Vec<_> = losses.iter().map(|loss| (loss, 0.75)).collect();
    all.extend([(&losses[1], 0.25), (&product, 2.0)]);
    let sum = weighted(&all);
    weighted(&[(&sum, 0.5), (&losses[4], 3.0), (&sum, 1.0)])
}

fn weighted(all: &[(&Tensor, f64)]) -> Tensor {
    weighted_sum(all).unwrap().unwrap_or_else(|| {
        let terms = all.iter().map(|&(x, weight)| (x * weight).unwrap());
        terms.reduce(|a, b| (a + b).unwrap()).unwrap()
    })
}

#[test]
fn what_kernels_owe_a_view_they_owe_its_whole() {
    emulate_gpu(true);
    for (channels, form) in [5, 8, 16]
        .into_iter()
        .flat_map(|c| (0..7).map(move |f| (c, f)))
    {
        let variables = [
            var(&[5, 4, 3, channels], 1),
            var(&[channels], 2),
            var(&[channels], 3),
            var(&[channels, channels, 3, 3], 4),
            var(&[3, channels], 6),
        ];
        let each = variables.each_ref();
        let candles = backward(&of_views(each, form, DType::F32)).unwrap();
        for (dtype, most) in [(DType::F32, 1e-5), (DType::BF16, 0.15)] {
            let tape = Tape::start();
            let ours = tape.backward(&of_views(each, form, dtype)).unwrap();
            for (k, variable) in each.into_iter().enumerate() {
                let [a, b] = [&ours, &candles].map(|all| all.get(variable).unwrap());
                let length = |t: &Tensor| {
                    let square = t.sqr().unwrap().sum_all().unwrap();
                    square.to_scalar::<f32>().unwrap().sqrt()
                };
                let apart = length(&(a - b).unwrap()) / length(b);
                assert!(apart < most, "{channels}, {form}, {dtype:?}, {k}: {apart}");
            }
        }
    }
}
