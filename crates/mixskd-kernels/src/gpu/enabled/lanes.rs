//! Branches beside the backbone: parts of a captured step that need not wait for each other.
//!
//! Who opens lanes gets a fork, after which a lane begins where some result was ready, and a join, before which nobody else uses what a lane
//! makes. On the way back the same holds the other way round: a lane begins where the gradients of all that came after the join are ready, and ends where the
//! first lane takes up what it delivers.
//!
//! Memory is given back in the lane in which its last holder drops it. What a lane uses of others, and of what it made itself before it was last joined, is therefore held until the first
//! lane has waited for it, which is when it may be dropped anywhere. What a lane made since it began is used by itself, and by others after its end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, TensorId};
use mixskd_cuda::{Place, SIDE_LANES};

use super::later;
use super::memory::{Gpu, failed, kernel_for};
use super::tape::{self, Back};

/// A place, and when it was noted: what was launched in the first lane before that is behind it.
#[derive(Clone)]
pub(super) struct Since {
    place: Arc<Place>,
    time: u64,
}

/// A lane beside the first.
#[derive(Default)]
struct Side {
    /// Where it stands while it is not the current one; none where it has to begin anew.
    end: Option<Arc<Place>>,
    /// What it uses of others: tensors, and ways back, which keep what they read besides their inputs.
    held: Vec<Tensor>,
    kept: Vec<Back>,
    /// When the first lane last waited for it.
    joined: u64,
}

struct Open {
    gpu: Arc<Gpu>,
    time: u64,
    current: usize,
    /// Where the first lane stands while it is not the current one.
    first: Option<Arc<Place>>,
    sides: [Side; SIDE_LANES],
    /// Where each of these results was ready.
    landmarks: HashMap<TensorId, Since>,
    aside: Aside,
}

/// What nobody waits for before the step's end: a way of its own through the graph.
#[derive(Default)]
struct Aside {
    end: Option<Place>,
    /// What it uses.
    held: Vec<Tensor>,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
    /// How often lanes have been joined.
    static JOINS: Cell<u64> = const { Cell::new(0) };
    /// Losses are nobody's concern before the step's end.
    static UNHURRIED: Cell<bool> = const { Cell::new(false) };
}

/// How often this thread's lanes have been joined.
#[cfg(feature = "cuda")]
pub(super) fn joins() -> u64 {
    JOINS.get()
}

/// Whether a captured step of the GPU that `device` is runs what [`side_by_side`] is given side by side; at first it does not.
///
/// # Errors
/// When the GPU cannot be opened.
pub fn set_cuda_branches(device: &Device, on: bool) -> crate::Result<()> {
    if let Some(gpu) = Gpu::of(device)? {
        gpu.set_lanes(on);
    }
    Ok(())
}

/// Calls `act` if there are lanes, which a tape opens with its first landmark.
fn with<T>(act: impl FnOnce(&mut Open) -> Result<T>) -> Result<Option<T>> {
    OPEN.with_borrow_mut(|open| open.as_mut().map(act).transpose())
}

/// The lane that work goes to.
pub(super) fn current() -> usize {
    OPEN.with_borrow(|open| open.as_ref().map_or(0, |open| open.current))
}

/// No lanes any more: a step has come to its end, maybe too early.
pub(super) fn close() {
    // Where that cannot be waited for, a capture cannot be ended.
    let _ = end_aside();
    if let Some(open) = OPEN.take() {
        open.gpu.lanes.leave();
    }
}

impl Open {
    fn new(gpu: Arc<Gpu>) -> Self {
        Self {
            gpu,
            time: 0,
            current: 0,
            first: None,
            sides: Default::default(),
            landmarks: HashMap::new(),
            aside: Aside::default(),
        }
    }

    fn place(&self) -> Result<Place> {
        self.gpu.lanes.place().map_err(failed)
    }

    fn wait(&self, place: &Place) -> Result<()> {
        self.gpu.lanes.wait(place).map_err(failed)
    }

    /// Where the first lane stands, which is the current one.
    fn now(&mut self) -> Result<Since> {
        self.time += 1;
        Ok(Since {
            place: Arc::new(self.place()?),
            time: self.time,
        })
    }

    /// Leaves the current lane.
    fn step_out(&mut self) -> Result<()> {
        let place = Some(Arc::new(self.place()?));
        match self.current {
            0 => self.first = place,
            lane => self.sides[lane - 1].end = place,
        }
        Ok(())
    }

    /// Goes on in the first lane.
    fn go_first(&mut self) -> Result<()> {
        if self.current == 0 {
            return Ok(());
        }
        self.step_out()?;
        if let Some(place) = self.first.take() {
            self.gpu.lanes.go(0, &place).map_err(failed)?;
        }
        self.current = 0;
        Ok(())
    }

