//! Losses and interpolation.

use std::sync::Arc;

use candle_core::{DType, Storage, Tensor};
use mixskd_cuda::loss::{Logits, MeanSquare, Target};
use mixskd_cuda::sum::TwoSides;
use mixskd_cuda::update::{self, MOST_SAMPLES, Pairs};
use mixskd_cuda::{Element, NULL};

use super::lanes;
use super::memory::{Gpu, address, failed, kernel_for, start};
use super::recorded::{Factor, record, record_as};
use super::tape::Back;
use crate::Result;

/// π as u32 and λ as floats, in the GPU's memory.
struct Partners {
    partner: Tensor,
    lambda: Tensor,
}

impl Partners {
    fn new(partner: &Tensor, lambda: &Tensor) -> candle_core::Result<Self> {
        Ok(Self {
            partner: partner.to_dtype(DType::U32)?.contiguous()?,
            lambda: lambda.detach().to_dtype(DType::F32)?.contiguous()?,
        })
    }
}

/// What the logits are compared with, kept until the way back.
enum Kept {
    Labels(Tensor, Option<Partners>),
    Soft(Tensor),
    Teacher(Tensor, f32),
}

impl Kept {
    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Labels(own, pairs) => {
                let pairs = pairs.iter().flat_map(|p| [&p.partner, &p.lambda]);
                std::iter::once(own).chain(pairs).collect()
            }
            Self::Soft(t) | Self::Teacher(t, _) => vec![t],
        }
    }

    fn target(&self) -> candle_core::Result<Target> {
        Ok(match self {
            Self::Labels(own, pairs) => Target::Labels {
                own: address(own)?,
                partner: pairs.as_ref().map_or(Ok(NULL), |p| address(&p.partner))?,
                lambda: pairs.as_ref().map_or(Ok(NULL), |p| address(&p.lambda))?,
            },
            Self::Soft(t) => Target::Soft(address(t)?),
            Self::Teacher(t, temperature) => Target::Teacher(address(t)?, *temperature),
        })
    }
}

/// Cross-entropy with labels, and with the partners' labels and λ where there are any. A label that is no class gives NaN.
pub(crate) fn label_loss(
    logits: &Tensor,
    labels: &Tensor,
    pairs: Option<(&Tensor, &Tensor)>,
) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[logits], &[])? else {
        return Ok(None);
    };
    let own = labels.to_dtype(DType::U32)?.contiguous()?;
    let pairs = pairs
        .map(|(partner, lambda)| Partners::new(partner, lambda))
        .transpose()?;
    on_logits(gpu, element, logits, Kept::Labels(own, pairs))
}

pub(crate) fn soft_loss(logits: &Tensor, targets: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[logits, targets], &[])? else {
        return Ok(None);
    };
    let targets = targets.detach().contiguous()?;
    on_logits(gpu, element, logits, Kept::Soft(targets))
}

pub(crate) fn divergence(
    student: &Tensor,
    teacher: &Tensor,
    temperature: f64,
) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[student, teacher], &[])? else {
        return Ok(None);
    };
    let teacher = teacher.detach().contiguous()?;
    on_logits(
        gpu,
        element,
        student,
        Kept::Teacher(teacher, temperature as f32),
    )
}

fn on_logits(
    gpu: Arc<Gpu>,
    element: Element,
    logits: &Tensor,
    kept: Kept,
) -> Result<Option<Tensor>> {
    let z = logits.contiguous()?;
    let (rows, classes) = z.dims2()?;
    let sizes = Logits {
        rows,
        classes,
        element,
    };
    let scratch = gpu.empty(DType::F32, rows)?;
    let loss = gpu.storage(DType::F32, 1)?;
    let mut used = kept.tensors();
    used.extend([&z, &scratch]);
    // SAFETY: the arrays are as long as the sizes say.
    lanes::aside(&used, || unsafe {
        let (z, scratch, loss) = (address(&z)?, address(&scratch)?, start(&loss)?);
        sizes
            .forward(gpu.engine(), z, kept.target()?, scratch, loss)
            .map_err(failed)
    })?;
    let backward = move |inputs: &[&Tensor], dy: &Factor| {
        let z = inputs[0];
        let dz = gpu.empty(z.dtype(), z.shape())?;
        // SAFETY: as above; the loss's gradient is one float.
        unsafe {
            let (z, dy, dz) = (address(z)?, dy.gradient()?, address(&dz)?);
            sizes
                .backward(gpu.engine(), z, kept.target()?, dy, dz)
                .map_err(failed)?;
        }
        Ok(vec![Some(dz)])
    };
    made("mixskd-cuda-loss", &[&z], loss, backward)
}

/// A loss of `inputs` that was made [aside](lanes::aside).
fn made(
    name: &'static str,
    inputs: &[&Tensor],
    loss: Storage,
    backward: impl Fn(&[&Tensor], &Factor) -> candle_core::Result<Vec<Option<Tensor>>>
    + Send
    + Sync
    + 'static,
) -> Result<Option<Tensor>> {
    let loss = record_as(name, inputs, loss, (), Back::OfLoss(Box::new(backward)))?;
    lanes::keep_aside(&loss)?;
    Ok(Some(loss))
}

