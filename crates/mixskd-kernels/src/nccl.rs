//! Means over the tensors of several processes, each with a GPU of its own.

use candle_core::cuda_backend::CudaStorage;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, Device, Storage, Tensor, Var, bail};
use mixskd_cuda::Address;
use mixskd_cuda::nccl as cuda;

pub use mixskd_cuda::nccl::{GoOn, Id};

use crate::Result;

/// This process's part in a group.
pub struct Communicator {
    inner: cuda::Communicator,
    device: CudaDevice,
}

/// A new group's id, to be given to every process of it.
///
/// # Errors
/// NCCL's.
pub fn new_id() -> Result<Id> {
    Ok(Id::new().map_err(failed)?)
}

impl Communicator {
    /// Joins the group `id` of `world` processes as the one called `rank`, with the GPU that is `device`; works on the stream that candle's
    /// operations there run on. Returns when all have joined; `go_on` is asked meanwhile whether to wait any longer.
    ///
    /// # Errors
    /// When the device is no GPU, NCCL's, and when `go_on` said no.
    pub fn new(device: &Device, rank: usize, world: usize, id: &Id, go_on: GoOn) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let stream = device.cuda_stream();
        let inner = cuda::Communicator::new(stream, rank, world, id, go_on).map_err(failed)?;
        Ok(Self { inner, device })
    }

    /// The mean of each tensor over all processes, and the first process's values in each of `copies`. Returns when that is done. Every process
    /// gives float32 tensors of the same shapes in the same order, and gets the same bits.
    ///
    /// # Errors
    /// When a tensor is not float32 on the GPU, NCCL's, and when `go_on` said no; the communicator is of no use after that.
    pub fn average(&self, tensors: &[Tensor], copies: &[Var], go_on: GoOn) -> Result<Vec<Tensor>> {
        let inputs = tensors
            .iter()
            .map(Tensor::contiguous)
            .collect::<candle_core::Result<Vec<_>>>()?;
        let outputs = inputs
            .iter()
            .map(|input| {
                // SAFETY: nothing reads it before it is written below.
                let memory = unsafe { self.device.alloc::<f32>(input.elem_count())? };
                let storage = CudaStorage::wrap_cuda_slice(memory, self.device.clone());
                let storage = Storage::Cuda(storage);
                let shape = input.shape().clone();
                Ok(Tensor::from_storage(
                    storage,
                    shape,
                    BackpropOp::none(),
                    false,
                ))
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let arrays = inputs
            .iter()
            .zip(&outputs)
            .map(|(from, to)| Ok((address(from)?, address(to)?, from.elem_count())))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let copies = copies
            .iter()
            .map(|copy| Ok((address(copy)?, copy.elem_count())))
            .collect::<candle_core::Result<Vec<_>>>()?;
        // SAFETY: lengths are the tensors' own; outputs are new, and variables have memory of their own.
        unsafe { self.inner.average(&arrays, &copies, go_on) }.map_err(failed)?;
        Ok(outputs)
    }
}

fn failed(error: mixskd_cuda::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// Where a contiguous float32 tensor begins.
fn address(tensor: &Tensor) -> candle_core::Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cuda(storage), Some((offset, _))) = (&*storage, layout.contiguous_offsets())
    else {
        bail!("a mean over GPUs of a tensor that is on none, or not contiguous");
    };
    let stream = storage.device.cuda_stream();
    let (first, _guard) = storage.as_cuda_slice::<f32>()?.device_ptr(&stream);
    Ok(first + (offset * size_of::<f32>()) as Address)
}
