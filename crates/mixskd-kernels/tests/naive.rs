//! Batch norm, pools, linear, interpolation, depthwise convolution and the SGD step against naive loops in double precision.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{Naive, random, relative, values};
use mixskd_kernels::{
    Conv2dConfig, Pool2dConfig, SgdConfig, avg_pool2d, batch_norm_eval, batch_norm_train, conv2d,
    global_avg_pool2d, interpolate, linear, max_pool2d, sgd_step,
};
use proptest::prelude::*;

/// Compares output, and gradients in the direction `dy`, with `wanted`: the output, then one gradient for each input.
fn check(inputs: &[&Tensor], dy: &Tensor, wanted: &[Vec<f64>], f: impl Fn(&[Var]) -> Tensor) {
    for (dtype, bound) in [(DType::F32, 3e-5), (DType::F64, 1e-11)] {
        let vars = inputs
            .iter()
            .map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap())
            .collect::<Vec<_>>();
        let y = f(&vars);
        let loss = (&y * dy.to_dtype(dtype).unwrap()).unwrap();
        let grads = loss.sum_all().unwrap().backward().unwrap();
        let mut got = vec![y];
        got.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
        assert_eq!(got.len(), wanted.len());
        for (i, (got, want)) in got.iter().zip(wanted).enumerate() {
            let want = Tensor::from_slice(want, got.dims(), &Device::Cpu).unwrap();
            let e = relative(got, &want);
            assert!(e < bound, "{dtype:?}: tensor {i} off by {e}");
        }
    }
}

/// `[output, dx]` of a pool; a window's maximum or its mean with padding counted.
fn naive_pool(x: &Tensor, c: Pool2dConfig, max: bool, dy: &Tensor) -> [Vec<f64>; 2] {
    let (_, h, w, channels) = x.dims4().unwrap();
    let (_, oh, ow, _) = dy.dims4().unwrap();
    let (xs, dys) = (values(x), values(dy));
    let (mut y, mut dx) = (vec![0.0; dys.len()], vec![0.0; xs.len()]);
    for to in 0..dys.len() {
        let (ch, ox, oy) = (to % channels, to / channels % ow, to / channels / ow % oh);
        let b = to / channels / ow / oh;
        let mut taps = vec![];
        for (ky, kx) in (0..c.kernel).flat_map(|ky| (0..c.kernel).map(move |kx| (ky, kx))) {
            let (iy, ix) = (oy * c.stride + ky, ox * c.stride + kx);
            if iy < c.padding || ix < c.padding || iy - c.padding >= h || ix - c.padding >= w {
                continue;
            }
            taps.push(((b * h + iy - c.padding) * w + ix - c.padding) * channels + ch);
        }
        if max {
            let best = taps
                .iter()
                .copied()
                .reduce(|a, b| if xs[b] > xs[a] { b } else { a });
            // A window that lies in the padding alone does not exist: padding is at most half the window.
            let best = best.unwrap();
            y[to] = xs[best];
            dx[best] += dys[to];
        } else {
            let area = (c.kernel * c.kernel) as f64;
            for tap in taps {
                y[to] += xs[tap] / area;
                dx[tap] += dys[to] / area;
            }
        }
    }
    [y, dx]
}

/// Output and gradients of batch norm. Where ReLU's input is next to its kink, `dy` is set to zero.
struct NaiveNorm {
    dy: Tensor,
    /// Output, dx, dweight, dbias, dresidual.
    wanted: Vec<Vec<f64>>,
    mean: Vec<f64>,
    var: Vec<f64>,
}

fn naive_norm(
    inputs: &[&Tensor; 4],
    statistics: Option<[Vec<f64>; 2]>,
    eps: f64,
    relu: bool,
    dy: &Tensor,
) -> NaiveNorm {
    let [x, weight, bias, residual] = inputs.map(values);
    let channels = weight.len();
    let rows = x.len() / channels;
    let training = statistics.is_none();
    let per_channel = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..channels)
            .map(|c| (0..rows).map(|r| f(r * channels + c, c)).sum())
            .collect()
    };
    let over = |sums: Vec<f64>| -> Vec<f64> { sums.iter().map(|s| s / rows as f64).collect() };
    let [mean, var] = statistics.unwrap_or_else(|| {
        let mean = over(per_channel(&|i, _| x[i]));
        let var = over(per_channel(&|i, c| (x[i] - mean[c]).powi(2)));
        [mean, var]
    });
    let inverse = var
        .iter()
        .map(|v| 1.0 / (v + eps).sqrt())
        .collect::<Vec<_>>();
    let normal = (0..x.len())
        .map(|i| (x[i] - mean[i % channels]) * inverse[i % channels])
        .collect::<Vec<_>>();
    let before = (0..x.len())
        .map(|i| normal[i] * weight[i % channels] + bias[i % channels] + residual[i])
        .collect::<Vec<_>>();
    let mut dy = values(dy);
    for (d, before) in dy.iter_mut().zip(&before) {
        if relu && before.abs() < 1e-3 {
            *d = 0.0;
        }
    }
    let through = (0..x.len())
        .map(|i| if relu && before[i] <= 0.0 { 0.0 } else { dy[i] })
        .collect::<Vec<_>>();
    let dbias = per_channel(&|i, _| through[i]);
    let dweight = per_channel(&|i, _| through[i] * normal[i]);
    let dx = (0..x.len())
        .map(|i| {
            let c = i % channels;
            let inner = if training {
                through[i] - (dbias[c] + normal[i] * dweight[c]) / rows as f64
            } else {
                through[i]
            };
            weight[c] * inverse[c] * inner
        })
        .collect();
    let y = before.iter().map(|b| if relu { b.max(0.0) } else { *b });
    NaiveNorm {
        dy: Tensor::from_vec(dy, inputs[0].dims(), &Device::Cpu).unwrap(),
        wanted: vec![y.collect(), dx, dweight, dbias, through],
        mean,
        var,
    }
}

