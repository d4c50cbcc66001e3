//! The processor in a GPU's place: candle's CPU tensors as its memory, the emulator as its kernels. What runs this way is what a GPU would
//! be given, from the tensors down to each launch's arguments; slow, for tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use candle_core::{CpuStorage, DType, Result, bail};
use mixskd_cuda::convolution::EmulatedConvolutions;
use mixskd_cuda::{Address, Emulator, races};

use super::memory::{Gpu, Memory};

static EMULATING: AtomicBool = AtomicBool::new(false);

static GPU: LazyLock<Arc<Gpu>> = LazyLock::new(|| {
    Arc::new(Gpu {
        memory: Memory::Host,
        engine: Box::new(Emulator),
        convolutions: Box::new(EmulatedConvolutions::default()),
        lanes: Box::new(Emulator),
    })
});

/// From now on, in the whole process, float and bfloat16 tensors of the CPU are treated as a GPU's, or no longer.
pub fn emulate_gpu(on: bool) {
    EMULATING.store(on, Ordering::SeqCst);
}

/// Whether the CPU stands in for a GPU.
pub(crate) fn is_emulating() -> bool {
    EMULATING.load(Ordering::SeqCst)
}

pub(super) fn open() -> Arc<Gpu> {
    GPU.clone()
}

/// Memory for `count` elements, filled with what no kernel may rely on.
pub(super) fn storage(dtype: DType, count: usize) -> Result<CpuStorage> {
    let storage = match dtype {
        DType::F64 => CpuStorage::F64(vec![f64::NAN; count]),
        DType::F32 => CpuStorage::F32(vec![f32::NAN; count]),
        DType::BF16 => CpuStorage::BF16(vec![half::bf16::NAN; count]),
        other => return Err(candle_core::Error::UnsupportedDTypeForOp(other, "kernel").bt()),
    };
    races::taken(place(&storage, 0)?, count * dtype.size_in_bytes());
    Ok(storage)
}

/// Where an element lies.
pub(super) fn place(storage: &CpuStorage, offset: usize) -> Result<Address> {
    Ok(match storage {
        CpuStorage::F64(data) => element_at(data, offset),
        CpuStorage::F32(data) => element_at(data, offset),
        CpuStorage::BF16(data) => element_at(data, offset),
        CpuStorage::U32(data) => element_at(data, offset),
        CpuStorage::U8(data) => element_at(data, offset),
        _ => bail!("kernel input is of no type that kernels know"),
    })
}

fn element_at<T>(data: &[T], offset: usize) -> Address {
    (data.as_ptr() as usize + offset * size_of::<T>()) as Address
}
