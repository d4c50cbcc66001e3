//! Activations, numbers for each channel, channels taken and shuffled, pooling by attention.

use candle_core::{DType, Tensor};
use mixskd_cuda::map::{self, Activation, AttentionPool, Taken};
use mixskd_cuda::{Element, NULL, sum};

use super::memory::{address, element, failed, kernel_for, start};
use super::recorded::record;
use crate::Result;
use crate::activation::Kind;
use crate::gate::PerChannel;

pub(crate) fn activate(x: &Tensor, kind: Kind) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let activation = match kind {
        Kind::Relu => Activation::Relu,
        Kind::Relu6 => Activation::Relu6,
        Kind::Silu => Activation::Silu,
        Kind::Sigmoid => Activation::Sigmoid,
        Kind::Tanh => Activation::Tanh,
    };
    let x = x.contiguous()?;
    let len = x.elem_count();
    let y = gpu.storage(x.dtype(), len)?;
    // SAFETY: both are as long.
    unsafe { activation.forward(gpu.engine(), element, len, address(&x)?, start(&y)?) }
        .map_err(failed)?;
    let shape = x.shape().clone();
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let x = inputs[0];
        let dx = gpu.empty(x.dtype(), x.shape())?;
        // SAFETY: all are as long.
        unsafe {
            let (from, to) = ([address(x)?, address(dy)?], address(&dx)?);
            activation.backward(gpu.engine(), element, len, from, to)
        }
        .map_err(failed)?;
        Ok(vec![Some(dx)])
    };
    let name = "mixskd-cuda-activation";
    Ok(Some(record(name, &[&x], y, shape, backward)?))
}

/// Numbers are floats or of the map's type.
pub(crate) fn per_channel(x: &Tensor, numbers: &Tensor, way: PerChannel) -> Result<Option<Tensor>> {
    let Some((gpu, map)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let known = [Some(Element::F32), Some(map)].contains(&element(numbers.dtype()));
    if !known || !numbers.device().same_device(x.device()) {
        return Ok(None);
    }
    let (x, numbers) = (x.contiguous()?, numbers.contiguous()?);
    let (batch, h, w, channels) = x.dims4()?;
    let each = map::PerChannel {
        sets: batch,
        pixels: h * w,
        channels,
        element: map,
        numbers: element(numbers.dtype()).unwrap_or(map),
    };
    let (own, times) = match way {
        PerChannel::Scale => (each, true),
        PerChannel::Shift => (each, false),
        PerChannel::Bias => {
            let (sets, pixels) = (1, batch * h * w);
            let own = map::PerChannel {
                sets,
                pixels,
                ..each
            };
            (own, false)
        }
    };
    let y = gpu.storage(x.dtype(), x.elem_count())?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe {
        let (from, to) = ([address(&x)?, address(&numbers)?], start(&y)?);
        own.forward(gpu.engine(), from, times, to)
    }
    .map_err(failed)?;
    let shape = x.shape().clone();
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let (x, numbers) = (inputs[0], inputs[1]);
        let dx = match way {
            _ if !x.track_op() => None,
            PerChannel::Shift | PerChannel::Bias => Some(dy.clone()),
            PerChannel::Scale => {
                let dx = gpu.empty(x.dtype(), x.shape())?;
                // SAFETY: as above.
                unsafe {
                    let from = [address(dy)?, address(numbers)?];
                    own.forward(gpu.engine(), from, true, address(&dx)?)
                }
                .map_err(failed)?;
                Some(dx)
            }
        };
        if !numbers.track_op() {
            return Ok(vec![dx, None]);
        }
        let read = if times { address(x)? } else { NULL };
        let from = [read, address(dy)?];
        if way != PerChannel::Bias {
            let sums = gpu.empty(numbers.dtype(), numbers.shape())?;
            // SAFETY: as above.
            unsafe { own.sums(gpu.engine(), from, address(&sums)?) }.map_err(failed)?;
            return Ok(vec![dx, Some(sums)]);
        }
        // Of each sample first: one block for a channel's whole batch would be slow.
        let floats = map::PerChannel {
            numbers: Element::F32,
            ..each
        };
        let of_samples = gpu.empty(DType::F32, (batch, channels))?;
        let sums = gpu.empty(DType::F32, numbers.shape())?;
        // SAFETY: as above.
        unsafe {
            let between = address(&of_samples)?;
            floats.sums(gpu.engine(), from, between).map_err(failed)?;
            sum::columns(gpu.engine(), (batch, channels), between, address(&sums)?)
        }
        .map_err(failed)?;
        Ok(vec![dx, Some(sums.to_dtype(numbers.dtype())?)])
    };
    let name = "mixskd-cuda-per-channel";
    Ok(Some(record(name, &[&x, &numbers], y, shape, backward)?))
}

