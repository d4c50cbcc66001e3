//! Random tensors, a naive convolution and the distance between answers.
#![allow(dead_code, clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use mixskd_kernels::Conv2dConfig;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform numbers in [-1, 1), double precision.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data: Vec<f64> = (0..shape.iter().product())
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// Largest difference relative to the largest magnitude, which inputs of order one keep from being tiny.
pub(crate) fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let scale = want.iter().fold(0.05, |m: f64, x| m.max(x.abs()));
    got.iter().zip(&want).fold(0.0, |m: f64, (a, b)| {
        let d = (a - b).abs() / scale;
        if d.is_nan() { f64::INFINITY } else { m.max(d) }
    })
}

/// Output and gradients of a convolution by its definition.
pub(crate) struct Naive {
    pub(crate) y: Tensor,
    pub(crate) dx: Tensor,
    pub(crate) dw: Tensor,
}

impl Naive {
    pub(crate) fn conv2d(x: &Tensor, w: &Tensor, dy: &Tensor, c: Conv2dConfig) -> Self {
        let (batch, h, width, ci) = x.dims4().unwrap();
        let (co, k, kh, kw) = w.dims4().unwrap();
        let (_, oh, ow, _) = dy.dims4().unwrap();
        let (xs, ws, dys) = (values(x), values(w), values(dy));
        let mut y = vec![0.0; dys.len()];
        let mut dx = vec![0.0; xs.len()];
        let mut dw = vec![0.0; ws.len()];
        let out_group = co / c.groups;
        for b in 0..batch {
            for (oy, ox) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
                for (ky, kx) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                    let iy = (oy * c.stride + ky * c.dilation) as isize - c.padding as isize;
                    let ix = (ox * c.stride + kx * c.dilation) as isize - c.padding as isize;
                    if iy < 0 || ix < 0 || iy as usize >= h || ix as usize >= width {
                        continue;
                    }
                    for o in 0..co {
                        for i in 0..k {
                            let xi = ((b * h + iy as usize) * width + ix as usize) * ci
                                + o / out_group * k
                                + i;
                            let wi = ((o * k + i) * kh + ky) * kw + kx;
                            let yi = ((b * oh + oy) * ow + ox) * co + o;
                            y[yi] += xs[xi] * ws[wi];
                            dx[xi] += dys[yi] * ws[wi];
                            dw[wi] += dys[yi] * xs[xi];
                        }
                    }
                }
            }
        }
        let like =
            |data: Vec<f64>, t: &Tensor| Tensor::from_vec(data, t.dims(), &Device::Cpu).unwrap();
        Self {
            y: like(y, dy),
            dx: like(dx, x),
            dw: like(dw, w),
        }
    }
}
