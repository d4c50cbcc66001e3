//! Kernels on a GPU's stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaFunction, CudaModule, CudaStream, result};

use crate::engine::{BLOCK, args};
use crate::watch::{Mark, Watch};
use crate::{Arg, Engine, Error, Result};

/// The kernels as nvcc left them: the driver compiles them for the GPU at hand, and keeps that for the next time.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// Runs kernels on a stream, in the order of the calls. Addresses are those of the stream's GPU.
#[derive(Debug)]
pub struct Stream {
    cuda: Arc<CudaStream>,
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    watch: Watch,
}

impl Stream {
    /// Loads the kernels into the stream's GPU.
    ///
    /// # Errors
    /// The driver's: among others that it is older than what compiled the kernels.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let module = stream.context().load_module(PTX.into())?;
        Ok(Self {
            cuda: stream,
            module,
            functions: Mutex::default(),
            watch: Watch::default(),
        })
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.cuda
    }

    /// Where times are noted.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Runs `work`; while somebody watches, how long the GPU takes for what it launches is noted as `what`.
    pub(crate) fn noted(
        &self,
        what: impl FnOnce() -> String,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.watch.noted(&self.cuda, what, work)
    }

    /// Keeps the GPU from going on for so many microseconds, or up to twice as many.
    ///
    /// # Errors
    /// The driver's.
    pub fn delay(&self, microseconds: u32) -> Result<()> {
        // SAFETY: the kernel has one argument, a count.
        unsafe { self.start("delay", (1, 1), args![microseconds]) }
    }

    /// Milliseconds that the GPU takes for what `work` launches: the mean of `runs` in a row, after one that warms up. The GPU is kept from
    /// going on for `head_start` microseconds, so that it does not wait for the host in between.
    pub(crate) fn time(
        &self,
        head_start: u32,
        runs: u16,
        work: impl Fn() -> Result<()>,
    ) -> Result<f32> {
        work()?;
        self.delay(head_start)?;
        let begin = Mark::new(&self.cuda)?;
        for _ in 0..runs {
            work()?;
        }
        let end = Mark::new(&self.cuda)?;
        Ok(begin.until(&end)? / f32::from(runs))
    }

    fn function(&self, name: &str) -> Result<CudaFunction> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self
            .module
            .load_function(name)
            .map_err(|error| Error::Launch {
                kernel: name.into(),
                message: error.to_string(),
            })?;
        functions.insert(name.into(), function.clone());
        Ok(function)
    }

    /// # Safety
    /// As [`Engine::launch`].
    unsafe fn start(&self, kernel: &str, grid: (u32, u32), args: &[Arg]) -> Result<()> {
        let function = self.function(kernel)?;
        let mut places: Vec<_> = args.iter().map(Arg::place).collect();
        self.cuda.context().bind_to_thread()?;
        // SAFETY: the values outlive the call, which copies them; that they are the kernel's is the caller's promise.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (grid.0, grid.1, 1),
                (BLOCK as u32, 1, 1),
                0,
                self.cuda.cu_stream(),
                &mut places,
            )
        }
        .map_err(|error| Error::Launch {
            kernel: kernel.into(),
            message: error.to_string(),
        })
    }
}

impl Engine for Stream {
    unsafe fn launch(&self, kernel: &str, grid: (u32, u32), args: &[Arg]) -> Result<()> {
        // SAFETY: the caller's promise.
        let launched = || unsafe { self.start(kernel, grid, args) };
        self.noted(|| kernel.into(), launched)
    }
}
