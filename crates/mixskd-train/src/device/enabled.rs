//! A build with CUDA.

use candle_core::Device;

use crate::Result;

pub(super) fn open(ordinal: usize) -> Result<Device> {
    Ok(mixskd_kernels::open_gpu(ordinal)?)
}
