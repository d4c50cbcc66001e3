//! Races between lanes, found by running a step on the processor.
//!
//! The emulator does everything in turn, so that a step gives the right numbers there also where a GPU might not: where two lanes use the same
//! memory, one of them writing, and neither waits for the other. While somebody watches, each launch, each piece of memory taken and each one given back
//! is noted as a node of the graph that a capture would make, with all nodes that it waits for. Two uses of one piece of memory are in order where
//! one of them waits for the other, by however many steps.
//!
//! A program that wants to know of memory given back too early has [`Allocator`] as its global allocator.
//!
//! What is not seen: memory that was not taken while somebody watched, which is that of weights and of candle's own operations, and what these
//! operations do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Address, Place, SIDE_LANES};

/// Lanes, and as many streams beside them.
const WAYS: usize = 2 * (SIDE_LANES + 1);

static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
/// Whether somebody does.
static IS_ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread is in here: what it frees now is not a step's.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Watch {
    lane: usize,
    /// What the next launch of each way waits for.
    ends: [Vec<usize>; WAYS],
    nodes: Vec<Node>,
    /// By their first address.
    memory: BTreeMap<Address, Memory>,
    found: Vec<String>,
    launches: usize,
    /// Whether a lane was given any.
    lanes: [bool; SIDE_LANES + 1],
}

struct Node {
    what: String,
    /// A bit for each node before it that it waits for.
    after: Vec<u64>,
    /// Launches of the longest way that ends here.
    length: usize,
}

struct Memory {
    bytes: usize,
    /// When it was taken, and who used it since: nodes, and whether they wrote.
    uses: Vec<(usize, bool)>,
}

/// What came of watching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Each pair of uses that are in no order, as text.
    pub races: Vec<String>,
    /// Launches.
    pub launches: usize,
    /// How many of them wait for each other at most.
    pub longest: usize,
    /// Lanes that they went to, without the streams beside them.
    pub lanes: usize,
}

