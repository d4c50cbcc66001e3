//! Pooling by attention: a weighted mean over positions whose weights are a softmax of scores.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use crate::par::{self, Shared};
use crate::record;
use crate::simd::Element;
use crate::storage::{self, by_dtype};
use crate::{Result, compose, gpu, shape};

/// `Σ_p softmax(scores)_p · x_p` over the positions p of each sample (the global context of Cao et al., GCNet, 2019).
///
/// # Shapes
/// `x`: `[batch, height, width, channel]`, `scores`: `[batch, height, width, 1]` → `[batch, 1, 1, channel]`
///
/// # Errors
/// When a shape does not fit.
pub fn attention_pool2d(x: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let (batch, h, w, _) = shape::nhwc("attention_pool2d", "input", x)?;
    shape::exactly("attention_pool2d", "scores", scores, &[batch, h, w, 1])?;
    if let Some(y) = gpu::attention_pool2d(x, scores)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, scores]) || x.elem_count() == 0 {
        return compose::attention_pool2d(x, scores);
    }
    Ok(record::apply2(
        &x.contiguous()?,
        &scores.contiguous()?,
        AttentionPool,
    )?)
}

struct AttentionPool;

/// Softmax in double precision.
fn softmax<T: Element>(scores: &[T]) -> Vec<f64> {
    let top = scores
        .iter()
        .map(|s| s.to_f64())
        .fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|s| (s.to_f64() - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// One sample's pooled channels, into `y`.
fn forward<T: Element>(x: &[T], scores: &[T], y: &mut [T]) {
    let mut sums = vec![0.0; y.len()];
    for (row, weight) in x.chunks_exact(y.len()).zip(softmax(scores)) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += weight * value.to_f64();
        }
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = T::of(sum);
    }
}

/// One sample's gradients: `dx_p = a_p · dy` and `ds_p = a_p · (x_p·dy − Σ_q a_q x_q·dy)`.
fn backward<T: Element>(x: &[T], scores: &[T], dy: &[T], dx: &mut [T], ds: &mut [T]) {
    let weights = softmax(scores);
    let channels = dy.len();
    let products: Vec<f64> = x
        .chunks_exact(channels)
        .map(|row| {
            let pairs = row.iter().zip(dy);
            pairs.map(|(x, dy)| x.to_f64() * dy.to_f64()).sum()
        })
        .collect();
    let mean: f64 = weights.iter().zip(&products).map(|(a, p)| a * p).sum();
    for (p, row) in dx.chunks_exact_mut(channels).enumerate() {
        ds[p] = T::of(weights[p] * (products[p] - mean));
        for (dx, dy) in row.iter_mut().zip(dy) {
            *dx = T::of(weights[p] * dy.to_f64());
        }
    }
}

/// Part `index` of an array cut into parts of `len`.
fn part<T>(array: &[T], index: usize, len: usize) -> &[T] {
    &array[index * len..(index + 1) * len]
}

fn pooled<T: Element>(x: &[T], scores: &[T], batch: usize, channels: usize) -> Vec<T> {
    let mut y = vec![T::default(); batch * channels];
    let shared = Shared::new(&mut y);
    par::each(batch, |b| {
        let x = part(x, b, x.len() / batch);
        let scores = part(scores, b, scores.len() / batch);
        // SAFETY: every sample's output is written by its own task.
        let y = unsafe { std::slice::from_raw_parts_mut(shared.at(b * channels), channels) };
        forward(x, scores, y);
    });
    y
}

fn gradients<T: Element>(x: &[T], scores: &[T], dy: &[T], batch: usize) -> (Vec<T>, Vec<T>) {
    let (image, positions, channels) = (x.len() / batch, scores.len() / batch, dy.len() / batch);
    let mut dx = vec![T::default(); x.len()];
    let mut ds = vec![T::default(); scores.len()];
    let (dx_shared, ds_shared) = (Shared::new(&mut dx), Shared::new(&mut ds));
    par::each(batch, |b| {
        // SAFETY: every sample's gradients are written by its own task.
        let (dx, ds) = unsafe {
            (
                std::slice::from_raw_parts_mut(dx_shared.at(b * image), image),
                std::slice::from_raw_parts_mut(ds_shared.at(b * positions), positions),
            )
        };
        let (x, scores) = (part(x, b, image), part(scores, b, positions));
        backward(x, scores, part(dy, b, channels), dx, ds);
    });
    (dx, ds)
}

impl CustomOp2 for AttentionPool {
    fn name(&self) -> &'static str {
        "mixskd-attention-pool2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scores: &CpuStorage,
        scores_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, _, _, channels) = x_layout.shape().dims4()?;
        by_dtype!(x.dtype(), T => {
            let x = storage::slice::<T>(x, x_layout)?;
            let scores = storage::slice::<T>(scores, scores_layout)?;
            let y = pooled(x, scores, batch, channels);
            Ok(storage::own(y, (batch, 1, 1, channels)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        scores: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let batch = x.dim(0)?;
        by_dtype!(x.dtype(), T => {
            let (dx, ds) = storage::with_slice::<T, _>(x, |x| {
                storage::with_slice::<T, _>(scores, |scores| {
                    storage::with_slice::<T, _>(&dy, |dy| Ok(gradients(x, scores, dy, batch)))
                })
            })?;
            Ok((
                Some(Tensor::from_vec(dx, x.shape(), x.device())?),
                Some(Tensor::from_vec(ds, scores.shape(), scores.device())?),
            ))
        })
    }
}
