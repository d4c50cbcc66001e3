//! cuDNN's older interface: an algorithm out of a fixed enumeration for each pass. It takes arrays of any alignment, and is there where no
//! engine is.

use std::ffi::{c_int, c_void};
use std::mem::zeroed;
use std::ptr::from_ref;

use cudarc::cudnn::{result, sys};

use super::Pass;
use super::cudnn::asked;
use super::descriptors::Descriptors;
use crate::Result;

/// Algorithms that cuDNN is asked to name; it has fewer.
const CANDIDATES: usize = 16;

/// An algorithm of one pass.
#[derive(Debug, Clone, Copy)]
pub(super) enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Data(sys::cudnnConvolutionBwdDataAlgo_t),
    Filter(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// What cuDNN says of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) algorithm: Algorithm,
    /// In cuDNN's enumeration of the pass.
    pub(super) number: u32,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
    /// Whether it gives the same bits every time.
    pub(super) repeats: bool,
}

/// Defines what cuDNN names for a pass, best guess first. Its three passes have types and functions of their own.
macro_rules! candidates {
    ($name:ident, $what:literal, $pass:ident, $perf:ty, $ask:path, $workspace:path, [$($field:ident),*]) => {
        fn $name(handle: sys::cudnnHandle_t, d: &Descriptors) -> Result<Vec<Candidate>> {
            let mut returned: c_int = 0;
            // SAFETY: plain numbers, which cuDNN fills in.
            let mut found: [$perf; CANDIDATES] = unsafe { zeroed() };
            // SAFETY: handle and descriptors are open, and there is room for all candidates.
            unsafe {
                $ask(handle, $(d.$field,)* CANDIDATES as c_int, &raw mut returned, found.as_mut_ptr())
            }
            .map_err(asked(concat!($what, ", algorithms")))?;
            let mut named: Vec<Candidate> = Vec::new();
            for candidate in &found[..CANDIDATES.min(returned.max(0) as usize)] {
                // The same algorithm may be named once for each kind of arithmetic; the convolution's own says which is used.
                let number = candidate.algo as u32;
                if candidate.status != sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                    || named.iter().any(|other| other.number == number)
                {
                    continue;
                }
                // SAFETY: as above.
                let size = unsafe { $workspace(handle, $(d.$field,)* candidate.algo) };
                if let Ok(workspace) = size {
                    named.push(Candidate {
                        algorithm: Algorithm::$pass(candidate.algo),
                        number,
                        workspace,
                        repeats: candidate.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                    });
                }
            }
            Ok(named)
        }
    };
}

candidates!(
    forward,
    "convolution forward",
    Forward,
    sys::cudnnConvolutionFwdAlgoPerf_t,
    result::get_convolution_forward_algorithm,
    result::get_convolution_forward_workspace_size,
    [x, w, convolution, y]
);
candidates!(
    data,
    "convolution backward, data",
    Data,
    sys::cudnnConvolutionBwdDataAlgoPerf_t,
    result::get_convolution_backward_data_algorithm,
    result::get_convolution_backward_data_workspace_size,
    [w, y, convolution, x]
);
candidates!(
    filter,
    "convolution backward, filter",
    Filter,
    sys::cudnnConvolutionBwdFilterAlgoPerf_t,
    result::get_convolution_backward_filter_algorithm,
    result::get_convolution_backward_filter_workspace_size,
    [x, y, convolution, w]
);

/// What cuDNN names for a pass, best guess first.
pub(super) fn candidates(
    handle: sys::cudnnHandle_t,
    d: &Descriptors,
    pass: Pass,
) -> Result<Vec<Candidate>> {
    match pass {
        Pass::Forward => forward(handle, d),
        Pass::Data => data(handle, d),
        Pass::Filter => filter(handle, d),
    }
}

/// Runs an algorithm on the input, the weight and the output, whichever of them are gradients.
///
/// # Safety
/// The arrays are as long as the descriptors say, the workspace as the algorithm asks.
pub(super) unsafe fn run(
    handle: sys::cudnnHandle_t,
    d: &Descriptors,
    algorithm: Algorithm,
    [x, w, y]: [*mut c_void; 3],
    (space, size): (*mut c_void, usize),
) -> Result<()> {
    let (one, zero) = (1.0f32, 0.0f32);
    let (one, zero): (*const c_void, *const c_void) =
        (from_ref(&one).cast(), from_ref(&zero).cast());
    let window = d.convolution;
    // SAFETY: handle and descriptors are open, the arrays the caller's promise.
    unsafe {
        match algorithm {
            Algorithm::Forward(algorithm) => result::convolution_forward(
                handle, one, d.x, x, d.w, w, window, algorithm, space, size, zero, d.y, y,
            )
            .map_err(asked("convolution forward")),
            Algorithm::Data(algorithm) => result::convolution_backward_data(
                handle, one, d.w, w, d.y, y, window, algorithm, space, size, zero, d.x, x,
            )
            .map_err(asked("convolution backward, data")),
            Algorithm::Filter(algorithm) => result::convolution_backward_filter(
                handle, one, d.x, x, d.y, y, window, algorithm, space, size, zero, d.w, w,
            )
            .map_err(asked("convolution backward, filter")),
        }
    }
}
