//! NVIDIA's GPUs behind candle's devices.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice, DeviceId};
use candle_core::{DType, Result, bail};
use mixskd_cuda::convolution::Cudnn;
use mixskd_cuda::{Address, Stream};

use super::memory::{Gpu, Memory, failed};

static OPENED: LazyLock<Mutex<HashMap<DeviceId, Arc<Gpu>>>> = LazyLock::new(Mutex::default);

/// Kernels and cuDNN on the device's stream.
pub(super) fn open(device: &CudaDevice) -> Result<Arc<Gpu>> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = opened.get(&device.id()) {
        return Ok(gpu.clone());
    }
    let gpu = Arc::new(Gpu {
        memory: Memory::Device(device.clone()),
        engine: Box::new(Stream::new(device.cuda_stream()).map_err(failed)?),
        convolutions: Box::new(Cudnn::new(device.cuda_stream()).map_err(failed)?),
    });
    opened.insert(device.id(), gpu.clone());
    Ok(gpu)
}

/// Memory for `count` elements, not yet written.
pub(super) fn storage(device: &CudaDevice, dtype: DType, count: usize) -> Result<CudaStorage> {
    let own = device.clone();
    // SAFETY: whoever asks has it written by a kernel before anything reads it.
    unsafe {
        Ok(match dtype {
            DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, own),
            DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<half::bf16>(count)?, own),
            other => return Err(candle_core::Error::UnsupportedDTypeForOp(other, "kernel").bt()),
        })
    }
}

/// Where an element lies.
pub(super) fn place(storage: &CudaStorage, offset: usize) -> Result<Address> {
    Ok(match &storage.slice {
        CudaStorageSlice::F32(slice) => element_at(storage, slice, offset),
        CudaStorageSlice::BF16(slice) => element_at(storage, slice, offset),
        CudaStorageSlice::U32(slice) => element_at(storage, slice, offset),
        CudaStorageSlice::U8(slice) => element_at(storage, slice, offset),
        _ => bail!("kernel input is of no type that kernels know"),
    })
}

fn element_at<T>(storage: &CudaStorage, slice: &CudaSlice<T>, offset: usize) -> Address {
    let stream = storage.device.cuda_stream();
    let (first, _guard) = slice.device_ptr(&stream);
    first + (offset * size_of::<T>()) as Address
}
