//! A GPU's work captured once and launched again: what takes the host out of a step of many small kernels.

use candle_core::Device;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::result::{self, mem_get_info};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags, CUstreamCaptureMode, cuDeviceGraphMemTrim,
};

use super::{device, lanes};
use crate::{Error, Result};

/// Work of one GPU, ready to be launched as a whole.
pub struct StepGraph {
    graph: CudaGraph,
    device: CudaDevice,
    branches: bool,
}

// SAFETY: a graph may be used from any thread, by one at a time; whoever launches or drops it has it to himself.
unsafe impl Send for StepGraph {}

impl std::fmt::Debug for StepGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepGraph")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// candle's errors for the driver's.
fn driver(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    candle_core::Error::wrap(error).into()
}

/// Runs `work` as it will be captured, so that kernels are loaded, algorithms chosen, and what candle uploads for its own kernels lies
/// in the GPU's memory.
pub fn rehearse<T>(device: &Device, work: impl FnOnce() -> T) -> T {
    let _kept = match device {
        Device::Cuda(device) => Some(device.enable_cuda_graph_htod_cache()),
        _ => None,
    };
    work()
}

/// Bytes of the memory of `device` that are in use, by whomever; `None` where it is no GPU.
///
/// # Errors
/// The driver's.
pub fn gpu_memory_in_use(device: &Device) -> Result<Option<u64>> {
    let Device::Cuda(device) = device else {
        return Ok(None);
    };
    device
        .cuda_stream()
        .context()
        .bind_to_thread()
        .map_err(driver)?;
    let (free, total) = mem_get_info().map_err(driver)?;
    Ok(Some((total - free) as u64))
}

/// Gives the driver the memory that steps before have used and that nothing holds any more: a graph has memory of its own, and what cuDNN's ways
/// were tried out in is not needed again.
fn give_back_memory(cuda: &CudaDevice) -> Result<()> {
    let stream = cuda.cuda_stream();
    stream.synchronize().map_err(driver)?;
    // SAFETY: the pool is the device's, and what is held of it stays.
    unsafe {
        let pool = result::device::get_default_mem_pool(stream.context().cu_device());
        result::mem_pool::trim_to(pool.map_err(driver)?, 0).map_err(driver)
    }
}

/// Gives the driver what this process keeps of `device`'s memory and no tensor holds: after a graph is gone, for other processes. Nothing where `device` is no GPU.
///
/// # Errors
/// The driver's.
pub fn release_gpu_memory(device: &Device) -> Result<()> {
    let Device::Cuda(cuda) = device else {
        return Ok(());
    };
    give_back_memory(cuda)?;
    // SAFETY: the device is open, and what a graph that is there holds stays.
    unsafe { cuDeviceGraphMemTrim(cuda.cuda_stream().context().cu_device()) }
        .result()
        .map_err(driver)
}

impl StepGraph {
    /// Captures what `work` launches; nothing of it runs. `None` where `device` is no GPU.
    ///
    /// # Errors
    /// `work`'s, among them candle's for numbers that it uploads and that were not the same in the [`rehearse`]d step; the driver's.
    pub fn capture<E: From<Error>>(
        device: &Device,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Self>, E> {
        let Device::Cuda(cuda) = device else {
            return Ok(None);
        };
        let stream = cuda.cuda_stream();
        give_back_memory(cuda).map_err(E::from)?;
        // Of this thread alone: others may go on allocating.
        stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(|error| E::from(driver(error)))?;
        let before = lanes::joins();
        let done = rehearse(device, work);
        let branches = lanes::joins() > before;
        // Ended in any case: a stream left in capture can do nothing else. What an invalid capture made of the tensors dropped in it is
        // forgotten, since the driver's wrapper would give that error in place of ending.
        let _ = stream.context().check_err();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags);
        if done.is_err() || graph.is_err() {
            let _ = stream.context().check_err();
            if let Ok(stream) = device::stream(cuda) {
                stream.watch().forget_captured();
            }
        }
        done?;
        let graph = graph.map_err(|error| E::from(driver(error)))?;
        Ok(graph.map(|graph| Self {
            graph,
            device: cuda.clone(),
            branches,
        }))
    }

    /// Whether it has branches that run side by side.
    pub fn has_branches(&self) -> bool {
        self.branches
    }

    /// Launches it, after all that was launched before.
    ///
    /// # Errors
    /// The driver's.
    pub fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(driver)
    }
}
