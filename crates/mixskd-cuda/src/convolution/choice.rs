//! Which of cuDNN's ways to compute a pass is taken.

use std::ffi::c_void;
use std::rc::Rc;

use cudarc::cudnn::sys;
use cudarc::driver::DriverError;
use cudarc::driver::sys::{CUresult, CUstreamCaptureStatus};

use super::backend::Place;
use super::descriptors::Descriptors;
use super::engines::{Offers, Plan, Target};
use super::legacy::{self, Algorithm};
use super::{Convolution, Pass};
use crate::{Error, Result, Stream};

/// Bytes of scratch memory that a pass may take.
const MOST_WORKSPACE: usize = 1 << 30;
/// Configurations of engines that are tried out, at most.
const MOST_TRIED: usize = 20;
/// Runs that are timed, after one that is not.
const RUNS: u16 = 5;
/// Share of the time by which a later one has to be faster, so that noise does not decide.
const CLEARLY: f32 = 0.97;
/// Microseconds in which the host gets ahead of what it times.
const HEAD_START: u32 = 1000;
/// Numbers of choices from here on are places in the engines' list, those below are of the older interface's enumeration.
const ENGINES: u32 = 1000;

/// A way to compute a pass.
pub(super) struct Choice {
    way: Way,
    /// By which the same way is found again.
    pub(super) number: u32,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
    /// Whether it gives the same bits every time.
    pub(super) repeats: bool,
}

enum Way {
    Engine(Plan),
    Legacy(Rc<Descriptors>, Algorithm),
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

impl Choice {
    fn engine(position: usize, plan: Plan) -> Self {
        Self {
            number: ENGINES + position as u32,
            workspace: plan.workspace,
            repeats: plan.repeats,
            way: Way::Engine(plan),
        }
    }

    /// What it is called where times are told.
    pub(super) fn name(&self) -> String {
        match self.way {
            Way::Engine(_) => format!("engine {}", self.number - ENGINES),
            Way::Legacy(..) => format!("algorithm {}", self.number),
        }
    }

    /// Runs it on the input, the weight and the output, whichever of them are gradients.
    ///
    /// # Safety
    /// The arrays are as long as the convolution says, and aligned as was said when it was chosen; the workspace has the bytes it asks for.
    pub(super) unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        arrays: [*mut c_void; 3],
        workspace: *mut c_void,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.way {
                Way::Engine(plan) => plan.run(handle, arrays.map(Place), Place(workspace)),
                Way::Legacy(descriptors, algorithm) => {
                    let workspace = (workspace, self.workspace);
                    legacy::run(handle, descriptors, *algorithm, arrays, workspace)
                }
            }
        }
    }
}

/// Whether an error says of one way that it does not work here, and nothing of the others.
fn is_its_own(error: &Error) -> bool {
    matches!(
        error,
        Error::Cudnn { .. } | Error::Driver(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY))
    )
}

/// What cuDNN has for a pass, best guess first: engines where the arrays are `aligned`, of which as many as are asked for, then the older
/// interface's algorithms.
fn all(
    handle: sys::cudnnHandle_t,
    c: Convolution,
    pass: Pass,
    aligned: bool,
    by: By,
) -> Result<Vec<Choice>> {
    let mut choices = Vec::new();
    if aligned {
        let target = Target::Handle(handle);
        // A cuDNN that cannot be asked for engines has none.
        if let Ok(mut offers) = Offers::new(&c, pass, &target) {
            let most = match by {
                By::Guess => 1,
                By::Time => MOST_TRIED,
                By::Number(number) => {
                    let position = number.checked_sub(ENGINES).map(|p| p as usize);
                    let plan = position.and_then(|p| Some((p, offers.plan(p)?)));
                    choices.extend(plan.map(|(p, plan)| Choice::engine(p, plan)));
                    1
                }
            };
            let mut repeating = 0;
            for position in 0..offers.count() {
                if let Some(plan) = offers.plan(position) {
                    repeating += usize::from(plan.repeats);
                    choices.push(Choice::engine(position, plan));
                }
                if repeating == most {
                    break;
                }
            }
        }
    }
    let descriptors = Rc::new(Descriptors::new(&c)?);
    match legacy::candidates(handle, &descriptors, pass) {
        Ok(named) => choices.extend(named.into_iter().map(|candidate| Choice {
            way: Way::Legacy(descriptors.clone(), candidate.algorithm),
            number: candidate.number,
            workspace: candidate.workspace,
            repeats: candidate.repeats,
        })),
        Err(error) if choices.is_empty() => return Err(error),
        Err(_) => {}
    }
    choices.retain(|choice| choice.workspace <= MOST_WORKSPACE);
    Ok(choices)
}

/// One way for a pass: of those that give the same bits every time, or, where none does, of the others. `run` runs one.
pub(super) fn choose(
    stream: &Stream,
    handle: sys::cudnnHandle_t,
    (c, pass, aligned): (Convolution, Pass, bool),
    by: By,
    run: impl Fn(&Choice) -> Result<()>,
) -> Result<Choice> {
    let status = stream.stream().capture_status()?;
    // While a graph is captured nothing runs, so nothing is tried.
    let idle = status == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    let mut choices = all(handle, c, pass, aligned, by)?;
    if let By::Number(number) = by
        && let Some(at) = choices.iter().position(|choice| choice.number == number)
    {
        return Ok(choices.swap_remove(at));
    }
    // A stable order: guesses stay guesses.
    choices.sort_by_key(|choice| !choice.repeats);
    let mut refusal = Error::Cudnn {
        what: "a convolution: no way to compute it whose scratch memory fits",
        status: sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED,
    };
    let mut best: Option<(Choice, f32)> = None;
    for choice in choices {
        if !idle {
            return Ok(choice);
        }
        if best
            .as_ref()
            .is_some_and(|(best, _)| best.repeats != choice.repeats)
        {
            break;
        }
        let ms = match by {
            By::Time => stream.time(HEAD_START, RUNS, || run(&choice)),
            By::Guess | By::Number(_) => run(&choice).map(|()| 0.0),
        };
        match ms {
            Ok(ms) if best.as_ref().is_none_or(|(_, least)| ms < CLEARLY * least) => {
                best = Some((choice, ms));
            }
            Ok(_) => {}
            Err(error) if is_its_own(&error) => refusal = error,
            Err(error) => return Err(error),
        }
        if best.is_some() && !matches!(by, By::Time) {
            break;
        }
    }
    best.map(|(choice, _)| choice).ok_or(refusal)
}