    /// Goes on in another lane, which begins at `from` if it begins.
    fn go_aside(&mut self, lane: usize, from: &Since) -> Result<()> {
        if self.current == lane {
            return Ok(());
        }
        self.go_first()?;
        let side = &self.sides[lane - 1];
        let begin = match &side.end {
            Some(end) => end.clone(),
            // What it made before has since been used in the first lane.
            None if side.joined > from.time => self.now()?.place,
            None => from.place.clone(),
        };
        self.step_out()?;
        self.gpu.lanes.go(lane, &begin).map_err(failed)?;
        self.current = lane;
        Ok(())
    }

    /// The first lane, which is the current one, waits for another's end.
    fn join(&mut self, lane: usize) -> Result<()> {
        if let Some(end) = self.sides[lane - 1].end.take() {
            self.wait(&end)?;
            JOINS.set(JOINS.get() + 1);
            self.time += 1;
            self.sides[lane - 1].joined = self.time;
        }
        // No sooner.
        self.sides[lane - 1].held.clear();
        self.sides[lane - 1].kept.clear();
        Ok(())
    }

    fn join_all(&mut self) -> Result<()> {
        (1..=SIDE_LANES).try_for_each(|lane| self.join(lane))
    }
}

/// Says that work on `x` may begin here, in a [`side_by_side`] that comes later.
///
/// # Errors
/// The driver's.
pub fn landmark(x: &Tensor) -> crate::Result<()> {
    if !tape::is_running() {
        return Ok(());
    }
    if OPEN.with_borrow(Option::is_none)
        && let Some((gpu, _)) = kernel_for(&[x], &[])?
        && gpu.lanes.are_there()
    {
        OPEN.set(Some(Open::new(gpu)));
    }
    with(|open| {
        if open.current == 0 {
            let now = open.now()?;
            open.landmarks.insert(x.id(), now);
        }
        Ok(())
    })?;
    Ok(())
}

/// Calls `work` with the number of each of `inputs`; none needs another's result. In a CUDA graph with branches they run side by side, and beside what was launched since an
/// input was a [`landmark`]; everywhere else in turn. What `work` uses was there at that landmark, and outlives the call.
///
/// # Errors
/// `work`'s; the driver's.
pub fn side_by_side<T, E: From<crate::Error>>(
    inputs: &[&Tensor],
    mut work: impl FnMut(usize) -> std::result::Result<T, E>,
) -> std::result::Result<Vec<T>, E> {
    let fail = |error: candle_core::Error| E::from(error.into());
    let mut results = Vec::with_capacity(inputs.len());
    // Lanes have no lanes.
    let has_lanes = OPEN.with_borrow(Option::is_some) && current() == 0;
    // Kernels that each has been given; the first lane is the last to be.
    let mut loads = [0; SIDE_LANES + 1];
    // What has no landmark was there before any of this.
    let mut since = Vec::new();
    if has_lanes {
        with(|open| {
            for input in inputs {
                let known = open.landmarks.get(&input.id()).cloned();
                since.push(known.map_or_else(|| open.now(), Ok)?);
            }
            Ok(())
        })
        .map_err(fail)?;
    }
    for index in 0..inputs.len() {
        let least = (1..=SIDE_LANES).chain([0]).min_by_key(|&lane| loads[lane]);
        let lane = least.unwrap_or_default();
        let before = tape::len();
        if has_lanes && lane > 0 {
            with(|open| {
                open.go_aside(lane, &since[index])?;
                // The lane may have begun for another.
                open.wait(&since[index].place)
            })
            .map_err(fail)?;
        }
        let result = work(index);
        if has_lanes && lane > 0 {
            with(Open::go_first).map_err(fail)?;
        }
        match result {
            Ok(result) => results.push(result),
            Err(error) => {
                if has_lanes {
                    // What was made so far is given back in the first lane; the first error is the one to tell.
                    let _ = with(Open::join_all);
                }
                return Err(error);
            }
        }
        loads[lane] += tape::len() - before;
    }
    if has_lanes {
        with(Open::join_all).map_err(fail)?;
        tape::joined();
    }
    Ok(results)
}

/// Calls `work`, whose losses, and the [`weighted_sum`](crate::weighted_sum)s of these, nobody reads before the [`Tape`](crate::Tape) that is there has gone back: gradients
/// need no loss. In a CUDA graph with branches they are made beside the way back; everywhere else they are there at once.
pub fn unhurried<T>(work: impl FnOnce() -> T) -> T {
    struct Until(bool);
    impl Drop for Until {
        fn drop(&mut self) {
            UNHURRIED.set(self.0);
        }
    }
    let _until = Until(UNHURRIED.replace(true));
    work()
}

/// Calls `launch`, which makes a loss of `used`. [`unhurried`], that is beside all lanes, behind what came before in the current one and
/// behind the losses before.
pub(super) fn aside(used: &[&Tensor], launch: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = with(|open| {
        if !UNHURRIED.get() {
            return Ok(None);
        }
        let here = open.place()?;
        if let Some(end) = &open.aside.end {
            open.wait(end)?;
        }
        let used = used.iter().map(|&t| t.clone());
        open.aside.held.extend(used);
        Ok(Some(here))
    })?;
    let launched = launch();
    if let Some(here) = begun.flatten() {
        with(|open| {
            open.aside.end = Some(open.place()?);
            open.gpu.lanes.go(open.current, &here).map_err(failed)
        })?;
    }
    launched
}

