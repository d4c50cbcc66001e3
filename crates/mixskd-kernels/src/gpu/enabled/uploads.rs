//! Batches on their way into the GPU's memory while it works.

use candle_core::{DType, Device, Tensor};

#[cfg(feature = "cuda")]
use super::copies::Copies;
use super::memory::{Gpu, Memory};
use crate::{Result, storage};

/// Brings float batches into a GPU's memory, one at a time, while the GPU works on something else: through page-locked memory, on a
/// stream of its own. Where the processor stands in for a GPU it is a copy.
pub struct Uploads {
    way: Way,
    /// Of the batch that is on its way.
    shape: Option<Vec<usize>>,
}

enum Way {
    #[cfg(feature = "cuda")]
    Device(Copies),
    #[cfg(feature = "emulator")]
    Host(Vec<f32>),
}

impl Uploads {
    /// Prepares them for `device`; `None` where that is no GPU.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Device) -> Result<Option<Self>> {
        let Some(gpu) = Gpu::of(device)? else {
            return Ok(None);
        };
        let way = match &gpu.memory {
            #[cfg(feature = "cuda")]
            Memory::Device(device, ..) => Way::Device(Copies::new(device)?),
            #[cfg(feature = "emulator")]
            Memory::Host => Way::Host(Vec::new()),
        };
        Ok(Some(Self { way, shape: None }))
    }

    /// Sends `batch`, float32 on the CPU, off; [`Uploads::receive`] gives it. One that was sent before and not asked for is lost.
    ///
    /// # Errors
    /// When the batch is something else, or the GPU has no memory for it.
    pub fn send(&mut self, batch: &Tensor) -> Result<()> {
        let batch = batch.contiguous()?;
        self.shape = None;
        storage::with_slice::<f32, _>(&batch, |values| {
            match &mut self.way {
                #[cfg(feature = "cuda")]
                Way::Device(copies) => copies.send(values)?,
                #[cfg(feature = "emulator")]
                Way::Host(room) => values.clone_into(room),
            }
            Ok(())
        })?;
        self.shape = Some(batch.dims().to_vec());
        Ok(())
    }

    /// What was sent, in the GPU's memory as `dtype`; whatever is launched from now on finds it there.
    ///
    /// # Errors
    /// When nothing was sent, or the GPU has no memory for it.
    pub fn receive(&mut self, dtype: DType) -> Result<Tensor> {
        let Some(shape) = self.shape.take() else {
            return Err(candle_core::Error::msg("no batch was sent").into());
        };
        Ok(match &mut self.way {
            #[cfg(feature = "cuda")]
            Way::Device(copies) => copies.receive(shape, dtype)?,
            #[cfg(feature = "emulator")]
            Way::Host(room) => {
                let sent = Tensor::from_vec(std::mem::take(room), shape, &Device::Cpu)?;
                sent.to_dtype(dtype)?
            }
        })
    }
}
