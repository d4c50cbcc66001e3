//! Every kernel once more as a chain of candle's own ops: what runs on a device that has no kernel of ours, and the
//! independent answer the tests compare the kernels with.

mod losses;

use candle_core::{Tensor, Var};

pub use losses::{
    cross_entropy, interpolated_mse, kl_divergence, mix_cross_entropy, mse, soft_cross_entropy,
};

use crate::{Activation, BatchStats, Conv2dConfig, Pool2dConfig, Result, SgdConfig};

fn nchw(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((0, 3, 1, 2))?.contiguous()?)
}

fn nhwc(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((0, 2, 3, 1))?.contiguous()?)
}

/// See [`crate::conv2d`].
///
/// # Errors
/// candle's.
pub fn conv2d(x: &Tensor, weight: &Tensor, config: Conv2dConfig) -> Result<Tensor> {
    let y = nchw(x)?.conv2d(
        weight,
        config.padding,
        config.stride,
        config.dilation,
        config.groups,
    )?;
    nhwc(&y)
}

/// See [`crate::PreparedConv2d::forward`].
///
/// # Errors
/// candle's.
pub fn conv2d_infer(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    config: Conv2dConfig,
    activation: Activation,
) -> Result<Tensor> {
    let mut y = conv2d(x, weight, config)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(bias)?;
    }
    if let Some(residual) = residual {
        y = (y + residual)?;
    }
    Ok(match activation {
        Activation::None => y,
        Activation::Relu => y.relu()?,
        Activation::Relu6 => y.clamp(0.0, 6.0)?,
        Activation::Silu => y.silu()?,
    })
}

fn epilogue(y: Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let y = match residual {
        Some(r) => (y + r)?,
        None => y,
    };
    Ok(if relu { y.relu()? } else { y })
}

/// See [`crate::batch_norm_train`].
///
/// # Errors
/// candle's.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, BatchStats)> {
    let (b, h, w, c) = x.dims4()?;
    let count = b * h * w;
    let flat = x.reshape((count, c))?;
    let mean = flat.mean(0)?;
    let centred = flat.broadcast_sub(&mean)?;
    let var = centred.sqr()?.mean(0)?;
    let scale = (weight / (&var + eps)?.sqrt()?)?;
    let y = centred
        .broadcast_mul(&scale)?
        .broadcast_add(bias)?
        .reshape((b, h, w, c))?;
    let stats = BatchStats {
        mean: mean.detach(),
        var: var.detach(),
        count,
    };
    Ok((epilogue(y, residual, relu)?, stats))
}

/// See [`crate::batch_norm_eval`].
///
/// # Errors
/// candle's.
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
    let scale = (weight / (var + eps)?.sqrt()?)?;
    let shift = (bias - (mean * &scale)?)?;
    let y = x.broadcast_mul(&scale)?.broadcast_add(&shift)?;
    epilogue(y, residual, relu)
}

/// See [`crate::max_pool2d`]. Written as a maximum over the window's taps: candle's own pool knows no padding.
///
/// # Errors
/// candle's.
pub fn max_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    let low = f64::from(f32::MIN);
    let taps = window_taps(x, config, low)?;
    let mut best = taps[0].clone();
    for tap in &taps[1..] {
        best = best.maximum(tap)?;
    }
    Ok(best)
}

/// See [`crate::avg_pool2d`].
///
/// # Errors
/// candle's.
pub fn avg_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    let taps = window_taps(x, config, 0.0)?;
    let mut sum = taps[0].clone();
    for tap in &taps[1..] {
        sum = (sum + tap)?;
    }
    Ok((sum / (config.kernel * config.kernel) as f64)?)
}

/// One strided view of the padded input per tap of the window.
fn window_taps(x: &Tensor, config: Pool2dConfig, fill: f64) -> Result<Vec<Tensor>> {
    let (_, h, w, _) = x.dims4()?;
    let (oh, ow) = (config.out_size(h)?, config.out_size(w)?);
    let p = config.padding;
    let padded = if p == 0 {
        x.clone()
    } else {
        let ones = x
            .ones_like()?
            .pad_with_zeros(1, p, p)?
            .pad_with_zeros(2, p, p)?;
        let outside = ((ones - 1.0)?.neg()? * fill)?.detach();
        (x.pad_with_zeros(1, p, p)?.pad_with_zeros(2, p, p)? + outside)?
    };
    let index = |start: usize, count: usize| -> Result<Tensor> {
        let ids: Vec<u32> = (0..count)
            .map(|i| (start + i * config.stride) as u32)
            .collect();
        Ok(Tensor::new(ids, x.device())?)
    };
    let mut taps = Vec::new();
    for dy in 0..config.kernel {
        let rows = padded.index_select(&index(dy, oh)?, 1)?;
        for dx in 0..config.kernel {
            taps.push(rows.index_select(&index(dx, ow)?, 2)?);
        }
    }
    Ok(taps)
}

