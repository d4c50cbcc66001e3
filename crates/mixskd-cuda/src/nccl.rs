//! Sums over several GPUs, each driven by a process of its own, by NCCL.
//!
//! Nothing here waits for ever: calls return at once, and while they or the GPU are at work the caller is asked again and again whether
//! to go on. Once it is not, the communicator is aborted, which ends whatever the GPU waits for.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::CudaStream;
use cudarc::nccl::sys;

use crate::{Address, Error, Result};

/// What a group of processes is known by; made by one of them and given to all.
#[derive(Debug, Clone, Copy)]
pub struct Id([u8; Id::SIZE]);

impl Id {
    /// Bytes of an id.
    pub const SIZE: usize = 128;

    /// A new group's.
    ///
    /// # Errors
    /// NCCL's, such as that it finds no network.
    pub fn new() -> Result<Self> {
        let mut id = sys::ncclUniqueId {
            internal: [0; Self::SIZE],
        };
        // SAFETY: the id is there to be written.
        check("a new id", unsafe { sys::ncclGetUniqueId(&raw mut id) })?;
        Ok(Self(id.internal.map(|byte| byte.to_ne_bytes()[0])))
    }

    /// The id that another process has sent.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

/// Whether to go on waiting.
pub type GoOn<'a> = &'a mut dyn FnMut() -> bool;

/// One process's part in a group of GPUs. Work is done on one stream, after what was put there before.
#[derive(Debug)]
pub struct Communicator {
    /// Null once it is aborted.
    handle: Cell<sys::ncclComm_t>,
    stream: Arc<CudaStream>,
    world: usize,
}

/// NCCL's `NCCL_CONFIG_UNDEF_INT`: as it likes.
const UNSET: c_int = c_int::MIN;
/// NCCL's mark of a configuration, `NCCL_API_MAGIC`.
const MAGIC: u32 = 0xcafe_beef;
/// `NCCL_VERSION(2, 24, 0)`, whose layout the configuration has; newer libraries know it.
const VERSION: u32 = 22_400;

/// How long a wait spins before it sleeps.
const SPIN: Duration = Duration::from_millis(20);
/// How often the caller is asked whether to go on.
const ASK: Duration = Duration::from_millis(10);

impl Communicator {
    /// Joins the group `id` of `world` processes as the one called `rank`, on the stream's GPU. Returns when all have joined.
    ///
    /// # Errors
    /// NCCL's, and when `go_on` said no.
    pub fn new(
        stream: Arc<CudaStream>,
        rank: usize,
        world: usize,
        id: &Id,
        go_on: GoOn,
    ) -> Result<Self> {
        stream.context().bind_to_thread()?;
        let mut config = sys::ncclConfig_t {
            size: size_of::<sys::ncclConfig_t>(),
            magic: MAGIC,
            version: VERSION,
            blocking: 0,
            cgaClusterSize: UNSET,
            minCTAs: UNSET,
            maxCTAs: UNSET,
            netName: null_mut(),
            splitShare: UNSET,
        };
        let number = |what, value: usize| {
            c_int::try_from(value).map_err(|_| Error::Size { what, size: value })
        };
        let (ranks, rank) = (number("group", world)?, number("rank", rank)?);
        let id = sys::ncclUniqueId {
            internal: id.0.map(|byte| std::ffi::c_char::from_ne_bytes([byte])),
        };
        let mut handle = null_mut();
        // SAFETY: handle and configuration are there to be written and read; the latter is copied.
        let status = unsafe {
            sys::ncclCommInitRankConfig(&raw mut handle, ranks, id, rank, &raw mut config)
        };
        let communicator = Self {
            handle: Cell::new(handle),
            stream,
            world,
        };
        communicator.settle("joining a group", status, go_on)?;
        Ok(communicator)
    }

