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
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    spans: Vec<(String, Mark, Mark)>,
    /// Events that a graph may still record.
    kept: Vec<CudaEvent>,
}

/// Where a stream stood.
#[derive(Debug)]
pub(crate) struct Mark {
    event: CudaEvent,
    /// It is part of a graph.
    captured: bool,
}

impl Mark {
    pub(crate) fn new(stream: &CudaStream) -> Result<Self> {
        let timed = CUevent_flags::CU_EVENT_DEFAULT;
        let event = stream.context().new_event(Some(timed))?;
        let status = stream.capture_status()?;
        let captured = status == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
        if captured {
            let outside = CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
            // SAFETY: both are open.
            unsafe { cuEventRecordWithFlags(event.cu_event(), stream.cu_stream(), outside) }
                .result()?;
        } else {
            event.record(stream)?;
        }
        Ok(Self { event, captured })
    }

    /// Milliseconds from here to there; waits for the GPU.
    pub(crate) fn until(&self, end: &Self) -> Result<f32> {
        Ok(self.event.elapsed_ms(&end.event)?)
    }
}

impl Noted {
    /// Drops all spans, those of a graph only in name: whoever has the graph may launch it again.
    fn clear(&mut self) {
        let marks = self.spans.drain(..).flat_map(|(_, a, b)| [a, b]);
        let captured = marks.filter(|mark| mark.captured);
        self.kept.extend(captured.map(|mark| mark.event));
    }
}

impl Watch {
    /// Begins anew.
    pub fn start(&self) {
        self.noted_so_far().clear();
        self.on.store(true, Ordering::Relaxed);
    }

    /// Whether times are noted.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Notes nothing more.
    pub fn stop(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Forgets what was noted of a capture that came to nothing.
    pub fn forget_captured(&self) {
        let mut noted = self.noted_so_far();
        let all = std::mem::take(&mut noted.spans);
        let (captured, others) = all.into_iter().partition(|(_, begin, _)| begin.captured);
        noted.spans = captured;
        noted.clear();
        noted.spans = others;
    }

    /// Waits for the GPU and reads what was noted, in its order.
    ///
    /// # Errors
    /// The driver's: among others that what was noted has not been launched yet.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let noted = self.noted_so_far();
        let Some((_, first, _)) = noted.spans.first() else {
            return Ok(Vec::new());
        };
        let spans = noted.spans.iter().map(|(what, begin, end)| {
            Ok(Span {
                what: what.clone(),
                begin_ms: first.until(begin)?,
                ms: begin.until(end)?,
            })
        });
        spans.collect()
    }

    /// Runs `work` between two marks.
    pub(crate) fn noted(
        &self,
        stream: &CudaStream,
        what: impl FnOnce() -> String,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if !self.is_on() {
            return work();
        }
        let begin = Mark::new(stream)?;
        let end = work().and_then(|()| Mark::new(stream));
        let mut noted = self.noted_so_far();
        match end {
            Ok(end) => noted.spans.push((what(), begin, end)),
            Err(error) => {
                noted.kept.push(begin.event);
                return Err(error);
            }
        }
        Ok(())
    }

    fn noted_so_far(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
