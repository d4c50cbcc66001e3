//! The losses as chains of candle's ops.

use candle_core::{D, DType, Tensor};

use super::interpolate;
use crate::Result;

/// `z − max z − log Σ_c exp(z_c − max z)` along the last axis.
///
/// The maximum is a constant to the gradient: it cancels, and candle's own gradient of a maximum is wrong at ties.
fn log_softmax(z: &Tensor) -> Result<Tensor> {
    let shifted = z.broadcast_sub(&z.detach().max_keepdim(D::Minus1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&log_sum)?)
}

/// `[batch]`: each row's entry at its label.
fn at_label(log_p: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(log_p.gather(&labels.unsqueeze(1)?, 1)?.squeeze(1)?)
}

/// See [`crate::cross_entropy`].
///
/// # Errors
/// candle's.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let log_p = at_label(&log_softmax(logits)?, labels)?;
    Ok(log_p.mean_all()?.neg()?)
}

/// See [`crate::mix_cross_entropy`].
///
/// # Errors
/// candle's.
pub fn mix_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    partner_labels: &Tensor,
    lambda: &Tensor,
) -> Result<Tensor> {
    let log_p = log_softmax(logits)?;
    let lambda = lambda.detach().to_dtype(log_p.dtype())?;
    let own = (at_label(&log_p, labels)? * &lambda)?;
    let partner = (at_label(&log_p, partner_labels)? * (1.0 - lambda)?)?;
    Ok((own + partner)?.mean_all()?.neg()?)
}

/// See [`crate::soft_cross_entropy`].
///
/// # Errors
/// candle's.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (batch, _) = logits.dims2()?;
    let log_p = log_softmax(logits)?;
    let targets = targets.detach().to_dtype(log_p.dtype())?;
    Ok(((log_p * targets)?.sum_all()? * (-1.0 / batch as f64))?)
}

/// See [`crate::kl_divergence`].
///
/// # Errors
/// candle's.
pub fn kl_divergence(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let (batch, _) = student.dims2()?;
    let log_q = log_softmax(&(in_f64(student)? / temperature)?)?;
    let log_p = log_softmax(&(in_f64(&teacher.detach())? / temperature)?)?;
    let divergence = (log_p.exp()? * (&log_p - log_q)?)?.sum_all()?;
    let scaled = (divergence * (temperature * temperature / batch as f64))?;
    Ok(scaled.to_dtype(student.dtype())?)
}

/// The terms of the divergence cancel to second order in the sides' difference: in f32 a small one (a high temperature, or
/// a student close to its teacher) would be rounding noise. Metal knows no f64.
fn in_f64(x: &Tensor) -> Result<Tensor> {
    Ok(if x.device().is_metal() {
        x.clone()
    } else {
        x.to_dtype(DType::F64)?
    })
}

/// See [`crate::mse`].
///
/// # Errors
/// candle's.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a - b)?.sqr()?.mean_all()?)
}

/// See [`crate::interpolated_mse`].
///
/// # Errors
/// candle's.
pub fn interpolated_mse(
    x: &Tensor,
    partner: &Tensor,
    lambda: &Tensor,
    y: &Tensor,
) -> Result<Tensor> {
    mse(&interpolate(x, partner, &lambda.to_dtype(x.dtype())?)?, y)
}
