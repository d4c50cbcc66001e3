//! Page-locked memory that a GPU copies into.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::{
    free_host, malloc_host, memcpy_dtoh_async,
};
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaEvent};
use candle_core::{Error, Result, Tensor, bail};

use super::memory::address;

/// Pieces of page-locked memory that are made when they are wanted, and serve again.
pub(super) struct Rooms {
    device: CudaDevice,
    idle: Arc<Mutex<Vec<Room>>>,
}

/// A piece of it. cudarc's own is write-combined, which a processor reads very slowly.
struct Room {
    first: NonNull<f32>,
    len: usize,
    context: Arc<CudaContext>,
}

// SAFETY: the memory is the process's, and whoever has the room has it to himself.
unsafe impl Send for Room {}
// SAFETY: through a shared room the memory is only read.
unsafe impl Sync for Room {}

/// Copies into a piece of it, which goes back to the others in the end.
pub(super) struct Landing {
    /// There until this is dropped.
    room: Option<Room>,
    len: usize,
    copied: CudaEvent,
    idle: Arc<Mutex<Vec<Room>>>,
}

impl Rooms {
    pub(super) fn new(device: &CudaDevice) -> Self {
        Self {
            device: device.clone(),
            idle: Arc::default(),
        }
    }

    /// Has `tensors`, whose lengths are `lens`, copied one after another behind what the device's stream has to do.
    pub(super) fn begin(&self, tensors: &[&Tensor], lens: &[usize]) -> Result<Landing> {
        let stream = self.device.cuda_stream();
        let context = stream.context();
        let len = lens.iter().sum();
        let copied = context.new_event(None).map_err(Error::wrap)?;
        let mut landing = Landing {
            room: Some(self.room(context, len)?),
            len,
            copied,
            idle: self.idle.clone(),
        };
        let begun = self.copy(tensors, lens, &mut landing);
        // In any case: what was begun is waited for before the room serves again.
        let recorded = landing.copied.record(&stream).map_err(Error::wrap);
        if recorded.is_err() {
            // The room may be written to at any time: it is left to the driver.
            std::mem::forget(landing.room.take());
        }
        begun.and(recorded).map(|()| landing)
    }

    fn copy(&self, tensors: &[&Tensor], lens: &[usize], landing: &mut Landing) -> Result<()> {
        let stream = self.device.cuda_stream();
        let Some(room) = &mut landing.room else {
            bail!("there is no room for what is to be copied");
        };
        let mut rest = room.all();
        for (tensor, &len) in tensors.iter().zip(lens) {
            let (part, others) = rest.split_at_mut(len);
            rest = others;
            // SAFETY: both are as long; the room stays until the copy is done, and the GPU gives a tensor's memory back in the stream's order.
            unsafe { memcpy_dtoh_async(part, address(tensor)?, stream.cu_stream()) }
                .map_err(Error::wrap)?;
        }
        Ok(())
    }

    /// The smallest idle room of at least `len` numbers, or a new one.
    fn room(&self, context: &Arc<CudaContext>, len: usize) -> Result<Room> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(_, room): &(usize, &Room)| room.len >= len;
        let smallest = (idle.iter().enumerate().filter(fits)).min_by_key(|(_, room)| room.len);
        if let Some((at, _)) = smallest {
            return Ok(idle.swap_remove(at));
        }
        // Too small for what is asked for now.
        idle.clear();
        drop(idle);
        Room::new(context, len)
    }
}

impl Room {
    fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self> {
        context.bind_to_thread().map_err(Error::wrap)?;
        let bytes = len.max(1) * size_of::<f32>();
        // SAFETY: nothing of it is read before it is written; any bits are numbers.
        let first = unsafe { malloc_host(bytes, 0) }.map_err(Error::wrap)?;
        let Some(first) = NonNull::new(first.cast::<f32>()) else {
            bail!("the driver gave no page-locked memory");
        };
        // So that a reader finds numbers whatever is copied.
        // SAFETY: it is as long.
        unsafe { first.as_ptr().write_bytes(0, len) };
        Ok(Self {
            first,
            len,
            context: context.clone(),
        })
    }

    fn all(&mut self) -> &mut [f32] {
        // SAFETY: the memory is the room's, as long, and holds numbers.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }

    fn values(&self, len: usize) -> &[f32] {
        // SAFETY: as above, and no copy into it is on its way.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), len.min(self.len)) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // There is nobody to tell of an error.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was made by `malloc_host`, and nothing writes into it any more.
            let _ = unsafe { free_host(self.first.as_ptr().cast::<c_void>()) };
        }
    }
}

impl Landing {
    /// Waits until all is there.
    pub(super) fn wait(&self) -> Result<&[f32]> {
        self.copied.synchronize().map_err(Error::wrap)?;
        match &self.room {
            Some(room) => Ok(room.values(self.len)),
            None => bail!("what was to be copied has no room"),
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else {
            return;
        };
        // The first error may be an older one, told in place of waiting.
        let is_done = || self.copied.synchronize().is_ok();
        if is_done() || is_done() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(room);
        } else {
            // The GPU may still write into it.
            std::mem::forget(room);
        }
    }
}
