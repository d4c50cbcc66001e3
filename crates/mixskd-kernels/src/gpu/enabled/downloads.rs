//! Float tensors on their way from the GPU's memory to the host's while both work on.

use candle_core::{DType, Device, Tensor};

use super::memory::{Gpu, Memory, kernel_for};
#[cfg(feature = "cuda")]
use super::page_locked::{Landing, Rooms};
#[cfg(feature = "emulator")]
use crate::storage;
use crate::{Error, Result};

/// Brings float tensors of a GPU to the host, into page-locked memory, in the order of what was launched: as they are when their turn comes, and what is launched
/// after them finds them read. The memory serves again once its [`Download`] is dropped. Where the processor stands in for a GPU they are
/// copied at once.
pub struct Downloads {
    way: Way,
}

enum Way {
    #[cfg(feature = "cuda")]
    Device(Rooms),
    #[cfg(feature = "emulator")]
    Host,
}

/// What [`Downloads::begin`] has begun. It may be waited for on any thread.
pub struct Download {
    values: Values,
    /// Length of each tensor, in their order.
    lens: Vec<usize>,
}

enum Values {
    #[cfg(feature = "cuda")]
    Coming(Landing),
    #[cfg(feature = "emulator")]
    Here(Vec<f32>),
}

impl Downloads {
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
            Memory::Device(device, ..) => Way::Device(Rooms::new(device)),
            #[cfg(feature = "emulator")]
            Memory::Host => Way::Host,
        };
        Ok(Some(Self { way }))
    }

    /// Has `tensors`, contiguous float32 of the GPU, copied once all that was launched before is done. Nothing here waits for that.
    ///
    /// # Errors
    /// When one of them is something else, or there is no page-locked memory for them.
    pub fn begin(&self, tensors: &[&Tensor]) -> Result<Download> {
        for tensor in tensors {
            if tensor.dtype() != DType::F32 || kernel_for(&[tensor], &[])?.is_none() {
                let (dtype, dims) = (tensor.dtype(), tensor.dims());
                return Err(wrong(format!(
                    "a tensor {dims:?} of {dtype:?} is no float32 of a GPU"
                )));
            }
        }
        let lens: Vec<usize> = tensors.iter().map(|tensor| tensor.elem_count()).collect();
        let values = match &self.way {
            #[cfg(feature = "cuda")]
            Way::Device(rooms) => Values::Coming(rooms.begin(tensors, &lens)?),
            #[cfg(feature = "emulator")]
            Way::Host => {
                let mut all = Vec::with_capacity(lens.iter().sum());
                for tensor in tensors {
                    storage::with_slice::<f32, _>(tensor, |values| {
                        all.extend_from_slice(values);
                        Ok(())
                    })?;
                }
                Values::Here(all)
            }
        };
        Ok(Download { values, lens })
    }
}

impl Download {
    /// The values of each tensor, in the order in which they were asked for, once they have come.
    ///
    /// # Errors
    /// The driver's, among them those of work that was launched before.
    pub fn values(&self) -> Result<Vec<&[f32]>> {
        let mut rest: &[f32] = match &self.values {
            #[cfg(feature = "cuda")]
            Values::Coming(landing) => landing.wait()?,
            #[cfg(feature = "emulator")]
            Values::Here(all) => all,
        };
        let mut parts = Vec::with_capacity(self.lens.len());
        for &len in &self.lens {
            let Some((part, others)) = rest.split_at_checked(len) else {
                return Err(wrong("fewer values came than were sent".into()));
            };
            parts.push(part);
            rest = others;
        }
        Ok(parts)
    }
}

fn wrong(message: String) -> Error {
    candle_core::Error::Msg(message).bt().into()
}
