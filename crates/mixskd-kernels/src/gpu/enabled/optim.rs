//! The optimiser's update, and what a step is judged by before it.

use candle_core::{DType, Tensor, Var};
use mixskd_cuda::optim::{self, Sgd, Slot};
use mixskd_cuda::{Element, NULL};

use super::memory::{address, failed, kernel_for};
use crate::{ParameterUpdate, Result, SgdConfig};

/// Updates the memory behind parameters and velocities in place.
pub(crate) fn sgd_steps(
    updates: &[ParameterUpdate],
    rate: &Tensor,
    verdict: Option<&Tensor>,
    config: SgdConfig,
) -> Result<Option<()>> {
    let Some(first) = updates.first() else {
        return Ok(None);
    };
    let mut floats: Vec<&Tensor> = vec![rate];
    floats.extend(verdict);
    for update in updates {
        let contiguous = update.parameter.is_contiguous() && update.velocity.is_contiguous();
        if !contiguous || update.parameter.elem_count() == 0 {
            return Ok(None);
        }
        let all: [&Tensor; 3] = [update.parameter, update.gradient, update.velocity];
        floats.extend(all);
    }
    let Some((gpu, Element::F32)) = kernel_for(&[first.parameter], &floats)? else {
        return Ok(None);
    };
    let gradients = updates
        .iter()
        .map(|update| update.gradient.contiguous())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let slots = updates
        .iter()
        .zip(&gradients)
        .map(|(update, gradient)| {
            Ok(Slot {
                parameter: address(update.parameter)?,
                gradient: address(gradient)?,
                velocity: address(update.velocity)?,
                len: gradient.elem_count(),
                factor: update.factor as f32,
            })
        })
        .collect::<candle_core::Result<Vec<_>>>()?;
    // Two names of one array would be read after they are written.
    let overlap = |slot: &Slot| {
        slot.parameter == slot.gradient
            || slot.parameter == slot.velocity
            || slot.velocity == slot.gradient
    };
    if slots.iter().any(overlap) {
        return Ok(None);
    }
    let sgd = Sgd {
        momentum: config.momentum as f32,
        decay: config.weight_decay as f32,
        nesterov: config.nesterov,
    };
    let verdict = verdict.map_or(Ok(NULL), address)?;
    // SAFETY: the three arrays of a slot have as many floats as the parameter.
    unsafe { sgd.step(gpu.engine(), &slots, address(rate)?, verdict) }.map_err(failed)?;
    Ok(Some(()))
}

/// `[Σ x², 1 if that is finite or else 0]` over all `tensors`.
pub(crate) fn judge(tensors: &[&Tensor]) -> Result<Option<Tensor>> {
    let Some((gpu, Element::F32)) = tensors
        .first()
        .map_or(Ok(None), |first| kernel_for(&[first], tensors))?
    else {
        return Ok(None);
    };
    let tensors = tensors
        .iter()
        .map(|t| t.contiguous())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let arrays = tensors
        .iter()
        .map(|t| Ok((address(t)?, t.elem_count())))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let room = optim::judge_scratch(arrays.iter().map(|&(_, len)| len));
    let scratch = gpu.empty(DType::F64, room)?;
    let verdict = gpu.empty(DType::F32, 2)?;
    // SAFETY: the arrays are as long as the functions ask.
    unsafe {
        optim::judge(
            gpu.engine(),
            &arrays,
            address(&scratch)?,
            address(&verdict)?,
        )
    }
    .map_err(failed)?;
    Ok(Some(verdict))
}

/// Rows whose largest logit is the target's, as one float.
pub(crate) fn count_hits(logits: &Tensor, targets: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, Element::F32)) = kernel_for(&[logits], &[])? else {
        return Ok(None);
    };
    let sizes = logits.dims2()?;
    let (logits, targets) = (
        logits.contiguous()?,
        targets.to_dtype(DType::U32)?.contiguous()?,
    );
    let scratch = gpu.empty(DType::F32, sizes.0)?;
    let hits = gpu.empty(DType::F32, ())?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe {
        let inputs = [address(&logits)?, address(&targets)?];
        let (scratch, to) = (address(&scratch)?, address(&hits)?);
        optim::count_hits(gpu.engine(), sizes.into(), inputs, scratch, to).map_err(failed)?;
    }
    Ok(Some(hits))
}

/// One parameter's update.
pub(crate) fn sgd_step(
    parameter: &Var,
    gradient: &Tensor,
    velocity: &Var,
    config: SgdConfig,
) -> Result<Option<()>> {
    if kernel_for(&[parameter], &[])?.is_none() {
        return Ok(None);
    }
    let rate = Tensor::new(&[config.lr as f32], parameter.device())?;
    let update = ParameterUpdate {
        parameter,
        gradient,
        velocity,
        factor: 1.0,
    };
    sgd_steps(&[update], &rate, None, config)
}
