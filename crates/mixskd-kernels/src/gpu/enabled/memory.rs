//! Tensors as addresses in a GPU's memory.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use mixskd_cuda::convolution::Cudnn;
use mixskd_cuda::{Address, Element, Stream};

/// A GPU with the kernels loaded.
pub(super) struct Gpu {
    pub(super) device: CudaDevice,
    pub(super) stream: Stream,
    pub(super) cudnn: Cudnn,
}

static OPENED: LazyLock<Mutex<HashMap<DeviceId, Arc<Gpu>>>> = LazyLock::new(Mutex::default);

/// An error of mixskd-cuda as candle carries it.
pub(super) fn failed(error: mixskd_cuda::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

impl Gpu {
    /// The GPU that `device` is; kernels are loaded when it is first asked for.
    pub(super) fn of(device: &Device) -> Result<Option<Arc<Self>>> {
        let Device::Cuda(device) = device else {
            return Ok(None);
        };
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = opened.get(&device.id()) {
            return Ok(Some(gpu.clone()));
        }
        let gpu = Arc::new(Self {
            device: device.clone(),
            stream: Stream::new(device.cuda_stream()).map_err(failed)?,
            cudnn: Cudnn::new(device.cuda_stream()).map_err(failed)?,
        });
        opened.insert(device.id(), gpu.clone());
        Ok(Some(gpu))
    }

    /// Memory for `count` elements, not yet written.
    pub(super) fn storage(&self, dtype: DType, count: usize) -> Result<CudaStorage> {
        let device = self.device.clone();
        // SAFETY: whoever asks has it written by a kernel before anything reads it.
        unsafe {
            Ok(match dtype {
                DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(count)?, device),
                DType::BF16 => {
                    CudaStorage::wrap_cuda_slice(device.alloc::<half::bf16>(count)?, device)
                }
                other => {
                    return Err(candle_core::Error::UnsupportedDTypeForOp(other, "kernel").bt());
                }
            })
        }
    }

    /// The same as a tensor.
    pub(super) fn empty(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let storage = self.storage(dtype, shape.elem_count())?;
        Ok(tensor(storage, shape))
    }
}

/// A tensor of `storage` that no gradient flows through.
pub(super) fn tensor(storage: CudaStorage, shape: Shape) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// The type of maps that kernels know `dtype` as.
pub(super) fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::BF16 => Some(Element::Bf16),
        _ => None,
    }
}

/// The GPU and the type of `maps`, if all of them are on one and of one type, with `floats` beside them.
pub(super) fn kernel_for(
    maps: &[&Tensor],
    floats: &[&Tensor],
) -> Result<Option<(Arc<Gpu>, Element)>> {
    let first = maps[0];
    let Some(element) = element(first.dtype()) else {
        return Ok(None);
    };
    let fits = |t: &&Tensor, dtype| t.dtype() == dtype && t.device().same_device(first.device());
    let all = maps
        .iter()
        .all(|t| fits(t, first.dtype()) && t.elem_count() > 0)
        && floats.iter().all(|t| fits(t, DType::F32));
    if !all {
        return Ok(None);
    }
    Ok(Gpu::of(first.device())?.map(|gpu| (gpu, element)))
}

/// Where a contiguous tensor begins. It has to live until what reads or writes it is launched; memory is given back in the order of
/// the device's one stream.
pub(super) fn address(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => place(storage, layout),
        _ => bail!("kernel input is not on the GPU"),
    }
}

/// The same of a storage's first element.
pub(super) fn start(storage: &CudaStorage) -> Result<Address> {
    place(storage, &Layout::contiguous(1))
}

fn place(storage: &CudaStorage, layout: &Layout) -> Result<Address> {
    let Some((offset, _)) = layout.contiguous_offsets() else {
        bail!("kernel input is not contiguous");
    };
    Ok(match &storage.slice {
        CudaStorageSlice::F32(slice) => element_at(storage, slice, offset),
        CudaStorageSlice::BF16(slice) => element_at(storage, slice, offset),
        CudaStorageSlice::U32(slice) => element_at(storage, slice, offset),
        _ => bail!("kernel input is of no type that kernels know"),
    })
}

fn element_at<T>(storage: &CudaStorage, slice: &CudaSlice<T>, offset: usize) -> Address {
    let stream = storage.device.cuda_stream();
    let (first, _guard) = slice.device_ptr(&stream);
    first + (offset * size_of::<T>()) as Address
}