/// See [`crate::global_avg_pool2d`].
///
/// # Errors
/// candle's.
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    Ok(x.reshape((b, h * w, c))?.mean(1)?)
}

/// See [`crate::linear`].
///
/// # Errors
/// candle's.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// See [`crate::interpolate`].
///
/// # Errors
/// candle's.
pub fn interpolate(x: &Tensor, partner: &Tensor, lambda: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[0] = lambda.elem_count();
    let lambda = lambda.detach().to_dtype(x.dtype())?.reshape(shape)?;
    let partner = x.index_select(partner, 0)?;
    Ok((x.broadcast_mul(&lambda)? + partner.broadcast_mul(&(1.0 - lambda)?)?)?)
}

/// See [`crate::sgd_step`].
///
/// # Errors
/// candle's.
pub fn sgd_step(param: &Var, grad: &Tensor, velocity: &Var, config: SgdConfig) -> Result<()> {
    let p = param.as_detached_tensor();
    let g = (grad + (&p * config.weight_decay)?)?;
    let v = ((velocity.as_detached_tensor() * config.momentum)? + &g)?;
    let step = if config.nesterov {
        (g + (&v * config.momentum)?)?
    } else {
        v.clone()
    };
    let next = (p - (step * config.lr)?)?;
    velocity.set(&v)?;
    param.set(&next)?;
    Ok(())
}

/// See [`crate::silu`].
///
/// # Errors
/// candle's.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(x.silu()?)
}

/// See [`crate::relu6`].
///
/// # Errors
/// candle's.
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? - (x - 6.0)?.relu()?)?)
}

/// See [`crate::sigmoid`].
///
/// # Errors
/// candle's.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
}

/// See [`crate::concat_channels`].
///
/// # Errors
/// candle's.
pub fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(Tensor::cat(&[a, b], 3)?)
}

/// See [`crate::slice_channels`].
///
/// # Errors
/// candle's.
pub fn slice_channels(x: &Tensor, start: usize, count: usize) -> Result<Tensor> {
    Ok(x.narrow(3, start, count)?.contiguous()?)
}

/// See [`crate::shuffle_channels`].
///
/// # Errors
/// candle's.
pub fn shuffle_channels(x: &Tensor, groups: usize) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let grouped = x.reshape((b, h, w, groups, c / groups))?;
    Ok(grouped.transpose(3, 4)?.contiguous()?.reshape(x.shape())?)
}

/// See [`crate::scale_channels`].
///
/// # Errors
/// candle's.
pub fn scale_channels(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (b, _, _, c) = x.dims4()?;
    let factors = factors.to_dtype(x.dtype())?.reshape((b, 1, 1, c))?;
    Ok(x.broadcast_mul(&factors)?)
}

/// See [`crate::shift_channels`].
///
/// # Errors
/// candle's.
pub fn shift_channels(x: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (b, _, _, c) = x.dims4()?;
    let shift = shift.to_dtype(x.dtype())?.reshape((b, 1, 1, c))?;
    Ok(x.broadcast_add(&shift)?)
}

/// See [`crate::add_bias`].
///
/// # Errors
/// candle's.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_add(&bias.to_dtype(x.dtype())?)?)
}

/// See [`crate::attention_pool2d`].
///
/// # Errors
/// candle's.
pub fn attention_pool2d(x: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let scores = scores.reshape((b, h * w, 1))?;
    let top = scores.max_keepdim(1)?.detach();
    let powers = scores.broadcast_sub(&top)?.exp()?;
    let weights = powers.broadcast_div(&powers.sum_keepdim(1)?)?;
    let pooled = x.reshape((b, h * w, c))?.broadcast_mul(&weights)?.sum(1)?;
    Ok(pooled.reshape((b, 1, 1, c))?)
}
