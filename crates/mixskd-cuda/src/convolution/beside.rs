//! A second stream for filter gradients, which nothing waits for before the update: convolutions of small maps leave half of a GPU idle.

use std::sync::Arc;

use cudarc::cudnn::{result, sys};
use cudarc::driver::{CudaEvent, CudaStream};

use super::cudnn::asked;
use crate::{Place, Result, Stream};

/// cuDNN on one stream. A handle has memory of its own, which work that is done at the same time must not share.
pub(super) struct Handle(sys::cudnnHandle_t);

impl Handle {
    pub(super) fn new(stream: &CudaStream) -> Result<Self> {
        let opened = Self(result::create_handle().map_err(asked("open"))?);
        // SAFETY: both are open.
        unsafe { result::set_stream(opened.0, stream.cu_stream().cast()) }
            .map_err(asked("set stream"))?;
        Ok(opened)
    }

    pub(super) fn get(&self) -> sys::cudnnHandle_t {
        self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A library that cannot be closed at the end is left open.
        // SAFETY: nothing uses the handle any more.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// The stream beside the first lane.
pub(super) struct Beside {
    // Closed before its stream.
    pub(super) handle: Handle,
    pub(super) stream: Arc<CudaStream>,
    /// Where that stood.
    ready: CudaEvent,
}

impl Beside {
    pub(super) fn new(main: &Stream) -> Result<Self> {
        let context = main.stream().context();
        let (stream, ready) = (context.new_stream()?, context.new_event(None)?);
        let handle = Handle::new(&stream)?;
        Ok(Self {
            handle,
            stream,
            ready,
        })
    }

    /// Runs `work`, which goes to this stream, behind what `main` was given so far.
    pub(super) fn run(&self, main: &Stream, work: impl FnOnce() -> Result<()>) -> Result<Place> {
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
        done.map(|()| Place::at(end))
    }
}