pub(crate) fn slice_channels(x: &Tensor, first: usize, count: usize) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let (batch, h, w, channels) = x.dims4()?;
    let taken = Taken {
        pixels: batch * h * w,
        channels,
        first,
        count,
        element,
    };
    let x = x.contiguous()?;
    let y = gpu.storage(x.dtype(), taken.pixels * count)?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe { taken.copy(gpu.engine(), address(&x)?, false, start(&y)?) }.map_err(failed)?;
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let dx = gpu.empty(inputs[0].dtype(), inputs[0].shape())?;
        // SAFETY: as above.
        unsafe { taken.copy(gpu.engine(), address(dy)?, true, address(&dx)?) }.map_err(failed)?;
        Ok(vec![Some(dx)])
    };
    let (name, shape) = ("mixskd-cuda-slice", (batch, h, w, count));
    Ok(Some(record(name, &[&x], y, shape, backward)?))
}

pub(crate) fn shuffle_channels(x: &Tensor, groups: usize) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let (batch, h, w, channels) = x.dims4()?;
    let pixels = batch * h * w;
    let x = x.contiguous()?;
    let y = gpu.storage(x.dtype(), x.elem_count())?;
    // SAFETY: both are as long as the sizes say.
    unsafe {
        let (sizes, from) = ((pixels, channels, groups), address(&x)?);
        map::shuffle_channels(gpu.engine(), element, sizes, from, start(&y)?)
    }
    .map_err(failed)?;
    let shape = x.shape().clone();
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let dx = gpu.empty(inputs[0].dtype(), inputs[0].shape())?;
        // SAFETY: as above.
        unsafe {
            let (sizes, from) = ((pixels, channels, channels / groups), address(dy)?);
            map::shuffle_channels(gpu.engine(), element, sizes, from, address(&dx)?)
        }
        .map_err(failed)?;
        Ok(vec![Some(dx)])
    };
    let name = "mixskd-cuda-shuffle";
    Ok(Some(record(name, &[&x], y, shape, backward)?))
}

pub(crate) fn attention_pool2d(x: &Tensor, scores: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x, scores], &[])? else {
        return Ok(None);
    };
    let (batch, h, w, channels) = x.dims4()?;
    let sizes = AttentionPool {
        batch,
        pixels: h * w,
        channels,
        element,
    };
    let (x, scores) = (x.contiguous()?, scores.contiguous()?);
    let shares = gpu.empty(DType::F32, scores.shape())?;
    let y = gpu.storage(x.dtype(), batch * channels)?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe {
        let from = [address(&x)?, address(&scores)?];
        sizes.forward(gpu.engine(), from, address(&shares)?, start(&y)?)
    }
    .map_err(failed)?;
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let (x, scores) = (inputs[0], inputs[1]);
        let dx = gpu.empty(x.dtype(), x.shape())?;
        let d_scores = gpu.empty(scores.dtype(), scores.shape())?;
        let products = gpu.empty(DType::F32, scores.shape())?;
        // SAFETY: as above.
        unsafe {
            let from = [address(x)?, address(dy)?, address(&shares)?];
            let to = [address(&dx)?, address(&d_scores)?];
            sizes.backward(gpu.engine(), from, address(&products)?, to)
        }
        .map_err(failed)?;
        Ok(vec![Some(dx), Some(d_scores)])
    };
    let (name, shape) = ("mixskd-cuda-attention-pool", (batch, 1, 1, channels));
    Ok(Some(record(name, &[&x, &scores], y, shape, backward)?))
}
