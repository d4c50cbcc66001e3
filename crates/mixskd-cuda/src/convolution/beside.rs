//! A second stream for filter gradients, which nothing waits for before the update: convolutions of small maps leave half of a GPU idle.

use std::sync::Arc;

use cudarc::cudnn::{result, sys};
use cudarc::driver::{CudaEvent, CudaStream};

use super::Ticket;
use super::cudnn::asked;
use crate::{Result, Stream};

/// The stream, and cuDNN on it: a handle has memory of its own that two streams must not share.
pub(super) struct Beside {
    pub(super) stream: Arc<CudaStream>,
    pub(super) handle: sys::cudnnHandle_t,
    /// Where the main stream stood.
    ready: CudaEvent,
}

impl Beside {
    pub(super) fn new(main: &Stream) -> Result<Self> {
        let context = main.stream().context();
        let (stream, ready) = (context.new_stream()?, context.new_event(None)?);
        let handle = result::create_handle().map_err(asked("open"))?;
        let beside = Self {
            stream,
            handle,
            ready,
        };
        let stream = beside.stream.cu_stream().cast();
        // SAFETY: both are open.
        unsafe { result::set_stream(handle, stream) }.map_err(asked("set stream"))?;
        Ok(beside)
    }

    /// Runs `work`, which goes to this stream, behind what `main` was given so far.
    pub(super) fn run(&self, main: &Stream, work: impl FnOnce() -> Result<()>) -> Result<Ticket> {
        self.ready.record(main.stream())?;
        self.stream.wait(&self.ready)?;
        let done = work();
        // Also of what failed: a stream that took part in a capture has to come back from it.
        let end = main.stream().context().new_event(None)?;
        end.record(&self.stream)?;
        if done.is_err() {
            // Part of it may have been launched, and nobody will wait for it.
            main.stream().wait(&end)?;
        }
        done.map(|()| Ticket { end: Some(end) })
    }
}

impl Ticket {
    pub(super) fn wait(&self, main: &Stream) -> Result<()> {
        match &self.end {
            Some(end) => Ok(main.stream().wait(end)?),
            None => Ok(()),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // A library that cannot be closed at the end is left open.
        // SAFETY: nothing uses the handle any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