/// The mean square of `x − y`, `x` interpolated where there are pairs.
pub(crate) fn mean_square(
    x: &Tensor,
    pairs: Option<(&Tensor, &Tensor)>,
    y: &Tensor,
) -> Result<Option<Tensor>> {
    let rows = if pairs.is_some() { x.dim(0)? } else { 1 };
    let Some((gpu, element)) = kernel_for(&[x, y], &[])? else {
        return Ok(None);
    };
    if rows > MOST_SAMPLES {
        return Ok(None);
    }
    let length = x.elem_count() / rows;
    let pairs = pairs
        .map(|(partner, lambda)| Partners::new(partner, lambda))
        .transpose()?;
    let sizes = move |pairs: &Option<Partners>| {
        Ok::<_, candle_core::Error>(MeanSquare {
            rows,
            length,
            partner: pairs.as_ref().map_or(Ok(NULL), |p| address(&p.partner))?,
            lambda: pairs.as_ref().map_or(Ok(NULL), |p| address(&p.lambda))?,
            element,
        })
    };
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let square = sizes(&pairs)?;
    let scratch = gpu.empty(DType::F32, square.scratch().map_err(failed)?)?;
    let loss = gpu.storage(DType::F32, 1)?;
    let mut used = vec![&x, &y, &scratch];
    used.extend(pairs.iter().flat_map(|p| [&p.partner, &p.lambda]));
    // SAFETY: the arrays are as long as the sizes say. That partners are samples is the caller's word: only the host could check it.
    lanes::aside(&used, || unsafe {
        let (x, y) = (address(&x)?, address(&y)?);
        square
            .forward(gpu.engine(), x, y, address(&scratch)?, start(&loss)?)
            .map_err(failed)
    })?;
    let backward = move |inputs: &[&Tensor], dy: &Factor| {
        let (x, y) = (inputs[0], inputs[1]);
        let square = sizes(&pairs)?;
        let wanted = |t: &Tensor| {
            t.track_op()
                .then(|| gpu.empty(t.dtype(), t.shape()))
                .transpose()
        };
        let (first, second) = (wanted(x)?, wanted(y)?);
        let place = |t: &Option<Tensor>| t.as_ref().map_or(Ok(NULL), address);
        // SAFETY: as above.
        unsafe {
            let to = [place(&first)?, place(&second)?];
            let (x, y, dy) = (address(x)?, address(y)?, dy.gradient()?);
            square
                .backward(gpu.engine(), x, y, dy, to)
                .map_err(failed)?;
        }
        let dx = match (&pairs, first) {
            (Some(pairs), Some(first)) => Some(back(&gpu, element, pairs, &first)?),
            (_, first) => first,
        };
        Ok(vec![dx, second])
    };
    made("mixskd-cuda-mean-square", &[&x, &y], loss, backward)
}

/// Sends a gradient back through the interpolation.
fn back(gpu: &Gpu, element: Element, pairs: &Partners, dy: &Tensor) -> candle_core::Result<Tensor> {
    let dx = gpu.empty(dy.dtype(), dy.shape())?;
    // SAFETY: both are as long as the sizes say.
    unsafe {
        let sizes = sizes(pairs, dy, element)?;
        update::interpolate_backward(gpu.engine(), sizes, address(dy)?, 1.0, address(&dx)?)
            .map_err(failed)?;
    }
    Ok(dx)
}

fn sizes(pairs: &Partners, x: &Tensor, element: Element) -> candle_core::Result<Pairs> {
    let batch = x.dim(0)?;
    Ok(Pairs {
        batch,
        length: x.elem_count() / batch,
        partner: address(&pairs.partner)?,
        lambda: address(&pairs.lambda)?,
        element,
    })
}

/// That partners are samples is the caller's word: only the host could check it.
pub(crate) fn interpolate(x: &Tensor, partner: &Tensor, lambda: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    if x.dim(0)? > MOST_SAMPLES {
        return Ok(None);
    }
    let pairs = Partners::new(partner, lambda)?;
    let x = x.contiguous()?;
    let y = gpu.storage(x.dtype(), x.elem_count())?;
    // SAFETY: both are as long as the sizes say.
    unsafe {
        let sizes = sizes(&pairs, &x, element)?;
        update::interpolate(gpu.engine(), sizes, address(&x)?, start(&y)?).map_err(failed)?;
    }
    let backward = move |_: &[&Tensor], _: &Tensor, dy: &Tensor| {
        Ok(vec![Some(back(&gpu, element, &pairs, dy)?)])
    };
    let shape = x.shape().clone();
    Ok(Some(record(
        "mixskd-cuda-interpolate",
        &[&x],
        y,
        shape,
        backward,
    )?))
}

/// Binary cross-entropy of what a discriminator says of two batches, float `[batch, 1 or 2]` each.
pub(crate) fn discriminator_loss(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, Element::F32)) = kernel_for(&[a, b], &[])? else {
        return Ok(None);
    };
    let (rows, answers) = a.dims2()?;
    let sizes = TwoSides { rows, answers };
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let loss = gpu.storage(DType::F32, 1)?;
    // SAFETY: the arrays are as long as the sizes say.
    lanes::aside(&[&a, &b], || unsafe {
        let from = [address(&a)?, address(&b)?];
        sizes
            .forward(gpu.engine(), from, start(&loss)?)
            .map_err(failed)
    })?;
    let backward = move |inputs: &[&Tensor], dy: &Factor| {
        let (a, b) = (inputs[0], inputs[1]);
        let [da, db] = [a, b].map(|t| gpu.empty(DType::F32, t.shape()));
        let (da, db) = (da?, db?);
        // SAFETY: as above; the loss's gradient is one float.
        unsafe {
            let (from, to) = ([address(a)?, address(b)?], [address(&da)?, address(&db)?]);
            sizes
                .backward(gpu.engine(), from, dy.gradient()?, to)
                .map_err(failed)?;
        }
        Ok(vec![Some(da), Some(db)])
    };
    made("mixskd-cuda-two-sides", &[&a, &b], loss, backward)
}
