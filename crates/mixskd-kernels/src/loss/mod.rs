//! Losses: one pass forward, one backward, nothing of the inputs' size kept in between.
//!
//! Sums are taken in double precision over parts whose borders depend on the shape alone, and joined in order.

mod logits;
mod mse;

use candle_core::{DType, Tensor};

use crate::record;
use crate::storage;
use crate::{Error, Result, compose, gpu, shape};

/// Cross-entropy of the softmax with one label a sample: `−mean_i log softmax(logits_i)[y_i]`.
///
/// # Shapes
/// - `logits`: `[batch, class]`; `labels`: `[batch]`, u32
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or a label is not below the number of classes.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let (batch, classes) = matrix(OP, "logits", logits)?;
    shape::exactly(OP, "labels", labels, &[batch])?;
    if let Some(loss) = gpu::label_loss(logits, labels, None)? {
        return Ok(loss);
    }
    if !storage::has_kernel(&[logits]) {
        return compose::cross_entropy(logits, labels);
    }
    let own = labels_below(OP, labels, classes)?;
    let targets = own.into_iter().map(|y| [(y, 1.0), (y, 0.0)]).collect();
    logits::label_cross_entropy(logits, targets)
}

/// Cross-entropy of mixes with both of their labels: `mean_i [λ_i·CE_i(y_i) + (1 − λ_i)·CE_i(y_π(i))]`
/// (Zhang et al., mixup, 2018). λ is detached.
///
/// # Shapes
/// - `logits`: `[batch, class]`; `labels`, `partner_labels`: `[batch]`, u32; `lambda`: `[batch]`, any float type
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or a label is not below the number of classes.
pub fn mix_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    partner_labels: &Tensor,
    lambda: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "mix_cross_entropy";
    let (batch, classes) = matrix(OP, "logits", logits)?;
    shape::exactly(OP, "labels", labels, &[batch])?;
    shape::exactly(OP, "partner labels", partner_labels, &[batch])?;
    shape::exactly(OP, "lambda", lambda, &[batch])?;
    let pairs = Some((partner_labels, lambda));
    if let Some(loss) = gpu::label_loss(logits, labels, pairs)? {
        return Ok(loss);
    }
    if !storage::has_kernel(&[logits]) {
        return compose::mix_cross_entropy(logits, labels, partner_labels, lambda);
    }
    let own = labels_below(OP, labels, classes)?;
    let partner = labels_below(OP, partner_labels, classes)?;
    let lambda = lambda.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let targets = own
        .into_iter()
        .zip(partner)
        .zip(lambda)
        .map(|((own, partner), l)| [(own, l), (partner, 1.0 - l)])
        .collect();
    logits::label_cross_entropy(logits, targets)
}

/// Cross-entropy with soft targets: `−mean_i Σ_c t_ic·log softmax(logits_i)[c]`. Targets are detached and need not sum to
/// one.
///
/// # Shapes
/// - `logits`, `targets`: `[batch, class]`, of one type
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "soft_cross_entropy";
    let (batch, classes) = matrix(OP, "logits", logits)?;
    shape::exactly(OP, "targets", targets, &[batch, classes])?;
    if let Some(loss) = gpu::soft_loss(logits, targets)? {
        return Ok(loss);
    }
    if !storage::has_kernel(&[logits, targets]) {
        return compose::soft_cross_entropy(logits, targets);
    }
    let targets = targets.detach().contiguous()?;
    Ok(record::apply2(
        &logits.contiguous()?,
        &targets,
        logits::SoftCrossEntropy,
    )?)
}

/// `T²·mean_i Σ_c p_ic·(log p_ic − log q_ic)`, `p = softmax(teacher / T)`, `q = softmax(student / T)`
/// (Hinton et al. 2015). The teacher is detached.
///
/// # Shapes
/// - `student`, `teacher`: `[batch, class]`, logits of one type
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or the temperature is not a finite number above 0.
pub fn kl_divergence(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    const OP: &str = "kl_divergence";
    let (batch, classes) = matrix(OP, "student", student)?;
    shape::exactly(OP, "teacher", teacher, &[batch, classes])?;
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(Error::Config {
            op: OP,
            message: format!("temperature must be finite and above 0, got {temperature}"),
        });
    }
    if let Some(loss) = gpu::divergence(student, teacher, temperature)? {
        return Ok(loss);
    }
    if !storage::has_kernel(&[student, teacher]) {
        return compose::kl_divergence(student, teacher, temperature);
    }
    let teacher = teacher.detach().contiguous()?;
    let op = logits::Divergence { temperature };
    Ok(record::apply2(&student.contiguous()?, &teacher, op)?)
}

