//! Copies into the GPU's memory on a stream of their own.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::memcpy_htod_async;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice};
use candle_core::{DType, Device, Error, Result, Tensor};

use super::memory::address;

/// Page-locked memory, memory of the GPU, and the stream that copies from the one to the other. Of two streams that use one memory each
/// waits for the other by an event.
pub(super) struct Copies {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    /// The last copy is done.
    copied: CudaEvent,
    /// The last batch has been read.
    read: CudaEvent,
    room: Option<Room>,
}

struct Room {
    locked: PinnedHostSlice<f32>,
    /// `[len]`, float32.
    slot: Tensor,
}

impl Copies {
    pub(super) fn new(device: &CudaDevice) -> Result<Self> {
        let main = device.cuda_stream();
        let context = main.context();
        Ok(Self {
            device: device.clone(),
            stream: context.new_stream().map_err(Error::wrap)?,
            copied: context.new_event(None).map_err(Error::wrap)?,
            read: context.new_event(None).map_err(Error::wrap)?,
            room: None,
        })
    }

    pub(super) fn send(&mut self, values: &[f32]) -> Result<()> {
        // The page-locked memory is read until then.
        self.copied.synchronize().map_err(Error::wrap)?;
        let room = match self.room.take() {
            Some(room) if room.locked.len() >= values.len() => room,
            smaller => {
                drop(smaller);
                self.make(values.len())?
            }
        };
        let room = self.room.insert(room);
        let locked = room.locked.as_mut_slice().map_err(Error::wrap)?;
        let locked = &mut locked[..values.len()];
        locked.copy_from_slice(values);
        self.stream.wait(&self.read).map_err(Error::wrap)?;
        // SAFETY: both memories are as long, and stay: this waits for the copy before it drops or writes them.
        unsafe { memcpy_htod_async(address(&room.slot)?, locked, self.stream.cu_stream()) }
            .map_err(Error::wrap)?;
        self.copied.record(&self.stream).map_err(Error::wrap)
    }

    fn make(&self, len: usize) -> Result<Room> {
        let main = self.device.cuda_stream();
        // SAFETY: nothing of it is read before it is written.
        let locked = unsafe { main.context().alloc_pinned(len) }.map_err(Error::wrap)?;
        let slot = Tensor::zeros(len, DType::F32, &Device::Cuda(self.device.clone()))?;
        // The copy waits for the zeros.
        self.read.record(&main).map_err(Error::wrap)?;
        Ok(Room { locked, slot })
    }

    pub(super) fn receive(&mut self, shape: Vec<usize>, dtype: DType) -> Result<Tensor> {
        let Some(room) = &self.room else {
            return Err(Error::msg("no batch was sent"));
        };
        let main = self.device.cuda_stream();
        main.wait(&self.copied).map_err(Error::wrap)?;
        let len: usize = shape.iter().product();
        let sent = room.slot.narrow(0, 0, len)?.reshape(shape)?;
        // A tensor of its own in either case.
        let batch = if dtype == DType::F32 {
            sent.copy()?
        } else {
            sent.to_dtype(dtype)?
        };
        self.read.record(&main).map_err(Error::wrap)?;
        Ok(batch)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What is being copied is not to be freed. There is nobody to tell of an error; the first may be an older one, told in place of
        // waiting.
        if self.copied.synchronize().is_err() {
            let _ = self.copied.synchronize();
        }
    }
}
