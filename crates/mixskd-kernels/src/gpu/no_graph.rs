//! A build without CUDA: nothing is captured.

use std::convert::Infallible;

use candle_core::Device;

use crate::gpu::GpuSpan;
use crate::{Error, Result};

/// Work of one GPU, ready to be launched as a whole; this build knows none.
#[derive(Debug)]
pub struct StepGraph(Infallible);

/// Notes what a GPU does; this build knows none.
#[derive(Debug)]
pub struct GpuWatch(Infallible);

/// Nothing: this build knows no GPU.
///
/// # Errors
/// Never.
pub fn release_gpu_memory(_: &Device) -> Result<()> {
    Ok(())
}

impl GpuWatch {
    /// `None`.
    ///
    /// # Errors
    /// Never.
    pub fn start(_: &Device) -> Result<Option<Self>> {
        Ok(None)
    }

    /// Never called.
    pub fn stop(&self) {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn spans(&self) -> Result<Vec<GpuSpan>> {
        match self.0 {}
    }
}

/// Runs `work`.
pub fn rehearse<T>(_: &Device, work: impl FnOnce() -> T) -> T {
    work()
}

/// `None`: this build knows no GPU.
///
/// # Errors
/// Never.
pub fn gpu_memory_in_use(_: &Device) -> Result<Option<u64>> {
    Ok(None)
}

impl StepGraph {
    /// `None`.
    ///
    /// # Errors
    /// Never.
    pub fn capture<E: From<Error>>(
        _: &Device,
        _: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Self>, E> {
        Ok(None)
    }

    /// Never called.
    pub fn has_branches(&self) -> bool {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn launch(&self) -> Result<()> {
        match self.0 {}
    }
}
