//! Algorithms that cuDNN names for a convolution's pass, and which of them is taken.

use std::ffi::c_int;
use std::mem::zeroed;

use cudarc::cudnn::{result, sys};
use cudarc::driver::sys::CUstreamCaptureStatus;

use super::cudnn::asked;
use super::descriptors::Descriptors;
use crate::{Error, Result, Stream};

/// Bytes of scratch memory that an algorithm may take.
const MOST_WORKSPACE: usize = 1 << 30;
/// Algorithms that cuDNN is asked to name; it has fewer.
const CANDIDATES: usize = 16;
/// Runs of an algorithm that are timed, after one that is not.
const RUNS: u16 = 5;
/// Share of the time by which a later candidate has to be faster, so that noise does not decide.
const CLEARLY: f32 = 0.97;
/// Microseconds in which the host gets ahead of what it times.
const HEAD_START: u32 = 300;

/// An algorithm, with its number in cuDNN's own enumeration of the pass and its scratch memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<A> {
    pub(super) algorithm: A,
    pub(super) number: u32,
    pub(super) workspace: usize,
    /// Whether it gives the same bits every time.
    pub(super) repeats: bool,
}

/// How one is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    /// cuDNN's own order.
    Guess,
    /// Time.
    Time,
    /// An earlier choice, by its number; cuDNN's order where it is not offered any more.
    Number(u32),
}

/// One of `candidates`, which are in cuDNN's order and not empty. `run` runs one.
pub(super) fn choose<A: Copy>(
    stream: &Stream,
    by: By,
    candidates: &[Choice<A>],
    run: impl Fn(Choice<A>) -> Result<()>,
) -> Result<Choice<A>> {
    let first = candidates[0];
    match by {
        By::Guess => Ok(first),
        By::Number(number) => {
            let known = candidates.iter().find(|c| c.number == number);
            Ok(known.copied().unwrap_or(first))
        }
        By::Time => {
            let status = stream.stream().capture_status()?;
            if status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
                // Nothing runs now.
                return Ok(first);
            }
            let mut best: Option<(Choice<A>, f32)> = None;
            for &candidate in candidates {
                // One that does not run after all is none.
                let Ok(ms) = stream.time(HEAD_START, RUNS, || run(candidate)) else {
                    continue;
                };
                if best.is_none_or(|(_, least)| ms < CLEARLY * least) {
                    best = Some((candidate, ms));
                }
            }
            Ok(best.map_or(first, |(choice, _)| choice))
        }
    }
}

/// Defines what cuDNN offers for a pass, best guess first: algorithms that fit and repeat, or, where there is none, those that fit. cuDNN's three
/// passes have types and functions of their own.
macro_rules! candidates {
    ($name:ident, $what:literal, $algorithm:ty, $perf:ty, $ask:path, $workspace:path, [$($field:ident),*]) => {
        pub(super) fn $name(handle: sys::cudnnHandle_t, d: &Descriptors) -> Result<Vec<Choice<$algorithm>>> {
            let mut returned: c_int = 0;
            // SAFETY: plain numbers, which cuDNN fills in.
            let mut found: [$perf; CANDIDATES] = unsafe { zeroed() };
            // SAFETY: handle and descriptors are open, and there is room for all candidates.
            unsafe {
                $ask(handle, $(d.$field,)* CANDIDATES as c_int, &raw mut returned, found.as_mut_ptr())
            }
            .map_err(asked(concat!($what, ", algorithms")))?;
            let named = &found[..CANDIDATES.min(returned.max(0) as usize)];
            let mut fit: Vec<Choice<$algorithm>> = Vec::new();
            for candidate in named {
                // The same algorithm may be named once for each kind of arithmetic; the convolution's own says which is used.
                let number = candidate.algo as u32;
                if candidate.status != sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                    || fit.iter().any(|other| other.number == number)
                {
                    continue;
                }
                // SAFETY: as above.
                let size = unsafe { $workspace(handle, $(d.$field,)* candidate.algo) };
                if let Ok(workspace) = size
                    && workspace <= MOST_WORKSPACE
                {
                    fit.push(Choice {
                        algorithm: candidate.algo,
                        number,
                        workspace,
                        repeats: candidate.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                    });
                }
            }
            if fit.iter().any(|choice| choice.repeats) {
                fit.retain(|choice| choice.repeats);
            }
            if fit.is_empty() {
                return Err(Error::Cudnn {
                    what: concat!($what, ": no algorithm whose scratch memory fits"),
                    status: sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED,
                });
            }
            Ok(fit)
        }
    };
}

candidates!(
    forward,
    "convolution forward",
    sys::cudnnConvolutionFwdAlgo_t,
    sys::cudnnConvolutionFwdAlgoPerf_t,
    result::get_convolution_forward_algorithm,
    result::get_convolution_forward_workspace_size,
    [x, w, convolution, y]
);
candidates!(
    data,
    "convolution backward, data",
    sys::cudnnConvolutionBwdDataAlgo_t,
    sys::cudnnConvolutionBwdDataAlgoPerf_t,
    result::get_convolution_backward_data_algorithm,
    result::get_convolution_backward_data_workspace_size,
    [w, y, convolution, x]
);
candidates!(
    filter,
    "convolution backward, filter",
    sys::cudnnConvolutionBwdFilterAlgo_t,
    sys::cudnnConvolutionBwdFilterAlgoPerf_t,
    result::get_convolution_backward_filter_algorithm,
    result::get_convolution_backward_filter_workspace_size,
    [x, y, convolution, w]
);
