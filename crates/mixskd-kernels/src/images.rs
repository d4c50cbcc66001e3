//! Images in a GPU's memory, and batches made of them there.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result, gpu};

/// What one row of a batch shows of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageWindow {
    /// Image of the set.
    pub index: u32,
    /// Row of the image that the batch's first row shows; outside of the image is black.
    pub top: i32,
    /// The same of columns, before mirroring.
    pub left: i32,
    /// Whether left and right are swapped.
    pub flipped: bool,
}

/// A set of images of one size as bytes in a GPU's memory.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "a build without GPU kernels makes no batches")]
pub struct DeviceImages {
    pub(crate) pixels: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) inv_std: Tensor,
    pub(crate) count: usize,
    /// Height, width, channels.
    pub(crate) shape: (usize, usize, usize),
}

impl DeviceImages {
    /// Puts `pixels`, `[image, height, width, channel]`, into the memory of `device`. `mean` and `std` are of each channel, on the scale
    /// where a byte of 255 is 1.
    ///
    /// # Errors
    /// When the bytes are no images of that shape, or do not fit into the memory.
    pub fn new(
        pixels: &[u8],
        shape: (usize, usize, usize),
        mean: &[f32],
        std: &[f32],
        device: &Device,
    ) -> Result<Self> {
        let each = shape.0 * shape.1 * shape.2;
        if each == 0 || !pixels.len().is_multiple_of(each) {
            return Err(Error::Config {
                op: "device_images",
                message: format!("{} bytes are no images of {shape:?}", pixels.len()),
            });
        }
        if mean.len() != shape.2 || std.len() != shape.2 {
            return Err(Error::Config {
                op: "device_images",
                message: format!(
                    "{} channels, a mean of {} and a std of {}",
                    shape.2,
                    mean.len(),
                    std.len()
                ),
            });
        }
        let inv_std: Vec<f32> = std.iter().map(|std| 1.0 / std).collect();
        Ok(Self {
            pixels: Tensor::from_slice(pixels, pixels.len(), device)?,
            mean: Tensor::new(mean, device)?,
            inv_std: Tensor::new(inv_std, device)?,
            count: pixels.len() / each,
            shape,
        })
    }

    /// A normalised batch `[windows, height, width, channel]` of `dtype`, float32 or bfloat16. `None` where the device has no kernel.
    ///
    /// # Errors
    /// When a window is of no image of the set, or the launch fails.
    pub fn batch(
        &self,
        windows: &[ImageWindow],
        size: (usize, usize),
        dtype: DType,
    ) -> Result<Option<Tensor>> {
        if let Some(window) = windows.iter().find(|w| w.index as usize >= self.count) {
            return Err(Error::Config {
                op: "device_images",
                message: format!("image {} of {}", window.index, self.count),
            });
        }
        // One upload: the kernel reads signed numbers where they are.
        let rows = windows.iter().map(|w| w.index);
        let tops = windows.iter().map(|w| w.top.cast_unsigned());
        let lefts = windows.iter().map(|w| w.left.cast_unsigned());
        let flips = windows.iter().map(|w| u32::from(w.flipped));
        let draws: Vec<u32> = rows.chain(tops).chain(lefts).chain(flips).collect();
        let draws = Tensor::from_vec(draws, (4, windows.len()), self.pixels.device())?;
        gpu::batch_images(self, &draws, size, dtype)
    }
}
