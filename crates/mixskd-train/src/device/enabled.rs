//! A build with CUDA.

use candle_core::Device;

use crate::Result;

pub(super) fn open(ordinal: usize) -> Result<Device> {
    Ok(mixskd_kernels::open_gpu(ordinal)?)
}

/// As its maker calls it.
pub(super) fn name(device: &Device) -> Option<String> {
    let Device::Cuda(cuda) = device else {
        return None;
    };
    cuda.cuda_stream().context().name().ok()
}
