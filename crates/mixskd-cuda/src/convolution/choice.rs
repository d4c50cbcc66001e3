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
use super::{Convolution, Pass, notices};
use crate::{Error, Result, Stream};

/// Bytes of scratch memory that a pass may take.
const MOST_WORKSPACE: usize = 1 << 30;
/// Configurations of engines that are tried out, at most. To make a plan takes some 20 ms.
const MOST_TRIED: usize = 16;
/// Runs that are timed, after one that is not.
const RUNS: u16 = 5;
/// Share of the time by which a later one has to be faster, so that noise does not decide.
const CLEARLY: f32 = 0.97;
/// Microseconds in which the host gets ahead of what it times.
const HEAD_START: u32 = 1000;
/// Numbers of choices below this are the older interface's. Those from here on are `ENGINES · (1 + engine) + place`, the place being that of the
/// configuration among those offered.
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
    /// An earlier choice, by its number; cuDNN's order where that is not offered any more.
    Number(u32),
}

impl Choice {
    fn engine(place: usize, plan: Plan) -> Self {
        Self {
            number: ENGINES * (1 + plan.engine) + place as u32,
            workspace: plan.workspace,
            repeats: plan.repeats,
            way: Way::Engine(plan),
        }
    }

    /// What it is called where times are told.
    pub(super) fn name(&self) -> String {
        match self.way {
            Way::Engine(_) => format!(
                "engine {} ({})",
                self.number / ENGINES - 1,
                self.number % ENGINES
            ),
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

/// The ways to one pass, and the best of them so far.
struct Search<'a, R> {
    stream: &'a Stream,
    run: R,
    /// While a graph is captured nothing runs, so nothing is tried.
    idle: bool,
    timed: bool,
    best: Option<(Choice, f32)>,
    /// Why the last one that was tried is none.
    refusal: Error,
    /// Those that do not repeat: for when nothing else does.
    last_resort: Vec<Choice>,
}

impl<R: Fn(&Choice) -> Result<()>> Search<'_, R> {
    /// Considers a way.
    fn offer(&mut self, choice: Choice) -> Result<()> {
        if self.is_over() || choice.workspace > MOST_WORKSPACE {
            return Ok(());
        }
        if !choice.repeats {
            self.last_resort.push(choice);
            return Ok(());
        }
        self.consider(choice)
    }

    fn consider(&mut self, choice: Choice) -> Result<()> {
        let ms = match (self.idle, self.timed) {
            (false, _) => Ok(0.0),
            (true, true) => self.stream.time(HEAD_START, RUNS, || (self.run)(&choice)),
            (true, false) => (self.run)(&choice).map(|()| 0.0),
        };
        match ms {
            Ok(ms)
                if self
                    .best
                    .as_ref()
                    .is_none_or(|(_, least)| ms < CLEARLY * least) =>
            {
                self.best = Some((choice, ms));
            }
            Ok(_) => {}
            Err(error) if is_its_own(&error) => self.refusal = error,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether more offers would change nothing.
    fn is_over(&self) -> bool {
        self.best.is_some() && !(self.idle && self.timed)
    }

    fn end(mut self) -> Result<Choice> {
        for choice in std::mem::take(&mut self.last_resort) {
            if self.best.is_none()
                || (self.timed
                    && self.idle
                    && self.best.as_ref().is_some_and(|(best, _)| !best.repeats))
            {
                self.consider(choice)?;
            }
        }
        self.best.map(|(choice, _)| choice).ok_or(self.refusal)
    }
}

/// The choice of that number, if cuDNN still offers it.
fn numbered(
    handle: sys::cudnnHandle_t,
    c: Convolution,
    pass: Pass,
    number: u32,
) -> Result<Option<Choice>> {
    let found = if let Some(engine) = (number / ENGINES).checked_sub(1) {
        let target = Target::Handle(handle);
        let place = (number % ENGINES) as usize;
        let plan = Offers::new(&c, pass, &target)?.plan(place)?;
        plan.filter(|plan| plan.engine == engine)
            .map(|plan| Choice::engine(place, plan))
    } else {
        older(handle, c, pass)?.find(|choice| choice.number == number)
    };
    Ok(found.filter(|choice| choice.workspace <= MOST_WORKSPACE))
}

/// The older interface's algorithms.
fn older(
    handle: sys::cudnnHandle_t,
    c: Convolution,
    pass: Pass,
) -> Result<impl Iterator<Item = Choice>> {
    let descriptors = Rc::new(Descriptors::new(&c)?);
    let named = legacy::candidates(handle, &descriptors, pass)?;
    Ok(named.into_iter().map(move |candidate| Choice {
        way: Way::Legacy(descriptors.clone(), candidate.algorithm),
        number: candidate.number,
        workspace: candidate.workspace,
        repeats: candidate.repeats,
    }))
}

/// One way for a pass: of those that give the same bits every time, or, where none does, of the others. `run` runs one. Engines are asked where the
/// arrays are `aligned`, then the older interface's algorithms.
pub(super) fn choose(
    stream: &Stream,
    handle: sys::cudnnHandle_t,
    (c, pass, aligned): (Convolution, Pass, bool),
    by: By,
    run: impl Fn(&Choice) -> Result<()>,
) -> Result<Choice> {
    if let By::Number(number) = by {
        if let Ok(Some(choice)) = numbered(handle, c, pass, number) {
            return Ok(choice);
        }
        notices::tell(
            "cuDNN does not offer one of the ways that this run was begun with: another is taken, which rounds otherwise".into(),
        );
    }
    let status = stream.stream().capture_status()?;
    let mut search = Search {
        stream,
        run,
        idle: status == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE,
        timed: matches!(by, By::Time),
        best: None,
        refusal: Error::Cudnn {
            what: "a convolution: no way to compute it whose scratch memory fits",
            status: sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED,
        },
        last_resort: Vec::new(),
    };
    // Why there is no engine, where there is none.
    let mut missing = None;
    if aligned {
        let target = Target::Handle(handle);
        match Offers::new(&c, pass, &target) {
            Ok(mut offers) => {
                let mut tried = 0;
                for place in 0..offers.count() {
                    match offers.plan(place) {
                        Ok(Some(plan)) => {
                            tried += usize::from(plan.repeats);
                            search.offer(Choice::engine(place, plan))?;
                        }
                        Ok(None) => {}
                        Err(error) => missing = missing.or(Some(error)),
                    }
                    if search.is_over() || tried == MOST_TRIED {
                        break;
                    }
                }
            }
            Err(error) => missing = Some(error),
        }
    }
    let lacking = (aligned && search.best.is_none() && search.last_resort.is_empty())
        .then(|| missing.as_ref().unwrap_or(&search.refusal).to_string());
    if !search.is_over() {
        match older(handle, c, pass) {
            Ok(named) => {
                for choice in named {
                    search.offer(choice)?;
                }
            }
            Err(error) => search.refusal = error,
        }
    }
    let choice = search.end()?;
    if let (Way::Legacy(..), Some(error)) = (&choice.way, lacking) {
        notices::tell(format!(
            "cuDNN has no engine for one of the convolutions ({error}): its older algorithms are taken, which may be slower"
        ));
    }
    if !choice.repeats {
        notices::tell(
            "cuDNN has no way to compute one of the convolutions that gives the same bits every time in 1 GiB of scratch memory: this run cannot be repeated bit by bit".into(),
        );
    }
    Ok(choice)
}
