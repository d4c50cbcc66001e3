//! Pools and the fully connected layer.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use mixskd_cuda::pool::{self, GlobalPool, Pool};
use mixskd_cuda::{Element, NULL, sum};

use super::memory::{Gpu, address, failed, kernel_for, start};
use super::recorded::record;
use super::tape;
use crate::pool::Reduction;
use crate::{Pool2dConfig, Result};

pub(crate) fn pool2d(
    x: &Tensor,
    config: Pool2dConfig,
    reduction: Reduction,
) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let (batch, h, w, channels) = x.dims4()?;
    let output = (config.out_size(h)?, config.out_size(w)?);
    let sizes = Pool {
        batch,
        input: (h, w),
        output,
        channels,
        kernel: config.kernel,
        stride: config.stride,
        padding: config.padding,
        reduction: match reduction {
            Reduction::Max => pool::Reduction::Max,
            Reduction::Mean => pool::Reduction::Mean,
        },
        element,
    };
    let x = x.contiguous()?;
    let shape = (batch, output.0, output.1, channels);
    let y = gpu.storage(x.dtype(), batch * output.0 * output.1 * channels)?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe { sizes.forward(gpu.engine(), address(&x)?, start(&y)?) }.map_err(failed)?;
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let x = inputs[0];
        let dx = gpu.empty(x.dtype(), x.shape())?;
        // SAFETY: as above.
        unsafe { sizes.backward(gpu.engine(), address(x)?, address(dy)?, address(&dx)?) }
            .map_err(failed)?;
        Ok(vec![Some(dx)])
    };
    Ok(Some(record(
        "mixskd-cuda-pool2d",
        &[&x],
        y,
        shape,
        backward,
    )?))
}

/// The means have the maps' type, or are `float`.
pub(crate) fn global_avg_pool2d(x: &Tensor, float: bool) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let (means, dtype) = if float {
        (Element::F32, DType::F32)
    } else {
        (element, x.dtype())
    };
    let (batch, h, w, channels) = x.dims4()?;
    let sizes = GlobalPool {
        batch,
        pixels: h * w,
        channels,
        element,
        means,
    };
    let x = x.contiguous()?;
    let y = gpu.storage(dtype, batch * channels)?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe { sizes.forward(gpu.engine(), address(&x)?, start(&y)?) }.map_err(failed)?;
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let dx = gpu.empty(inputs[0].dtype(), inputs[0].shape())?;
        // SAFETY: as above.
        unsafe { sizes.backward(gpu.engine(), address(dy)?, address(&dx)?) }.map_err(failed)?;
        Ok(vec![Some(dx)])
    };
    let shape = (batch, channels);
    Ok(Some(record(
        "mixskd-cuda-global-pool",
        &[&x],
        y,
        shape,
        backward,
    )?))
}

/// cuBLAS's product, through candle; parameters are brought to the input's type, and their gradients back.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let mut floats = std::iter::once(weight).chain(bias);
    if element == Element::F32 && tape::is_running() && floats.all(|t| t.dtype() == DType::F32) {
        return noted(gpu, x, weight, bias).map(Some);
    }
    let y = gpu.product(x, &weight.to_dtype(x.dtype())?.t()?)?;
    Ok(Some(match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?)?,
        None => y,
    }))
}

/// The same in float as one node of the tape.
fn noted(gpu: Arc<Gpu>, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, bias) = (x.contiguous()?, bias.map(Tensor::contiguous).transpose()?);
    let sizes = (x.dim(0)?, weight.dim(0)?);
    let flat = gpu.product(&x.detach(), &weight.detach().t()?)?;
    let y = gpu.storage(DType::F32, flat.elem_count())?;
    // SAFETY: the arrays are as long as the sizes say.
    unsafe {
        let bias = bias.as_ref().map_or(Ok(NULL), address)?;
        let (from, to) = (address(&flat)?, start(&y)?);
        sum::add_row(gpu.engine(), sizes, from, bias, to).map_err(failed)?;
    }
    let mut inputs = vec![&x, weight];
    inputs.extend(&bias);
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let (x, weight) = (inputs[0], inputs[1]);
        let wanted = |t: &Tensor, make: &dyn Fn() -> candle_core::Result<Tensor>| {
            t.track_op().then(make).transpose()
        };
        let mut all = vec![
            wanted(x, &|| gpu.product(dy, &weight.detach()))?,
            wanted(weight, &|| gpu.product(&dy.t()?, &x.detach()))?,
        ];
        if inputs.len() > 2 {
            let d_bias = gpu.empty(DType::F32, sizes.1)?;
            // SAFETY: as above.
            unsafe { sum::columns(gpu.engine(), sizes, address(dy)?, address(&d_bias)?) }
                .map_err(failed)?;
            all.push(Some(d_bias));
        }
        Ok(all)
    };
    Ok(record("mixskd-linear", &inputs, y, sizes, backward)?)
}