struct Turn(MutexGuard<'static, Option<Watch>>);

impl Turn {
    fn new() -> Self {
        INSIDE.set(true);
        Self(WATCH.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Somebody who watches.
#[derive(Debug)]
#[must_use = "watching ends when it is dropped"]
pub struct Watching(());

/// From here on there are lanes, and what they do is noted. One step at a time, and one who watches: nothing that was used before is known.
pub fn start() -> Watching {
    *Turn::new().0 = Some(Watch::default());
    IS_ON.store(true, Ordering::SeqCst);
    Watching(())
}

impl Watching {
    /// What came of it.
    pub fn stop(self) -> Found {
        let watch = Turn::new().0.take().unwrap_or_default();
        Found {
            races: watch.found,
            launches: watch.launches,
            longest: watch
                .nodes
                .iter()
                .map(|node| node.length)
                .max()
                .unwrap_or(0),
            lanes: watch.lanes.iter().filter(|&&used| used).count(),
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        IS_ON.store(false, Ordering::SeqCst);
        *Turn::new().0 = None;
    }
}

fn with<T: Default>(act: impl FnOnce(&mut Watch) -> T) -> T {
    if !is_on() {
        return T::default();
    }
    Turn::new().0.as_mut().map(act).unwrap_or_default()
}

pub(crate) fn is_on() -> bool {
    IS_ON.load(Ordering::SeqCst)
}

pub(crate) fn place() -> Place {
    Place::behind(with(|watch| watch.ends[watch.lane].clone()))
}

pub(crate) fn go(lane: usize, behind: &Place) {
    with(|watch| {
        watch.lane = lane;
        watch.ends[lane].clone_from(&behind.nodes);
    });
}

pub(crate) fn leave() {
    with(|watch| watch.lane = 0);
}

pub(crate) fn wait(place: &Place) {
    with(|watch| watch.ends[watch.lane].extend(&place.nodes));
}

/// Notes memory that the current lane takes. Whoever takes it keeps it where it is.
pub fn taken(at: Address, bytes: usize) {
    with(|watch| {
        let node = watch.node(watch.lane, "taking memory".into());
        let memory = Memory {
            bytes,
            uses: vec![(node, true)],
        };
        watch.memory.insert(at, memory);
    });
}

/// The system's allocator, which has memory noted that is given back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

// SAFETY: all is the system's work.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        given_back(memory as Address);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Notes that memory is given back, by the current lane; what was not taken while somebody watched does not count.
fn given_back(at: Address) {
    if INSIDE.get() {
        return;
    }
    with(|watch| {
        if let Some(memory) = watch.memory.remove(&at) {
            let node = watch.node(watch.lane, "giving memory back".into());
            watch.compare(at, &memory.uses, node, true);
        }
    });
}

/// Something launched: the memory that it was given, and how it found it.
pub(crate) struct Launch {
    /// First address, and a number for what the bytes were.
    before: Vec<(Address, u64)>,
}

/// Notes what the memory that `addresses` lie in holds.
pub(crate) fn before(addresses: impl Iterator<Item = Address>) -> Launch {
    let addresses: Vec<_> = addresses.collect();
    let mut before = with(|watch| {
        let found = addresses.iter().filter_map(|&at| watch.holding(at));
        found
            .map(|at| (at, contents(at, watch.memory[&at].bytes)))
            .collect::<Vec<_>>()
    });
    before.sort_unstable();
    before.dedup();
    Launch { before }
}

impl Launch {
    /// Notes it as done, by the current lane or beside it: memory that has changed was written. Where that way stands now.
    pub(crate) fn done(self, what: &str, beside: bool) -> Place {
        let nodes = with(|watch| {
            let mut way = watch.lane;
            if beside {
                way += SIDE_LANES + 1;
                let now = watch.ends[watch.lane].clone();
                watch.ends[way].extend(now);
            }
            let node = watch.node(way, what.into());
            watch.launches += 1;
            watch.lanes[watch.lane] |= !beside;
            watch.nodes[node].length += 1;
            for (at, held) in self.before {
                let Some(memory) = watch.memory.get(&at) else {
                    continue;
                };
                let wrote = contents(at, memory.bytes) != held;
                let uses = memory.uses.clone();
                watch.compare(at, &uses, node, wrote);
                if let Some(memory) = watch.memory.get_mut(&at) {
                    memory.uses.push((node, wrote));
                }
            }
            watch.ends[way].clone()
        });
        Place::behind(nodes)
    }
}

/// FNV-1a of the bytes there.
fn contents(at: Address, bytes: usize) -> u64 {
    // SAFETY: it was taken and not given back, and nothing else runs.
    let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, bytes) };
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Watch {
    /// The first address of the memory that holds this one.
    fn holding(&self, at: Address) -> Option<Address> {
        let (&first, memory) = self.memory.range(..=at).next_back()?;
        (at < first + memory.bytes as Address).then_some(first)
    }

    /// A new one at the end of `way`.
    fn node(&mut self, way: usize, what: String) -> usize {
        let node = self.nodes.len();
        let mut after = vec![0; node / 64 + 1];
        let mut length = 0;
        for &end in &self.ends[way] {
            length = length.max(self.nodes[end].length);
            for (all, some) in after.iter_mut().zip(&self.nodes[end].after) {
                *all |= some;
            }
            after[end / 64] |= 1 << (end % 64);
        }
        self.nodes.push(Node {
            what,
            after,
            length,
        });
        self.ends[way] = vec![node];
        node
    }

    fn is_after(&self, node: usize, other: usize) -> bool {
        let words = &self.nodes[node].after;
        words
            .get(other / 64)
            .is_some_and(|word| word >> (other % 64) & 1 == 1)
    }

    /// Holds a use of memory against those before.
    fn compare(&mut self, at: Address, uses: &[(usize, bool)], node: usize, wrote: bool) {
        for &(other, other_wrote) in uses {
            if (wrote || other_wrote) && other != node && !self.is_after(node, other) {
                self.found.push(format!(
                    "{} {} memory at {at:x}, and does not wait for {}, which {} it",
                    self.nodes[node].what,
                    if wrote { "writes" } else { "reads" },
                    self.nodes[other].what,
                    if other_wrote { "writes" } else { "reads" },
                ));
            }
        }
    }
}

/// Tests that launch or watch take turns.
#[cfg(test)]
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Launches something that adds one to `memory`, or reads it.
    fn launch(memory: &mut [u8], writes: bool, beside: bool) -> Place {
        let launch = before(std::iter::once(memory.as_ptr() as Address));
        memory[0] += u8::from(writes);
        launch.done("it", beside)
    }

    #[test]
    fn uses_that_do_not_wait_for_each_other_are_found() {
        let _alone = alone();
        let mut memory = vec![0; 8];
        let at = memory.as_ptr() as Address;
        let watching = start();
        taken(at, 8);
        launch(&mut memory, true, false);
        let fork = place();
        // Two that read need no order.
        let first = launch(&mut memory, false, false);
        go(1, &fork);
        launch(&mut memory, false, false);
        assert_eq!(with(|watch| watch.found.len()), 0);
        // One that writes has to wait for both.
        launch(&mut memory, true, false);
        assert_eq!(with(|watch| watch.found.len()), 1);
        wait(&first);
        launch(&mut memory, true, false);
        // The first, in its own lane, does not wait for those.
        let second = place();
        go(0, &first);
        launch(&mut memory, false, false);
        assert_eq!(with(|watch| watch.found.len()), 3);
        wait(&second);
        // Beside the lane it is behind it; the lane is not behind what is beside it.
        let third = launch(&mut memory, true, true);
        assert_eq!(with(|watch| watch.found.len()), 3);
        let end = place();
        given_back(at);
        assert_eq!(with(|watch| watch.found.len()), 4);
        // Taken anew, it is other memory.
        taken(at, 8);
        wait(&third);
        launch(&mut memory, true, false);
        go(2, &end);
        given_back(at);
        let found = watching.stop();
        assert_eq!(found.races.len(), 6, "{:?}", found.races);
        assert_eq!((found.launches, found.longest), (8, 6));
        assert!(found.races[5].starts_with("giving memory back writes"));
    }
}
