//! cuDNN's convolutions.
//!
//! cuDNN is asked once for each shape, type and arithmetic which algorithm it would take. Of its answers the first is taken that gives
//! the same bits every time and fits the workspace, so that a run resumed is the run uninterrupted; where there is none, the first that
//! fits, which [`all_repeat`] then tells.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cudnn::{CudnnError, result, sys};
use cudarc::driver::{CudaStream, DevicePtr};

use super::descriptors::Descriptors;
use super::{Convolution, Convolve};
use crate::{Address, Error, Result};

/// Bytes of scratch memory that an algorithm may take.
const MOST_WORKSPACE: usize = 1 << 30;
/// Algorithms that cuDNN is asked to name; it has fewer.
const CANDIDATES: usize = 16;

/// An algorithm had to be taken that cuDNN does not call deterministic.
static UNREPEATABLE: AtomicBool = AtomicBool::new(false);

/// Whether every convolution chosen so far gives the same bits every time.
pub fn all_repeat() -> bool {
    !UNREPEATABLE.load(Ordering::Relaxed)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pass {
    Forward,
    Data,
    Filter,
}

/// An algorithm, as the number cuDNN's own enumeration of the pass gives it, and its scratch memory in bytes.
#[derive(Debug, Clone, Copy)]
struct Choice<A> {
    algorithm: A,
    workspace: usize,
}

/// The choices made for one convolution, as they are needed.
struct Plan {
    descriptors: Descriptors,
    forward: Option<Choice<sys::cudnnConvolutionFwdAlgo_t>>,
    data: Option<Choice<sys::cudnnConvolutionBwdDataAlgo_t>>,
    filter: Option<Choice<sys::cudnnConvolutionBwdFilterAlgo_t>>,
}

struct State {
    handle: sys::cudnnHandle_t,
    plans: HashMap<Convolution, Plan>,
}

// SAFETY: handle and descriptors may be used from any thread, one at a time; the mutex around the state sees to that.
unsafe impl Send for State {}

/// cuDNN on one stream.
pub struct Cudnn {
    stream: Arc<CudaStream>,
    state: Mutex<State>,
}

pub(super) fn asked(what: &'static str) -> impl FnOnce(CudnnError) -> Error {
    move |error| Error::Cudnn {
        what,
        status: error.0,
    }
}

impl Cudnn {
    /// Opens the library for a stream.
    ///
    /// # Errors
    /// cuDNN's.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread()?;
        let handle = result::create_handle().map_err(asked("open"))?;
        let opened = Self {
            stream,
            state: Mutex::new(State {
                handle,
                plans: HashMap::new(),
            }),
        };
        // SAFETY: both are open.
        unsafe { result::set_stream(handle, opened.stream.cu_stream().cast()) }
            .map_err(asked("set stream"))?;
        Ok(opened)
    }

    /// One pass; arrays are the input's, the weight's and the output's, whichever of them are gradients.
    unsafe fn run(&self, c: Convolution, pass: Pass, [x, w, y]: [Address; 3]) -> Result<()> {
        self.stream.context().bind_to_thread()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { handle, plans } = &mut *state;
        let handle = *handle;
        let plan = match plans.entry(c) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Plan {
                descriptors: Descriptors::new(&c)?,
                forward: None,
                data: None,
                filter: None,
            }),
        };
        let d = &plan.descriptors;
        let (one, zero) = (1.0f32, 0.0f32);
        let (one, zero): (*const c_void, *const c_void) = (
            std::ptr::from_ref(&one).cast(),
            std::ptr::from_ref(&zero).cast(),
        );
        let read = |address: Address| address as *const c_void;
        let write = |address: Address| address as *mut c_void;
        // SAFETY: handle and descriptors are open; the arrays are the caller's promise; the workspace is freed in the order of the
        // stream, behind the convolution.
        unsafe {
            match pass {
                Pass::Forward => {
                    let choice = known(&mut plan.forward, || choose_forward(handle, d))?;
                    self.with_workspace(choice.workspace, |space, size| {
                        result::convolution_forward(
                            handle,
                            one,
                            d.x,
                            read(x),
                            d.w,
                            read(w),
                            d.convolution,
                            choice.algorithm,
                            space,
                            size,
                            zero,
                            d.y,
                            write(y),
                        )
                        .map_err(asked("convolution forward"))
                    })
                }
                Pass::Data => {
                    let choice = known(&mut plan.data, || choose_data(handle, d))?;
                    self.with_workspace(choice.workspace, |space, size| {
                        result::convolution_backward_data(
                            handle,
                            one,
                            d.w,
                            read(w),
                            d.y,
                            read(y),
                            d.convolution,
                            choice.algorithm,
                            space,
                            size,
                            zero,
                            d.x,
                            write(x),
                        )
                        .map_err(asked("convolution backward, data"))
                    })
                }
                Pass::Filter => {
                    let choice = known(&mut plan.filter, || choose_filter(handle, d))?;
                    self.with_workspace(choice.workspace, |space, size| {
                        result::convolution_backward_filter(
                            handle,
                            one,
                            d.x,
                            read(x),
                            d.y,
                            read(y),
                            d.convolution,
                            choice.algorithm,
                            space,
                            size,
                            zero,
                            d.w,
                            write(w),
                        )
                        .map_err(asked("convolution backward, filter"))
                    })
                }
            }
        }
    }

    /// Calls `work` with scratch memory of `size` bytes, taken from and given back to the stream's pool.
    fn with_workspace(
        &self,
        size: usize,
        work: impl FnOnce(*mut c_void, usize) -> Result<()>,
    ) -> Result<()> {
        if size == 0 {
            return work(std::ptr::null_mut(), 0);
        }
        // SAFETY: cuDNN reads nothing of it that it has not written.
        let space = unsafe { self.stream.alloc::<u8>(size) }?;
        let (address, guard) = space.device_ptr(&self.stream);
        let done = work(address as *mut c_void, size);
        drop(guard);
        done
    }
}

