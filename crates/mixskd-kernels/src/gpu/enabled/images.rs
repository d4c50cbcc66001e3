//! Batches of images that lie in the GPU's memory.

use candle_core::{DType, Tensor};
use mixskd_cuda::update::{Draws, Images};

use super::memory::{Gpu, address, element, failed};
use crate::{DeviceImages, Result};

/// `draws`: index, row, column and mirroring, `[4, batch]`.
pub(crate) fn batch_images(
    images: &DeviceImages,
    draws: &Tensor,
    size: (usize, usize),
    dtype: DType,
) -> Result<Option<Tensor>> {
    let (Some(element), Some(gpu)) = (element(dtype), Gpu::of(draws.device())?) else {
        return Ok(None);
    };
    let (_, batch) = draws.dims2()?;
    let (height, width, channels) = images.shape;
    let to = gpu.empty(dtype, (batch, size.0, size.1, channels))?;
    let row = |at| address(&draws.narrow(0, at, 1)?);
    let places = Draws {
        batch,
        index: row(0)?,
        top: row(1)?,
        left: row(2)?,
        flip: row(3)?,
        black: true,
    };
    let set = Images {
        pixels: address(&images.pixels)?,
        size: (height, width),
        channels,
        mean: address(&images.mean)?,
        inv_std: address(&images.inv_std)?,
    };
    // SAFETY: the set was checked as it was made, indices before they came here; the output has the batch's size.
    unsafe { set.batch(gpu.engine(), places, size, element, address(&to)?) }.map_err(failed)?;
    Ok(Some(to))
}
