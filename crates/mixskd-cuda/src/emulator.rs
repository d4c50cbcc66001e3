//! Kernels on the processor, one thread after the other, in host memory.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::{Address, Arg, Engine, Error, Lanes, Place, Result, races};

unsafe extern "C" {
    fn mixskd_emulate(
        name: *const c_char,
        grid_x: u32,
        grid_y: u32,
        values: *mut *mut c_void,
        count: u32,
        racecheck: c_int,
    ) -> c_int;
    fn mixskd_race() -> *const c_char;
    fn mixskd_array(from: *const c_void, size: usize, is_there: c_int);
}

/// The emulator has one set of fibers and shared memory.
static TURN: Mutex<()> = Mutex::new(());

static RACECHECK: LazyLock<AtomicBool> = LazyLock::new(|| {
    let asked = std::env::var_os("MIXSKD_RACECHECK");
    AtomicBool::new(asked.is_some_and(|value| value == "1"))
});

/// Whether each use of memory by a kernel is looked at, some twenty times as slowly: a launch in which two threads use the same bytes, one of them writing, with
/// no barrier between, or two blocks at all, is an error, and so is one that reads shared memory that its block has not written, or uses memory outside of
/// all [`Known`] arrays. Off, unless the
/// environment has `MIXSKD_RACECHECK=1`. On Linux.
pub fn racecheck(on: bool) {
    RACECHECK.store(on, Ordering::Relaxed);
}

/// An array that kernels may use: while there are any, a launch that uses memory outside of all of them is an error, where [`racecheck`] is on.
#[derive(Debug)]
pub struct Known(Address);

impl Known {
    /// `bytes` from `from` on, until this is dropped.
    pub fn new(from: Address, bytes: usize) -> Self {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the address is noted, and never read through.
        unsafe { mixskd_array(from as *const c_void, bytes, 1) };
        Self(from)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as above.
        unsafe { mixskd_array(self.0 as *const c_void, 0, 0) };
    }
}

/// Runs kernels on the processor: addresses are those of host memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Emulator;

impl Engine for Emulator {
    unsafe fn launch(&self, kernel: &str, grid: (u32, u32), args: &[Arg]) -> Result<()> {
        let error = |message: &str| Error::Launch {
            kernel: kernel.into(),
            message: message.into(),
        };
        let name = CString::new(kernel).map_err(|_| error("its name holds a zero byte"))?;
        let mut places: Vec<_> = args.iter().map(Arg::place).collect();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let launch = races::before(args.iter().flat_map(Arg::words));
        // SAFETY: the values outlive the call; that they are the kernel's is the caller's promise.
        let status = unsafe {
            let count = places.len() as u32;
            let racecheck = RACECHECK.load(Ordering::Relaxed).into();
            mixskd_emulate(
                name.as_ptr(),
                grid.0,
                grid.1,
                places.as_mut_ptr(),
                count,
                racecheck,
            )
        };
        // SAFETY: the text ends with a zero, and stays as it is until the next launch, which waits for its turn.
        let race = (status == 4).then(|| unsafe { CStr::from_ptr(mixskd_race()) });
        let race = race.map(|text| text.to_string_lossy().into_owned());
        launch.done(kernel, false);
        match status {
            0 => Ok(()),
            1 => Err(error("there is no such kernel")),
            2 => Err(error("it takes another number of arguments")),
            4 => Err(error(&race.unwrap_or_default())),
            _ => Err(error("some threads end while others wait at a barrier")),
        }
    }
}

impl Lanes for Emulator {
    fn are_there(&self) -> bool {
        races::is_on()
    }

    fn place(&self) -> Result<Place> {
        Ok(races::place())
    }

    fn go(&self, lane: usize, behind: &Place) -> Result<()> {
        races::go(lane, behind);
        Ok(())
    }

    fn wait(&self, place: &Place) -> Result<()> {
        races::wait(place);
        Ok(())
    }

    fn leave(&self) {
        races::leave();
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The sum of what `kernel` writes, or what was found of it.
    fn run(kernel: &str, blocks: u32) -> std::result::Result<f32, String> {
        let x: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let mut y = vec![0.0f32; 256];
        // Launches of all threads are counted where one watches.
        let _alone = races::alone();
        racecheck(true);
        let bytes = size_of_val(x.as_slice());
        let _known =
            [x.as_ptr() as Address, y.as_mut_ptr() as Address].map(|at| Known::new(at, bytes));
        let args = [x.as_ptr() as Address, y.as_mut_ptr() as Address].map(Arg::Address);
        // SAFETY: both arrays are as long as a block has threads.
        let done = unsafe { Emulator.launch(kernel, (blocks, 1), &args) };
        done.map(|()| y.iter().sum())
            .map_err(|error| error.to_string())
    }

    fn found(kernel: &str, blocks: u32, text: &str) {
        let message = run(kernel, blocks).unwrap_err();
        assert!(message.contains(text), "{message}");
    }

    #[test]
    fn racecheck_finds_what_no_barrier_orders() {
        found(
            "faulty_shared",
            1,
            "one writes and one reads the same shared memory: block 0, thread 0, and block 0, thread 1, between the same barriers",
        );
        found(
            "faulty_again",
            1,
            "one reads and one writes the same shared memory",
        );
        found(
            "faulty_unwritten",
            1,
            "block 0, thread 128 reads shared memory that nothing has been written to",
        );
        found(
            "faulty_blocks",
            2,
            "two write the same global memory: block 0, thread 0, and block 1, thread 0",
        );
        found(
            "faulty_neighbour",
            3,
            "one writes and one reads the same global memory",
        );
        found(
            "faulty_readers",
            1,
            "one reads and one writes the same shared memory: block 0, thread 1",
        );
        found(
            "faulty_last",
            3,
            "one reads and one writes the same global memory: block 2, thread 0",
        );
        found(
            "faulty_end",
            1,
            "block 0, thread 255 reads 4 bytes outside of all arrays",
        );
    }

    #[test]
    fn racecheck_leaves_alone_what_barriers_order() {
        // Sum and greatest of 0 to 255, of each block.
        assert_eq!(run("sound", 2).unwrap(), 2.0 * (255.0 * 128.0 + 255.0));
        // Another launch has nothing to do with the first, though it may lie in the same memory.
        assert_eq!(run("sound", 2), run("sound", 2));
        // One block has nobody to race with.
        run("faulty_blocks", 1).unwrap();
    }
}
