//! The optimiser's update, and what a step is judged by before it.

use candle_core::{DType, Tensor, Var};
use mixskd_cuda::optim::{self, Sgd, Slot, TurnedSlot, View};
use mixskd_cuda::update::Turn;
use mixskd_cuda::{Element, NULL};

use super::memory::{Gpu, address, element, failed, kernel_for};
use super::weights::{renew, turn};
use crate::{ParameterUpdate, Result, SgdConfig};

/// Updates the memory behind parameters, velocities and weights beside them in place.
pub(crate) fn sgd_steps(
    updates: &[ParameterUpdate],
    rate: &Tensor,
    verdict: Option<&Tensor>,
    config: SgdConfig,
) -> Result<Option<()>> {
    let Some(first) = updates.first() else {
        return Ok(None);
    };
    // Those whose gradients are in the parameter's order, and in their convolutions'.
    let mut as_made: Vec<(&ParameterUpdate, &Tensor)> = Vec::new();
    let mut plain: Vec<&ParameterUpdate> = Vec::new();
    for update in updates {
        match update.turned {
            Some(turned) if turned.dims() == update.gradient.dims() => {
                as_made.push((update, turned));
            }
            _ => plain.push(update),
        }
    }
    let mut floats: Vec<&Tensor> = vec![rate];
    floats.extend(verdict);
    for update in updates {
        let contiguous = update.parameter.is_contiguous() && update.velocity.is_contiguous();
        if !contiguous || update.parameter.elem_count() == 0 {
            return Ok(None);
        }
        floats.extend([update.parameter.as_tensor(), update.velocity]);
    }
    floats.extend(plain.iter().map(|update| update.gradient));
    let Some((gpu, Element::F32)) = kernel_for(&[first.parameter], &floats)? else {
        return Ok(None);
    };
    let gradients = plain
        .iter()
        .map(|update| update.gradient.contiguous())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let slots = plain
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
    let (rate, verdict) = (address(rate)?, verdict.map_or(Ok(NULL), address)?);
    for some in as_made.chunk_by(|a, b| a.1.dtype() == b.1.dtype()) {
        let slots = some
            .iter()
            .map(|(update, turned)| turned_slot(update, turned));
        let slots = slots.collect::<Result<Vec<_>>>()?;
        let Some(kind) = element(some[0].1.dtype()) else {
            return Ok(None);
        };
        // SAFETY: the slots' arrays are as long as the weight, the turned ones of type `kind`.
        unsafe { sgd.step_turned(gpu.engine(), kind, &slots, rate, verdict) }.map_err(failed)?;
    }
    // SAFETY: the three arrays of a slot have as many floats as the parameter.
    unsafe { sgd.step(gpu.engine(), &slots, rate, verdict) }.map_err(failed)?;
    // What is kept beside those whose gradients were not as convolutions make them.
    let beside = plain
        .iter()
        .filter_map(|update| Some((update.parameter, update.turned?)));
    renew(
        &gpu,
        beside.map(|(parameter, turned)| (parameter.as_tensor(), turned)),
    )?;
    Ok(Some(()))
}

/// An update whose gradient is as the convolution made it.
fn turned_slot(update: &ParameterUpdate, turned: &Tensor) -> Result<TurnedSlot> {
    let (parameter, gradient) = (update.parameter.as_tensor(), update.gradient);
    let Turn {
        out,
        input,
        taps,
        from,
        to,
    } = turn(parameter, turned)?;
    if gradient.dtype() != turned.dtype() || out * input * taps != parameter.elem_count() {
        return Err(candle_core::Error::Msg(
            "sgd_steps: a weight beside its parameter is another's".into(),
        )
        .into());
    }
    Ok(TurnedSlot {
        parameter: from,
        gradient: address(gradient)?,
        velocity: address(update.velocity)?,
        turned: to,
        out,
        input,
        taps,
        factor: update.factor as f32,
    })
}

/// 1 where all values of `tensors` are finite, or else 0; with `broken`, 0 from the first bad one on.
pub(crate) fn judge(tensors: &[&Tensor], broken: Option<&Tensor>) -> Result<Option<Tensor>> {
    let Some(first) = tensors.first() else {
        return Ok(None);
    };
    let kinds: Option<Vec<_>> = tensors.iter().map(|t| element(t.dtype())).collect();
    let is_here = |t: &&Tensor| t.device().same_device(first.device());
    let (Some(kinds), true) = (kinds, tensors.iter().all(is_here)) else {
        return Ok(None);
    };
    if !broken.is_none_or(|broken| is_here(&broken) && broken.dtype() == DType::F32) {
        return Ok(None);
    }
    let Some(gpu) = Gpu::of(first.device())? else {
        return Ok(None);
    };
    let tensors = tensors
        .iter()
        .map(|t| t.contiguous())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let arrays = tensors
        .iter()
        .zip(kinds)
        .map(|(t, element)| {
            let (at, len) = (address(t)?, t.elem_count());
            Ok(View { at, len, element })
        })
        .collect::<candle_core::Result<Vec<_>>>()?;
    let room = optim::judge_scratch(arrays.iter().map(|array| array.len));
    let scratch = gpu.empty(DType::F32, room)?;
    let verdict = gpu.empty(DType::F32, 1)?;
    // SAFETY: the arrays are as long as the functions ask.
    unsafe {
        optim::judge(
            gpu.engine(),
            &arrays,
            address(&scratch)?,
            address(&verdict)?,
            broken.map_or(Ok(NULL), address)?,
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
        turned: None,
    };
    sgd_steps(&[update], &rate, None, config)
}
