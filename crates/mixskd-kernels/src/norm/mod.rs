//! Batch normalisation with the residual sum and ReLU that follow it.

mod apply;
mod op;
mod stats;

use candle_core::{D, DType, Tensor, Var};

use crate::record;
use crate::storage::{self, by_dtype};
use crate::{Error, Result, compose, gpu, shape};
pub(crate) use op::{Normalise, Wanted};

/// PyTorch's default ε, added to the variance.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// Batch statistics of one training step, detached; the layer folds them into its running averages.
#[derive(Debug, Clone)]
pub struct BatchStats {
    /// Mean per channel, `[channel]`.
    pub mean: Tensor,
    /// Biased variance per channel (divided by the count), `[channel]`; it normalised the batch.
    pub var: Tensor,
    /// Samples per channel: batch · height · width. The running variance takes `var · count / (count − 1)`.
    pub count: usize,
}

fn check(x: &Tensor, channels: &[&Tensor], residual: Option<&Tensor>) -> Result<()> {
    let (_, _, _, c) = shape::nhwc("batch_norm", "input", x)?;
    for t in channels {
        shape::exactly("batch_norm", "per-channel tensor", t, &[c])?;
    }
    match residual {
        Some(r) => shape::exactly("batch_norm", "residual", r, x.dims()),
        None => Ok(()),
    }
}

/// Normalises by the batch's own statistics, scales, shifts, adds `residual` and applies ReLU where asked:
/// `act(weight · (x − mean) / √(var + eps) + bias + residual)` (Ioffe & Szegedy 2015).
///
/// # Shapes
/// - `x`, `residual`, result: `[batch, height, width, channel]`
/// - `weight`, `bias`: `[channel]`
///
/// # Errors
/// When a shape does not fit.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    check(x, &[weight, bias], residual)?;
    if let Some(done) = gpu::batch_norm_train(x, [weight, bias], eps, residual, relu)? {
        return Ok(done);
    }
    if !can_run(x, &[weight, bias], residual) {
        return compose::batch_norm_train(x, weight, bias, eps, residual, relu);
    }
    let x = x.contiguous()?;
    let (op, stats) = by_own_statistics(&x, eps, relu)?;
    Ok((normalise(&x, weight, bias, residual, op)?, stats))
}

/// The op that normalises `x`, contiguous, by its own statistics.
pub(crate) fn by_own_statistics(
    x: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Normalise, BatchStats)> {
    let channels = x.dim(D::Minus1)?;
    let (mean, var) = by_dtype!(x.dtype(), T => {
        storage::with_slice::<T, _>(x, |x| Ok(stats::mean_var(x, channels)))
    })?;
    let per_channel =
        |values: &[f64]| Tensor::new(values, x.device()).and_then(|t| t.to_dtype(x.dtype()));
    let stats = BatchStats {
        mean: per_channel(&mean)?,
        var: per_channel(&var)?,
        count: x.elem_count() / channels,
    };
    let op = Normalise {
        inv_std: inverse_std(&var, eps),
        mean,
        relu,
        own_statistics: true,
    };
    Ok((op, stats))
}

/// Like [`batch_norm_train`], by running statistics (inference).
///
/// # Shapes
/// - `x`, `residual`, result: `[batch, height, width, channel]`
/// - `weight`, `bias`, `mean`, `var`: `[channel]`
///
/// # Errors
/// When a shape does not fit.
pub fn batch_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    check(x, &[weight, bias, mean, var], residual)?;
    if let Some(y) = gpu::batch_norm_eval(x, [weight, bias, mean, var], eps, residual, relu)? {
        return Ok(y);
    }
    if !can_run(x, &[weight, bias, mean, var], residual) {
        return compose::batch_norm_eval(x, weight, bias, mean, var, eps, residual, relu);
    }
    let op = Normalise {
        mean: mean.to_dtype(DType::F64)?.to_vec1()?,
        inv_std: inverse_std(&var.to_dtype(DType::F64)?.to_vec1()?, eps),
        relu,
        own_statistics: false,
    };
    normalise(&x.contiguous()?, weight, bias, residual, op)
}

/// Moves running statistics towards a batch's, in place (on a GPU, while there is a [`Tape`](crate::Tape), when it goes back or [`batch_norm_eval`] is called): `running ← (1 − momentum) · running + momentum · batch`, the variance there
/// unbiased (divided by count − 1), as PyTorch does.
///
/// # Shapes
/// - `mean`, `var`: `[channel]`
///
/// # Errors
/// When a shape does not fit, or the batch gave each channel one value alone, whose variance nobody knows.
pub fn move_running(mean: &Var, var: &Var, stats: &BatchStats, momentum: f64) -> Result<()> {
    if stats.count < 2 {
        return Err(Error::Config {
            op: "move_running",
            message: format!(
                "statistics of {} value for each channel have no variance: batch norm trains with two images or two positions at least",
                stats.count
            ),
        });
    }
    if gpu::move_running([mean, var], stats, momentum)?.is_some() {
        return Ok(());
    }
    let unbiased = stats.count as f64 / (stats.count - 1) as f64;
    let moved = |running: &Var, batch: &Tensor, scale: f64| -> Result<()> {
        let kept = (running.as_detached_tensor() * (1.0 - momentum))?;
        running.set(&(kept + (batch * (momentum * scale))?)?)?;
        Ok(())
    };
    moved(mean, &stats.mean, 1.0)?;
    moved(var, &stats.var, unbiased)
}

/// Whether the kernels apply; statistics of nothing, and gradients into given statistics, are left to candle.
fn can_run(x: &Tensor, channels: &[&Tensor], residual: Option<&Tensor>) -> bool {
    let mut all = vec![x];
    all.extend(channels);
    all.extend(residual);
    let given_statistics = channels.get(2..).unwrap_or_default();
    storage::has_kernel(&all)
        && x.elem_count() > 0
        && !given_statistics.iter().any(|t| t.track_op())
}

fn inverse_std(var: &[f64], eps: f64) -> Vec<f64> {
    var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect()
}

fn normalise(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    op: Normalise,
) -> Result<Tensor> {
    let params = Tensor::stack(&[weight, bias], 0)?;
    Ok(match residual {
        Some(residual) => record::apply3(x, &params, &residual.contiguous()?, op)?,
        None => record::apply2(x, &params, op)?,
    })
}
