//! cuDNN's convolutions.
//!
//! cuDNN is asked once for each shape, type and arithmetic what it has. What gives the same bits every time is preferred, so that a run
//! resumed is the run uninterrupted; where there is none, another is taken, which is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cudnn::{CudnnError, result};
use cudarc::driver::{CudaStream, DevicePtr};

use super::beside::{Beside, Handle};
use super::choice::{By, Choice, choose};
use super::chosen::Numbers;
use super::engines::ALIGNMENT;
use super::{Choices, Convolution, Convolve, Pass, notices};
use crate::{Address, Error, Place, Result, SIDE_LANES, Stream};

struct State {
    /// Of each lane that work has gone to, on the one stream.
    lanes: [Option<Handle>; SIDE_LANES + 1],
    /// Where filter gradients go, once there was one for it.
    beside: Option<Beside>,
    timed: bool,
    /// For arrays that are aligned to [`ALIGNMENT`], and for others.
    choices: HashMap<(Pass, Convolution, bool), Choice>,
    /// By number: what has been chosen, and what is to be.
    chosen: Numbers,
    /// Choices dropped: a graph captured before may still launch what is theirs.
    retired: Vec<Choice>,
}

// SAFETY: handle, descriptors and what counts their owners may be used from any thread, one at a time; the mutex around the state sees to that.
unsafe impl Send for State {}

/// cuDNN on one stream.
pub struct Cudnn {
    stream: Arc<Stream>,
    made_on: String,
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
    pub fn new(stream: Arc<Stream>) -> Result<Self> {
        let context = stream.stream().context();
        context.bind_to_thread()?;
        let made_on = format!("{}, cuDNN {}", context.name()?, result::get_version());
        let mut lanes = [const { None }; SIDE_LANES + 1];
        lanes[0] = Some(Handle::new(stream.stream())?);
        Ok(Self {
            stream,
            made_on,
            state: Mutex::new(State {
                lanes,
                beside: None,
                timed: false,
                choices: HashMap::new(),
                chosen: Numbers::new(),
                retired: Vec::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One pass; arrays are the input's, the weight's and the output's, whichever of them are gradients. In turn, or on the stream `beside`.
    unsafe fn run(
        &self,
        c: Convolution,
        pass: Pass,
        [x, w, y]: [Address; 3],
        aside: bool,
    ) -> Result<Option<Place>> {
        self.stream.stream().context().bind_to_thread()?;
        let mut state = self.state();
        let State {
            lanes,
            beside,
            timed,
            choices,
            chosen,
            ..
        } = &mut *state;
        // Opened when work first goes there, which is in a step before the captured one.
        let handle = match &mut lanes[self.stream.lane()] {
            Some(handle) => handle,
            lane => lane.insert(Handle::new(self.stream.stream())?),
        };
        let aligned = [x, w, y].iter().all(|at| at.is_multiple_of(ALIGNMENT));
        let arrays = [x, w, y].map(|address| address as *mut c_void);
        let run_on = |stream: &Arc<CudaStream>, handle: &Handle, choice: &Choice| {
            // SAFETY: handle and choice are open; the arrays are the caller's promise; the workspace is freed in the order of the stream,
            // behind the convolution.
            with_workspace(stream, choice.workspace, |space| unsafe {
                choice.run(handle.get(), arrays, space)
            })
        };
        let run = |choice: &Choice| run_on(self.stream.stream(), handle, choice);
        let place = (pass, c, aligned);
        if let Entry::Vacant(entry) = choices.entry(place) {
            let by = match chosen.get(&(pass, c)) {
                // What is kept is of arrays as allocated; views at odd places go by cuDNN's guess.
                _ if !aligned => By::Guess,
                Some(number) => By::Number(*number),
                None if *timed => By::Time,
                None => By::Guess,
            };
            let choice = choose(&self.stream, handle.get(), (c, pass, aligned), by, run)?;
            if aligned {
                chosen.insert((pass, c), choice.number);
            }
            entry.insert(choice);
        }
        let choice = &choices[&place];
        // What is timed is timed alone.
        if aside && !self.stream.watch().is_on() {
            let beside = match beside {
                Some(beside) => beside,
                None => beside.insert(Beside::new(&self.stream)?),
            };
            let work = || run_on(&beside.stream, &beside.handle, choice);
            return beside.run(&self.stream, work).map(Some);
        }
        self.stream
            .noted(|| name(c, pass, choice), || run(choice))
            .map(|()| None)
    }
}

/// Calls `work` with scratch memory of `size` bytes, taken from and given back to the stream's pool.
fn with_workspace(
    stream: &Arc<CudaStream>,
    size: usize,
    work: impl FnOnce(*mut c_void) -> Result<()>,
) -> Result<()> {
    if size == 0 {
        return work(std::ptr::null_mut());
    }
    // SAFETY: cuDNN reads nothing of it that it has not written.
    let space = unsafe { stream.alloc::<u8>(size) }?;
    let (address, guard) = space.device_ptr(stream);
    let done = work(address as *mut c_void);
    drop(guard);
    done
}

impl Convolve for Cudnn {
    unsafe fn forward(&self, c: Convolution, x: Address, w: Address, y: Address) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Forward, [x, w, y], false) }.map(drop)
    }

    unsafe fn data_gradient(
        &self,
        c: Convolution,
        w: Address,
        dy: Address,
        dx: Address,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Data, [dx, w, dy], false) }.map(drop)
    }

    unsafe fn filter_gradient(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Filter, [x, dw, dy], false) }.map(drop)
    }

    unsafe fn filter_gradient_beside(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<Option<Place>> {
        // SAFETY: the caller's promise.
        unsafe { self.run(c, Pass::Filter, [x, dw, dy], true) }
    }

    fn set_lanes(&self, on: bool) {
        if on && !self.stream.can_have_lanes() {
            notices::tell("the driver cannot have branches beside the backbone in a CUDA graph: steps go on without".into());
        }
        self.stream.set_lanes(on);
    }

    fn set_timed(&self, timed: bool) {
        let mut state = self.state();
        if state.timed != timed {
            state.timed = timed;
            state.forget();
        }
    }

    fn choices(&self) -> Choices {
        Choices::of(&self.made_on, &self.state().chosen)
    }

    fn recall(&self, choices: &Choices) -> bool {
        let fits = choices.made_on == self.made_on;
        if fits {
            let mut state = self.state();
            state.forget();
            state.chosen = choices.numbers();
        }
        fits
    }
}

impl State {
    fn forget(&mut self) {
        self.retired
            .extend(self.choices.drain().map(|(_, choice)| choice));
        self.chosen.clear();
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Before the handles that they were made with.
        state.choices.clear();
        state.retired.clear();
    }
}

/// As it is called where times are told.
fn name(c: Convolution, pass: Pass, choice: &Choice) -> String {
    let pass = match pass {
        Pass::Forward => "forward",
        Pass::Data => "data gradient",
        Pass::Filter => "filter gradient",
    };
    let [batch, h, w, channels] = c.input;
    let groups = match c.groups {
        1 => String::new(),
        groups => format!(" in {groups} groups"),
    };
    format!(
        "convolution, {pass}, {}x{}/{}{groups}, {channels} -> {}, {h}x{w} px, batch {batch}, {}",
        c.kernel[0],
        c.kernel[1],
        c.stride,
        c.output[3],
        choice.name(),
    )
}
