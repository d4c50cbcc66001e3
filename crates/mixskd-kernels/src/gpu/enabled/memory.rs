//! Tensors as addresses in a GPU's memory.

use std::sync::Arc;

use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use mixskd_cuda::convolution::Convolve;
use mixskd_cuda::{Address, Element, Engine, Lanes};

#[cfg(feature = "cuda")]
use super::device;
#[cfg(feature = "emulator")]
use super::host;
#[cfg(feature = "cuda")]
use super::lanes;

/// A GPU with the kernels loaded, or the processor that stands in for one.
pub(super) struct Gpu {
    pub(super) memory: Memory,
    pub(super) engine: Box<dyn Engine + Send + Sync>,
    pub(super) convolutions: Box<dyn Convolve + Send + Sync>,
    pub(super) lanes: Box<dyn Lanes + Send + Sync>,
}

/// Where a GPU's tensors live.
pub(super) enum Memory {
    #[cfg(feature = "cuda")]
    Device(
        candle_core::CudaDevice,
        Arc<mixskd_cuda::Stream>,
        device::Workspaces,
    ),
    #[cfg(feature = "emulator")]
    Host,
}

/// An error of mixskd-cuda as candle carries it.
pub(super) fn failed(error: mixskd_cuda::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

impl Gpu {
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, reason = "only a GPU can fail to open")
    )]
    /// The GPU that `device` is; kernels are loaded when it is first asked for.
    pub(super) fn of(device: &Device) -> Result<Option<Arc<Self>>> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => device::loaded(device).map(Some),
            #[cfg(feature = "emulator")]
            Device::Cpu if host::is_emulating() => Ok(Some(host::open())),
            _ => Ok(None),
        }
    }

    /// candle's product of matrices, by cuBLAS; on the processor, which multiplies no bfloat16, of floats rounded to it.
    pub(super) fn product(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.multiply_here()?;
        if x.device().is_cpu() && x.dtype() == DType::BF16 {
            let product = x.to_dtype(DType::F32)?.matmul(&y.to_dtype(DType::F32)?)?;
            return product.to_dtype(DType::BF16);
        }
        x.matmul(y)
    }

    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, reason = "only cuBLAS can refuse")
    )]
    /// Products from here on are made in the memory of the current lane.
    pub(super) fn multiply_here(&self) -> Result<()> {
        match &self.memory {
            #[cfg(feature = "cuda")]
            Memory::Device(device, _, workspaces) => workspaces.give(device, lanes::current()),
            #[cfg(feature = "emulator")]
            Memory::Host => Ok(()),
        }
    }

    /// Whether a captured step may have lanes.
    pub(super) fn set_lanes(&self, on: bool) {
        self.convolutions.set_lanes(on);
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Memory for `count` elements, not yet written.
    pub(super) fn storage(&self, dtype: DType, count: usize) -> Result<Storage> {
        match &self.memory {
            #[cfg(feature = "cuda")]
            Memory::Device(device, ..) => device::storage(device, dtype, count).map(Storage::Cuda),
            #[cfg(feature = "emulator")]
            Memory::Host => host::storage(dtype, count).map(Storage::Cpu),
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
pub(super) fn tensor(storage: Storage, shape: Shape) -> Tensor {
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
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
/// the device's one stream, or of the [lane](super::lanes) that it is dropped in.
pub(super) fn address(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    place(&storage, layout)
}

/// The same of a storage's first element.
pub(super) fn start(storage: &Storage) -> Result<Address> {
    place(storage, &Layout::contiguous(1))
}

fn place(storage: &Storage, layout: &Layout) -> Result<Address> {
    let Some((offset, _)) = layout.contiguous_offsets() else {
        bail!("kernel input is not contiguous");
    };
    match storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => device::place(storage, offset),
        #[cfg(feature = "emulator")]
        Storage::Cpu(storage) => host::place(storage, offset),
        _ => bail!("kernel input is not on the GPU"),
    }
}
