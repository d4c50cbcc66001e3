//! How long a GPU takes for what it is given, by events before and after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{
    CUevent_flags, CUevent_record_flags, CUstreamCaptureStatus, cuEventRecordWithFlags,
};
use cudarc::driver::{CudaEvent, CudaStream};

use crate::{Result, Span};

/// Notes times while it is on. In a captured graph the events are part of it: they say how long its last launch took.
#[derive(Debug, Default)]
pub struct Watch {
    on: AtomicBool,
    noted: Mutex<Vec<(String, CudaEvent, CudaEvent)>>,
}

impl Watch {
    /// Begins anew.
    pub fn start(&self) {
        self.list().clear();
        self.on.store(true, Ordering::Relaxed);
    }

    /// Notes nothing more.
    pub fn stop(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Waits for the GPU and reads what was noted, in its order.
    ///
    /// # Errors
    /// The driver's: among others that what was noted has not been launched yet.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let noted = self.list();
        let Some((_, first, _)) = noted.first() else {
            return Ok(Vec::new());
        };
        let spans = noted.iter().map(|(what, begin, end)| {
            Ok(Span {
                what: what.clone(),
                begin_ms: first.elapsed_ms(begin)?,
                ms: begin.elapsed_ms(end)?,
            })
        });
        spans.collect()
    }

    /// Runs `work` between two events.
    pub(crate) fn noted(
        &self,
        stream: &CudaStream,
        what: impl FnOnce() -> String,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if !self.on.load(Ordering::Relaxed) {
            return work();
        }
        let begin = mark(stream)?;
        work()?;
        let end = mark(stream)?;
        self.list().push((what(), begin, end));
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, Vec<(String, CudaEvent, CudaEvent)>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event at where the stream stands.
pub(crate) fn mark(stream: &CudaStream) -> Result<CudaEvent> {
    let event = stream
        .context()
        .new_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
    if stream.capture_status()? == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE {
        let outside = CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
        // SAFETY: both are open.
        unsafe { cuEventRecordWithFlags(event.cu_event(), stream.cu_stream(), outside) }
            .result()?;
    } else {
        event.record(stream)?;
    }
    Ok(event)
}