/// Keeps `loss`, which was made [`aside`].
pub(super) fn keep_aside(loss: &Tensor) -> Result<()> {
    with(|open| {
        if UNHURRIED.get() {
            open.aside.held.push(loss.detach());
        }
        Ok(())
    })?;
    Ok(())
}

/// The first lane, which becomes the current one, waits for what was made aside.
pub(super) fn end_aside() -> Result<()> {
    with(|open| {
        let aside = std::mem::take(&mut open.aside);
        if let Some(end) = &aside.end {
            open.go_first()?;
            open.wait(end)?;
        }
        // No sooner.
        drop(aside.held);
        Ok(())
    })?;
    Ok(())
}

/// Calls `work` in the first lane, behind all others, which go on behind it.
pub(super) fn in_first<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let lane = current();
    with(|open| {
        open.go_first()?;
        open.join_all()
    })?;
    let done = work()?;
    if lane == 0 {
        return Ok(done);
    }
    with(|open| {
        let now = open.now()?;
        open.go_aside(lane, &now)
    })?;
    Ok(done)
}

/// Who delivers a gradient: the lane, and when.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) lane: usize,
    time: u64,
}

/// Calls `act` with the current lane where that is not the first.
fn at_side(act: impl FnOnce(&mut Side)) {
    OPEN.with_borrow_mut(|open| {
        if let Some(open) = open
            && open.current > 0
        {
            act(&mut open.sides[open.current - 1]);
        }
    });
}

/// A step's way back through its lanes.
#[derive(Default)]
pub(super) struct WayBack {
    /// Where all that came after the join has been gone back through.
    fork: Option<Since>,
}

impl WayBack {
    /// Who delivers what is delivered now.
    pub(super) fn origin() -> Origin {
        OPEN.with_borrow(|open| Origin {
            lane: open.as_ref().map_or(0, |open| open.current),
            time: open.as_ref().map_or(0, |open| open.time),
        })
    }

    /// All after a join has been gone back through.
    pub(super) fn fork(&mut self) -> Result<()> {
        Self::end()?;
        // It reads maps that lanes made.
        later::wait_beside()?;
        self.fork = with(Open::now)?;
        Ok(())
    }

    /// Goes to `lane`, behind those that deliver.
    pub(super) fn go(&self, lane: usize, origins: &[Origin]) -> Result<()> {
        with(|open| {
            // All that the lane needs of others was there at the fork.
            let is_ready = |fork: &&Since| {
                let mut origins = origins.iter();
                origins.all(|o| o.lane == lane || o.time < fork.time)
            };
            if lane > 0
                && let Some(fork) = self.fork.as_ref().filter(is_ready)
            {
                return open.go_aside(lane, fork);
            }
            open.go_first()?;
            for origin in origins {
                // What it delivered before it was last joined is there: what it does now is something else.
                let side = origin.lane.checked_sub(1).map(|side| &open.sides[side]);
                if side.is_some_and(|side| origin.time >= side.joined) && origin.lane != lane {
                    open.join(origin.lane)?;
                }
            }
            if lane > 0 {
                let now = open.now()?;
                open.go_aside(lane, &now)?;
                open.wait(&now.place)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Whether `lane` has not made what came from there since it began.
    pub(super) fn is_of_others(&self, origin: Origin, lane: usize) -> bool {
        let fork = self.fork.as_ref().map_or(0, |fork| fork.time);
        let joined = OPEN.with_borrow(|open| {
            let side = open.as_ref().zip(lane.checked_sub(1));
            side.map_or(0, |(open, side)| open.sides[side].joined)
        });
        origin.lane != lane || origin.time < fork.max(joined)
    }

    /// Keeps what a node held that was made in `lane` and has no gradient: others may still use it.
    pub(super) fn bury(lane: usize, held: impl Iterator<Item = Tensor>, way: Back) {
        OPEN.with_borrow_mut(|open| {
            let Some(open) = open else { return };
            let lane = if lane > 0 { lane } else { open.current };
            if let Some(side) = lane.checked_sub(1) {
                open.sides[side].held.extend(held);
                open.sides[side].kept.push(way);
            }
        });
    }

    /// Holds what the current lane uses of others.
    pub(super) fn hold<'a>(used: impl Iterator<Item = &'a Tensor>) {
        if current() > 0 {
            // It may ask for the lanes.
            let used: Vec<_> = used.cloned().collect();
            at_side(|side| side.held.extend(used));
        }
    }

    /// Keeps the way that the current lane has gone back.
    pub(super) fn keep(way: Back) {
        at_side(|side| side.kept.push(way));
    }

    /// In the first lane, behind all others.
    pub(super) fn end() -> Result<()> {
        with(|open| {
            open.go_first()?;
            open.join_all()
        })?;
        Ok(())
    }
}