impl Convolve for Cudnn {
    unsafe fn forward(&self, c: Convolution, x: Address, w: Address, y: Address) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Forward, [x, w, y]) }
    }

    unsafe fn data_gradient(
        &self,
        c: Convolution,
        w: Address,
        dy: Address,
        dx: Address,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Data, [dx, w, dy]) }
    }

    unsafe fn filter_gradient(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Filter, [x, dw, dy]) }
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.plans.clear();
        // A library that cannot be closed at the end is left open.
        // SAFETY: nothing uses the handle any more.
        let _ = unsafe { result::destroy_handle(state.handle) };
    }
}

/// The choice made before, or one made now.
fn known<A: Copy>(
    slot: &mut Option<Choice<A>>,
    choose: impl FnOnce() -> Result<Choice<A>>,
) -> Result<Choice<A>> {
    if let Some(choice) = slot {
        return Ok(*choice);
    }
    Ok(*slot.insert(choose()?))
}

/// Defines how a pass's algorithm is chosen: cuDNN's three passes have types and functions of their own.
macro_rules! chooser {
    ($name:ident, $what:literal, $algorithm:ty, $perf:ty, $candidates:path, $workspace:path, [$($field:ident),*]) => {
        fn $name(handle: sys::cudnnHandle_t, d: &Descriptors) -> Result<Choice<$algorithm>> {
            let mut returned: c_int = 0;
            // SAFETY: plain numbers, which cuDNN fills in.
            let mut found: [$perf; CANDIDATES] = unsafe { zeroed() };
            // SAFETY: handle and descriptors are open, and there is room for all candidates.
            unsafe {
                $candidates(
                    handle, $(d.$field,)* CANDIDATES as c_int, &raw mut returned, found.as_mut_ptr(),
                )
            }
            .map_err(asked(concat!($what, ", algorithms")))?;
            let works = |candidate: &&$perf| candidate.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS;
            let repeats = |candidate: &&$perf| candidate.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
            let named = &found[..CANDIDATES.min(returned.max(0) as usize)];
            let (first, others): (Vec<&$perf>, Vec<&$perf>) = named.iter().filter(works).partition(repeats);
            for candidate in first.into_iter().chain(others) {
                // SAFETY: as above.
                let size = unsafe { $workspace(handle, $(d.$field,)* candidate.algo) };
                match size {
                    Ok(workspace) if workspace <= MOST_WORKSPACE => {
                        if !repeats(&candidate) {
                            UNREPEATABLE.store(true, Ordering::Relaxed);
                        }
                        return Ok(Choice { algorithm: candidate.algo, workspace });
                    }
                    _ => {}
                }
            }
            Err(Error::Cudnn {
                what: concat!($what, ": no algorithm whose scratch memory fits"),
                status: sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED,
            })
        }
    };
}

chooser!(
    choose_forward,
    "convolution forward",
    sys::cudnnConvolutionFwdAlgo_t,
    sys::cudnnConvolutionFwdAlgoPerf_t,
    result::get_convolution_forward_algorithm,
    result::get_convolution_forward_workspace_size,
    [x, w, convolution, y]
);
chooser!(
    choose_data,
    "convolution backward, data",
    sys::cudnnConvolutionBwdDataAlgo_t,
    sys::cudnnConvolutionBwdDataAlgoPerf_t,
    result::get_convolution_backward_data_algorithm,
    result::get_convolution_backward_data_workspace_size,
    [w, y, convolution, x]
);
chooser!(
    choose_filter,
    "convolution backward, filter",
    sys::cudnnConvolutionBwdFilterAlgo_t,
    sys::cudnnConvolutionBwdFilterAlgoPerf_t,
    result::get_convolution_backward_filter_algorithm,
    result::get_convolution_backward_filter_workspace_size,
    [x, y, convolution, w]
);