    /// Writes the mean over all processes of each array `(from, to, floats)`, and the first process's values over each of `copies`
    /// `(array, floats)`. Returns when that is done. Every process gives arrays of the same lengths in the same order, and gets the same bits.
    ///
    /// # Safety
    /// The arrays lie in the memory of the stream's GPU, are as long as said, and none that is written is another's.
    ///
    /// # Errors
    /// NCCL's, the driver's, and when `go_on` said no; the communicator is of no use after that.
    pub unsafe fn average(
        &self,
        arrays: &[(Address, Address, usize)],
        copies: &[(Address, usize)],
        go_on: GoOn,
    ) -> Result<()> {
        self.stream.context().bind_to_thread()?;
        // The mean of one is itself, to the bit.
        let operation = match self.world {
            1 => sys::ncclRedOp_t::ncclSum,
            _ => sys::ncclRedOp_t::ncclAvg,
        };
        let float = sys::ncclDataType_t::ncclFloat32;
        let (handle, stream) = (self.handle()?, self.stream.cu_stream().cast());
        // SAFETY: opens a group of calls, which is closed below whatever comes.
        check("a group of calls", unsafe { sys::ncclGroupStart() })?;
        let put = || {
            for &(from, to, count) in arrays {
                let (from, to) = (from as *const _, to as *mut _);
                // SAFETY: the caller's promise.
                check("a sum", unsafe {
                    sys::ncclAllReduce(from, to, count, float, operation, handle, stream)
                })?;
            }
            for &(array, count) in copies {
                // SAFETY: the caller's promise.
                check("a copy", unsafe {
                    sys::ncclBroadcast(
                        array as *const _,
                        array as *mut _,
                        count,
                        float,
                        0,
                        handle,
                        stream,
                    )
                })?;
            }
            Ok(())
        };
        let put = put();
        // SAFETY: closes the group opened above.
        let status = unsafe { sys::ncclGroupEnd() };
        if let Err(error) = put {
            self.abort();
            return Err(error);
        }
        self.settle("a mean", status, go_on)?;
        let done = self.stream.record_event(None)?;
        self.wait(go_on, &|| Ok(done.try_is_complete()?))
    }

    fn handle(&self) -> Result<sys::ncclComm_t> {
        let handle = self.handle.get();
        if handle.is_null() {
            return Err(Error::GaveUp);
        }
        Ok(handle)
    }

    /// Waits until a call that was given to NCCL with `status` has been taken up.
    fn settle(&self, what: &'static str, status: sys::ncclResult_t, go_on: GoOn) -> Result<()> {
        if status != sys::ncclResult_t::ncclInProgress {
            return check(what, status).inspect_err(|_| self.abort());
        }
        self.wait(go_on, &|| {
            let mut status = sys::ncclResult_t::ncclSuccess;
            // SAFETY: the handle is one, and the status is there to be written.
            let asked = unsafe { sys::ncclCommGetAsyncError(self.handle()?, &raw mut status) };
            check(what, asked)?;
            if status == sys::ncclResult_t::ncclInProgress {
                return Ok(false);
            }
            check(what, status).map(|()| true)
        })
    }

    /// Waits until `done`.
    fn wait(&self, go_on: GoOn, done: &dyn Fn() -> Result<bool>) -> Result<()> {
        let (started, mut asked) = (Instant::now(), Instant::now());
        loop {
            match done() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    self.abort();
                    return Err(error);
                }
            }
            if asked.elapsed() > ASK {
                asked = Instant::now();
                if !go_on() {
                    self.abort();
                    return Err(Error::GaveUp);
                }
            }
            if started.elapsed() > SPIN {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Ends whatever is under way, on this GPU.
    fn abort(&self) {
        let handle = self.handle.replace(null_mut());
        if !handle.is_null() {
            // SAFETY: the handle is one, and is never used again.
            let _ = unsafe { sys::ncclCommAbort(handle) };
        }
    }
}

impl Drop for Communicator {
    /// Every mean has been waited for, so that nothing is cut short.
    fn drop(&mut self) {
        self.abort();
    }
}

fn check(what: &'static str, status: sys::ncclResult_t) -> Result<()> {
    use sys::ncclResult_t::{ncclInProgress, ncclSuccess};
    match status {
        ncclSuccess | ncclInProgress => Ok(()),
        status => Err(Error::Nccl { what, status }),
    }
}
