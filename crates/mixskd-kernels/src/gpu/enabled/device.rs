//! NVIDIA's GPUs behind candle's devices.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::sys::cublasSetWorkspace_v2;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, result};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice, DeviceId};
use candle_core::{DType, Device, Result, bail};
use mixskd_cuda::convolution::Cudnn;
use mixskd_cuda::{Address, SIDE_LANES, Stream};

use super::memory::{Gpu, Memory, failed};

static OPENED: LazyLock<Mutex<HashMap<DeviceId, Arc<Gpu>>>> = LazyLock::new(Mutex::default);

/// Bytes that cuBLAS multiplies in, in every lane: they are given to it, so that it takes none while a step is captured. How it multiplies depends on
/// their number, which is the same everywhere for sums to repeat.
const BLAS_WORKSPACE: usize = 8 << 20;

/// What cuBLAS multiplies in.
pub(super) struct Workspaces {
    /// Of each lane that it has multiplied in. They are there as long as the process.
    places: Mutex<[Option<Address>; SIDE_LANES + 1]>,
    /// The lane whose part it has.
    lane: AtomicUsize,
}

impl Workspaces {
    fn new(device: &CudaDevice) -> Result<Self> {
        let workspaces = Self {
            places: Mutex::default(),
            lane: AtomicUsize::new(0),
        };
        workspaces.set(device, 0)?;
        Ok(workspaces)
    }

    fn make(device: &CudaDevice) -> Result<Address> {
        let memory = device.alloc_zeros::<u8>(BLAS_WORKSPACE)?;
        let stream = device.cuda_stream();
        let (first, guard) = memory.device_ptr(&stream);
        drop(guard);
        std::mem::forget(memory);
        Ok(first)
    }

    fn set(&self, device: &CudaDevice, lane: usize) -> Result<()> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.get_mut(lane) else {
            bail!("there is no lane {lane}");
        };
        let first = match *place {
            Some(first) => first,
            // In a step before the captured one.
            None => *place.insert(Self::make(device)?),
        };
        let handle = device.cublas_handle();
        // SAFETY: the memory is there as long as the process.
        unsafe { cublasSetWorkspace_v2(*handle.handle(), first as *mut c_void, BLAS_WORKSPACE) }
            .result()
            .map_err(candle_core::Error::wrap)
    }

    /// Products from here on are made in the memory of `lane`.
    pub(super) fn give(&self, device: &CudaDevice, lane: usize) -> Result<()> {
        if self.lane.load(Ordering::Relaxed) != lane {
            self.set(device, lane)?;
            self.lane.store(lane, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The GPU called `ordinal`, on a stream that can be captured. All work goes through that one stream, in order, so that nothing has to be
/// tracked by events.
///
/// # Errors
/// The driver's: among others that there is no such GPU.
pub fn open(ordinal: usize) -> crate::Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    if let Device::Cuda(cuda) = &device {
        // SAFETY: all kernels are on one stream, and what uploads on another orders the two by events of its own.
        unsafe { cuda.disable_event_tracking() };
        keep_freed_memory(cuda)?;
    }
    Ok(device)
}

/// Has the driver keep the memory that tensors gave back: otherwise it takes it away whenever the host waits, which is once a step.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let mut most = u64::MAX;
    let failed = candle_core::Error::wrap;
    // SAFETY: the device is open, and the attribute is a number of 64 bits.
    unsafe {
        let pool = result::device::get_default_mem_pool(device.cuda_stream().context().cu_device());
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let value = std::ptr::from_mut(&mut most).cast();
        result::mem_pool::set_attribute(pool.map_err(failed)?, attribute, value).map_err(failed)
    }
}

/// Kernels and cuDNN on the device's stream.
pub(super) fn loaded(device: &CudaDevice) -> Result<Arc<Gpu>> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = opened.get(&device.id()) {
        return Ok(gpu.clone());
    }
    let stream = Arc::new(Stream::new(device.cuda_stream()).map_err(failed)?);
    let gpu = Arc::new(Gpu {
        memory: Memory::Device(device.clone(), stream.clone(), Workspaces::new(device)?),
        engine: Box::new(stream.clone()),
        convolutions: Box::new(Cudnn::new(stream.clone()).map_err(failed)?),
        lanes: Box::new(stream),
    });
    opened.insert(device.id(), gpu.clone());
    Ok(gpu)
}

/// The stream that all kernels of the device go through.
pub(super) fn stream(device: &CudaDevice) -> Result<Arc<Stream>> {
    match &loaded(device)?.memory {
        Memory::Device(_, stream, _) => Ok(stream.clone()),
        #[cfg(feature = "emulator")]
        Memory::Host => bail!("a GPU's memory is the host's"),
    }
}

/// Memory for `count` elements, not yet written.
pub(super) fn storage(device: &CudaDevice, dtype: DType, count: usize) -> Result<CudaStorage> {
    let own = device.clone();
    // SAFETY: whoever asks has it written by a kernel before anything reads it.
    unsafe {
        Ok(match dtype {
            DType::F64 => CudaStorage::wrap_cuda_slice(device.alloc::<f64>(count)?, own),
            DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, own),
            DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<half::bf16>(count)?, own),
            other => return Err(candle_core::Error::UnsupportedDTypeForOp(other, "kernel").bt()),
        })
    }
}

/// Where an element lies.
pub(super) fn place(storage: &CudaStorage, offset: usize) -> Result<Address> {
    Ok(match &storage.slice {
        CudaStorageSlice::F64(slice) => element_at(storage, slice, offset),
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
