//! Kernels on a GPU's stream.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    CUgraph, CUgraphNode, CUresult, CUstream, CUstreamCaptureStatus,
    CUstreamUpdateCaptureDependencies_flags, cuGetProcAddress_v2,
};
use cudarc::driver::{CudaFunction, CudaModule, CudaStream, result};

use crate::engine::{BLOCK, args};
use crate::watch::{Mark, Watch};
use crate::{Arg, Engine, Error, Lanes, Place, Result};

/// The kernels as nvcc left them: the driver compiles them for the GPU at hand, and keeps that for the next time.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// `cuStreamUpdateCaptureDependencies` as it has been since CUDA 11.3.
type SetDependencies = unsafe extern "C" fn(CUstream, *mut CUgraphNode, usize, u32) -> CUresult;
/// `cuStreamGetCaptureInfo` of the same age.
type CaptureInfo = unsafe extern "C" fn(
    CUstream,
    *mut CUstreamCaptureStatus,
    *mut u64,
    *mut CUgraph,
    *mut *const CUgraphNode,
    *mut usize,
) -> CUresult;

/// `CUDA_ERROR_LOSSY_QUERY`, which bindings of older versions do not name.
const LOSSY_QUERY: u32 = 402;

/// What lanes ask of the driver.
#[derive(Debug, Clone, Copy)]
struct Captures {
    set_dependencies: SetDependencies,
    info: CaptureInfo,
}

/// Runs kernels on a stream, in the order of the calls, or in several lanes of a graph. Addresses are those of the stream's GPU.
#[derive(Debug)]
pub struct Stream {
    cuda: Arc<CudaStream>,
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    watch: Watch,
    captures: Option<Captures>,
    /// Whether a captured step may have lanes.
    has_lanes: AtomicBool,
    lane: AtomicUsize,
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
            captures: Captures::find(),
            has_lanes: AtomicBool::new(false),
            lane: AtomicUsize::new(0),
        })
    }

    /// Whether the driver has what lanes need.
    pub(crate) fn can_have_lanes(&self) -> bool {
        self.captures.is_some()
    }

    /// Whether what is captured from now on may have lanes. Where the driver cannot, it has none.
    pub(crate) fn set_lanes(&self, on: bool) {
        self.has_lanes.store(on, Ordering::Relaxed);
    }

    /// The lane that work goes to.
    pub(crate) fn lane(&self) -> usize {
        self.lane.load(Ordering::Relaxed)
    }

    /// Whether what is launched becomes part of a graph.
    fn is_captured(&self) -> Result<bool> {
        let active = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
        // The first call may give an error that something before it has left behind; the second gives its own.
        let now = self.cuda.capture_status();
        Ok(now.or_else(|_| self.cuda.capture_status())? == active)
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

/// A function of the driver's, if it has it. Asked for by version: later ones take other arguments.
fn of_driver(name: &CStr) -> Option<NonNull<c_void>> {
    let mut found = std::ptr::null_mut::<c_void>();
    // SAFETY: the name ends in a zero, and the place is there.
    let asked = unsafe {
        cuGetProcAddress_v2(
            name.as_ptr(),
            &raw mut found,
            11030,
            0,
            std::ptr::null_mut(),
        )
    };
    asked.result().ok()?;
    NonNull::new(found)
}

impl Captures {
    fn find() -> Option<Self> {
        let set_dependencies = of_driver(c"cuStreamUpdateCaptureDependencies")?;
        let info = of_driver(c"cuStreamGetCaptureInfo")?;
        // SAFETY: these are the functions' types in that version.
        unsafe {
            Some(Self {
                set_dependencies: std::mem::transmute::<*mut c_void, SetDependencies>(
                    set_dependencies.as_ptr(),
                ),
                info: std::mem::transmute::<*mut c_void, CaptureInfo>(info.as_ptr()),
            })
        }
    }

    /// Has the next launch wait for nothing.
    fn begin(self, stream: &CudaStream) -> Result<()> {
        let replace = CUstreamUpdateCaptureDependencies_flags::CU_STREAM_SET_CAPTURE_DEPENDENCIES;
        let mut nothing: CUgraphNode = std::ptr::null_mut();
        // SAFETY: the stream is open, and no node is read.
        unsafe {
            let stream = stream.cu_stream();
            (self.set_dependencies)(stream, &raw mut nothing, 0, replace as u32).result()?;
        }
        Ok(())
    }

    /// Whether the next launch waits for anything.
    fn waits(self, stream: &CudaStream) -> Result<bool> {
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut id, mut graph, mut nodes, mut count) =
            (0, std::ptr::null_mut(), std::ptr::null(), 0);
        // SAFETY: the stream is open, and all places are there; what the nodes are is not asked.
        let asked = unsafe {
            (self.info)(
                stream.cu_stream(),
                &raw mut status,
                &raw mut id,
                &raw mut graph,
                &raw mut nodes,
                &raw mut count,
            )
        };
        // Where it waits in a way that this version cannot tell, it does wait.
        if asked as u32 == LOSSY_QUERY {
            return Ok(true);
        }
        asked.result()?;
        Ok(count > 0)
    }
}

impl Lanes for Stream {
    fn are_there(&self) -> bool {
        // What is timed is timed alone.
        self.has_lanes.load(Ordering::Relaxed) && self.captures.is_some() && !self.watch.is_on()
    }

    fn place(&self) -> Result<Place> {
        if !self.is_captured()? {
            return Ok(Place::default());
        }
        let event = self.cuda.context().new_event(None)?;
        event.record(&self.cuda)?;
        Ok(Place::at(event))
    }

    fn go(&self, lane: usize, behind: &Place) -> Result<()> {
        let is_captured = self.is_captured()?;
        let captures = self.captures.filter(|_| is_captured);
        if let Some(captures) = captures {
            captures.begin(&self.cuda)?;
        }
        self.lane.store(lane, Ordering::Relaxed);
        self.wait(behind)?;
        match captures {
            // A step that waited for nothing would give wrong results in place of an error.
            Some(captures) if !captures.waits(&self.cuda)? => Err(Error::Lane),
            _ => Ok(()),
        }
    }

    fn wait(&self, place: &Place) -> Result<()> {
        match &place.event {
            Some(event) => Ok(self.cuda.wait(event)?),
            None => Ok(()),
        }
    }

    fn leave(&self) {
        self.lane.store(0, Ordering::Relaxed);
    }
}

impl Engine for Stream {
    unsafe fn launch(&self, kernel: &str, grid: (u32, u32), args: &[Arg]) -> Result<()> {
        // SAFETY: the caller's promise.
        let launched = || unsafe { self.start(kernel, grid, args) };
        self.noted(|| kernel.into(), launched)
    }
}
