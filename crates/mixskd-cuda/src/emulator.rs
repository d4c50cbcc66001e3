//! Kernels on the processor, one thread after the other, in host memory.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use crate::{Arg, Engine, Error, Lanes, Place, Result, races};

unsafe extern "C" {
    fn mixskd_emulate(
        name: *const c_char,
        grid_x: u32,
        grid_y: u32,
        values: *mut *mut c_void,
        count: u32,
    ) -> c_int;
}

/// The emulator has one set of fibers and shared memory.
static TURN: Mutex<()> = Mutex::new(());

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
            mixskd_emulate(name.as_ptr(), grid.0, grid.1, places.as_mut_ptr(), count)
        };
        launch.done(kernel, false);
        match status {
            0 => Ok(()),
            1 => Err(error("there is no such kernel")),
            2 => Err(error("it takes another number of arguments")),
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