/// `mean((a − b)²)` over all elements; the gradient flows to both sides.
///
/// # Shapes
/// - `a`, `b`: the same, with at least one element, of one type
/// - result: `[]`
///
/// # Errors
/// When the shapes differ or are empty.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const OP: &str = "mse";
    not_empty(OP, "a", a)?;
    shape::exactly(OP, "b", b, a.dims())?;
    if let Some(loss) = gpu::mean_square(a, None, b)? {
        return Ok(loss);
    }
    if !storage::has_kernel(&[a, b]) {
        return compose::mse(a, b);
    }
    Ok(record::apply2(
        &a.contiguous()?,
        &b.contiguous()?,
        mse::Mse,
    )?)
}

/// `mean((λ_i·x_i + (1 − λ_i)·x_π(i) − y_i)²)`: [`mse`] of [`interpolate`](crate::interpolate)d maps without ever writing them
/// (MixSKD, Yang et al. 2022, the feature loss). The gradient flows to `x` and `y`, not to λ.
///
/// # Shapes
/// - `x`, `y`: `[batch, …]`, the same, with at least one element, of one type
/// - `partner`: `[batch]`, u32, π; `lambda`: `[batch]`, any float type
/// - result: `[]`
///
/// # Errors
/// When a shape does not fit or a partner is out of range.
pub fn interpolated_mse(
    x: &Tensor,
    partner: &Tensor,
    lambda: &Tensor,
    y: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "interpolated_mse";
    not_empty(OP, "x", x)?;
    let batch = x.dims().first().copied().unwrap_or(1);
    shape::exactly(OP, "y", y, x.dims())?;
    shape::exactly(OP, "partner", partner, &[batch])?;
    shape::exactly(OP, "lambda", lambda, &[batch])?;
    if x.rank() > 0
        && let Some(loss) = gpu::mean_square(x, Some((partner, lambda)), y)?
    {
        return Ok(loss);
    }
    if !storage::has_kernel(&[x, y]) || x.rank() == 0 {
        return compose::interpolated_mse(x, partner, lambda, y);
    }
    let partner: Vec<u32> = partner.to_vec1()?;
    if let Some(&bad) = partner.iter().find(|&&p| p as usize >= batch) {
        return Err(Error::Config {
            op: OP,
            message: format!("partner {bad} is not in a batch of {batch}"),
        });
    }
    let lambda = lambda.to_dtype(DType::F64)?.to_vec1()?;
    let op = mse::InterpolatedMse { partner, lambda };
    Ok(record::apply2(&x.contiguous()?, &y.contiguous()?, op)?)
}

/// Batch and classes of a `[batch, class]` tensor with at least one of each.
fn matrix(op: &'static str, what: &'static str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims2() {
        Ok((batch, classes)) if batch > 0 && classes > 0 => Ok((batch, classes)),
        _ => Err(Error::Shape {
            op,
            what,
            wanted: "[batch, class], neither of them 0".into(),
            got: x.dims().to_vec(),
        }),
    }
}

fn not_empty(op: &'static str, what: &'static str, x: &Tensor) -> Result<()> {
    if x.elem_count() > 0 {
        return Ok(());
    }
    Err(Error::Shape {
        op,
        what,
        wanted: "at least one element".into(),
        got: x.dims().to_vec(),
    })
}

/// The labels, all of them below `classes`.
fn labels_below(op: &'static str, labels: &Tensor, classes: usize) -> Result<Vec<usize>> {
    let labels: Vec<u32> = labels.to_vec1()?;
    match labels.iter().find(|&&y| y as usize >= classes) {
        Some(bad) => Err(Error::Config {
            op,
            message: format!("label {bad} is not one of {classes} classes"),
        }),
        None => Ok(labels.into_iter().map(|y| y as usize).collect()),
    }
}
