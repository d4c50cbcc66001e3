//! Pools and the fully connected layer.

use candle_core::{DType, Tensor};
use mixskd_cuda::pool::{self, GlobalPool, Pool};

use super::memory::{address, failed, kernel_for, start};
use super::recorded::record;
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

pub(crate) fn global_avg_pool2d(x: &Tensor) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[])? else {
        return Ok(None);
    };
    let (batch, h, w, channels) = x.dims4()?;
    let sizes = GlobalPool {
        batch,
        pixels: h * w,
        channels,
        element,
    };
    let x = x.contiguous()?;
    let y = gpu.storage(x.dtype(), batch * channels)?;
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
    if kernel_for(&[x], &[])?.is_none() {
        return Ok(None);
    }
    let y = product(x, &weight.to_dtype(x.dtype())?.t()?)?;
    Ok(Some(match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?)?,
        None => y,
    }))
}

/// candle's product; on the processor, which multiplies no bfloat16, of floats rounded to it.
fn product(x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    if x.device().is_cpu() && x.dtype() == DType::BF16 {
        let product = x.to_dtype(DType::F32)?.matmul(&y.to_dtype(DType::F32)?)?;
        return product.to_dtype(DType::BF16);
    }
    x.matmul(y)
}