fn close(got: &Tensor, want: &[f64]) {
    let want = Tensor::from_slice(want, want.len(), &Device::Cpu).unwrap();
    assert!(relative(got, &want) < 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pools(b in 1usize..4, h in 1usize..9, w in 1usize..9, c in 1usize..40,
             kernel in 1usize..4, stride in 1usize..4, padding in 0usize..2) {
        let config = Pool2dConfig { kernel, stride, padding: padding.min(kernel / 2) };
        prop_assume!(config.out_size(h).is_ok() && config.out_size(w).is_ok());
        let (oh, ow) = (config.out_size(h).unwrap(), config.out_size(w).unwrap());
        let (x, dy) = (random(&[b, h, w, c], 1), random(&[b, oh, ow, c], 2));
        check(&[&x], &dy, &naive_pool(&x, config, true, &dy), |v| max_pool2d(&v[0], config).unwrap());
        check(&[&x], &dy, &naive_pool(&x, config, false, &dy), |v| avg_pool2d(&v[0], config).unwrap());
    }

    #[test]
    fn global_pools(b in 1usize..5, h in 1usize..9, w in 1usize..9, c in 1usize..70) {
        let (x, dy) = (random(&[b, h, w, c], 1), random(&[b, c], 2));
        let (xs, dys, area) = (values(&x), values(&dy), (h * w) as f64);
        let mut y = vec![0.0; b * c];
        let mut dx = vec![0.0; xs.len()];
        for i in 0..xs.len() {
            let to = i / c / (h * w) * c + i % c;
            y[to] += xs[i] / area;
            dx[i] = dys[to] / area;
        }
        check(&[&x], &dy, &[y, dx], |v| global_avg_pool2d(&v[0]).unwrap());
    }

    #[test]
    fn linear_layers(b in 1usize..40, input in 1usize..70, out in 1usize..100) {
        let (x, w, bias, dy) = (random(&[b, input], 1), random(&[out, input], 2), random(&[out], 3), random(&[b, out], 4));
        let (xs, ws, bs, dys) = (values(&x), values(&w), values(&bias), values(&dy));
        let (mut y, mut dx, mut dw, mut db) = (vec![0.0; b * out], vec![0.0; b * input], vec![0.0; out * input], vec![0.0; out]);
        for (r, o) in (0..b).flat_map(|r| (0..out).map(move |o| (r, o))) {
            let d = dys[r * out + o];
            y[r * out + o] += bs[o];
            db[o] += d;
            for i in 0..input {
                y[r * out + o] += xs[r * input + i] * ws[o * input + i];
                dx[r * input + i] += d * ws[o * input + i];
                dw[o * input + i] += d * xs[r * input + i];
            }
        }
        check(&[&x, &w, &bias], &dy, &[y.clone(), dx.clone(), dw.clone(), db], |v| linear(&v[0], &v[1], Some(&v[2])).unwrap());
        for (at, y) in y.iter_mut().enumerate() {
            *y -= bs[at % out];
        }
        check(&[&x, &w], &dy, &[y, dx, dw], |v| linear(&v[0], &v[1], None).unwrap());
    }

    #[test]
    fn interpolations(partner in prop::collection::vec(0u32..5, 5), inner in 1usize..50) {
        let (x, dy) = (random(&[5, inner], 1), random(&[5, inner], 2));
        let lambda = [0.0, 1.0, 0.25, 0.7, 0.5];
        let (xs, dys) = (values(&x), values(&dy));
        let (mut y, mut dx) = (vec![], vec![0.0; xs.len()]);
        for at in 0..xs.len() {
            let (row, l) = (at / inner, lambda[at / inner]);
            let other = partner[row] as usize * inner + at % inner;
            y.push(l * xs[at] + (1.0 - l) * xs[other]);
            dx[at] += l * dys[at];
            dx[other] += (1.0 - l) * dys[at];
        }
        let partner = Tensor::new(partner, &Device::Cpu).unwrap();
        check(&[&x], &dy, &[y, dx], |v| {
            let lambda = Tensor::new(&lambda, &Device::Cpu).unwrap().to_dtype(v[0].dtype()).unwrap();
            interpolate(&v[0], &partner, &lambda).unwrap()
        });
    }

    #[test]
    fn norms(b in 1usize..4, h in 1usize..7, w in 1usize..7, c in 1usize..70, relu: bool, residual: bool) {
        // Few values make a variance next to zero, and with it gradients that float32 cannot hold.
        prop_assume!(b * h * w == 1 || b * h * w > 5);
        // One value alone has no variance: only eps keeps what float32 rounds from being magnified.
        let eps = if b * h * w == 1 { 1.0 } else { 1e-5 };
        let shape = [b, h, w, c];
        let x = (random(&shape, 1) + 3.0).unwrap();
        let (weight, bias) = ((random(&[c], 2) + 1.5).unwrap(), random(&[c], 3));
        let rest = (random(&shape, 4) * f64::from(u8::from(residual))).unwrap();
        let (dy, inputs) = (random(&shape, 5), [&x, &weight, &bias, &rest]);
        let count = 3 + usize::from(residual);
        let naive = naive_norm(&inputs, None, eps, relu, &dy);
        check(&inputs[..count], &naive.dy, &naive.wanted[..=count], |v| {
            let rest = v.get(3).map(Var::as_tensor);
            let (y, stats) = batch_norm_train(&v[0], &v[1], &v[2], eps, rest, relu).unwrap();
            close(&stats.mean, &naive.mean);
            close(&stats.var, &naive.var);
            y
        });
        let (mean, var) = (random(&[c], 6), (random(&[c], 7) + 1.5).unwrap());
        let naive = naive_norm(&inputs, Some([values(&mean), values(&var)]), eps, relu, &dy);
        check(&inputs[..count], &naive.dy, &naive.wanted[..=count], |v| {
            let cast = |t: &Tensor| t.to_dtype(v[0].dtype()).unwrap();
            let rest = v.get(3).map(Var::as_tensor);
            batch_norm_eval(&v[0], &v[1], &v[2], &cast(&mean), &cast(&var), eps, rest, relu).unwrap()
        });
    }

    #[test]
    fn depthwise(b in 1usize..4, h in 1usize..10, w in 1usize..10, groups in 1usize..70, each in 1usize..3,
                 kernel in 1usize..4, stride in 1usize..3) {
        let config = Conv2dConfig { stride, padding: kernel / 2, groups, ..Conv2dConfig::default() };
        let (oh, ow) = (config.out_size(h, kernel).unwrap(), config.out_size(w, kernel).unwrap());
        let (x, weight) = (random(&[b, h, w, groups], 1), random(&[groups * each, 1, kernel, kernel], 2));
        let dy = random(&[b, oh, ow, groups * each], 3);
        let naive = Naive::conv2d(&x, &weight, &dy, config);
        check(&[&x, &weight], &dy, &[values(&naive.y), values(&naive.dx), values(&naive.dw)], |v| {
            conv2d(&v[0], &v[1], config).unwrap()
        });
    }

    #[test]
    fn updates(len in 1usize..100, nesterov: bool, momentum in 0.0..0.99, weight_decay in 0.0..0.1) {
        let config = SgdConfig { lr: 0.1, momentum, nesterov, weight_decay };
        let (start, gradient) = (random(&[len], 1), random(&[len], 2));
        let (mut p, mut v) = (values(&start), vec![0.0; len]);
        for _ in 0..3 {
            for (i, g) in values(&gradient).into_iter().enumerate() {
                let g = g + weight_decay * p[i];
                v[i] = momentum * v[i] + g;
                p[i] -= 0.1 * if nesterov { g + momentum * v[i] } else { v[i] };
            }
        }
        for (dtype, bound) in [(DType::F32, 1e-5), (DType::F64, 1e-13)] {
            let cast = |t: &Tensor| t.to_dtype(dtype).unwrap();
            let param = Var::from_tensor(&cast(&start)).unwrap();
            let velocity = Var::from_tensor(&param.zeros_like().unwrap()).unwrap();
            for _ in 0..3 {
                sgd_step(&param, &cast(&gradient), &velocity, config).unwrap();
            }
            for (got, want) in [(&param, &p), (&velocity, &v)] {
                let want = Tensor::from_slice(want, len, &Device::Cpu).unwrap();
                prop_assert!(relative(got, &want) < bound);
            }
        }
    }
}
