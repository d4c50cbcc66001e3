//! Where a run stands.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::metrics::Meter;

/// Place in the run, and what has been summed up since the epoch began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Epochs that are done, evaluation included.
    pub(crate) epochs_done: usize,
    /// Steps that are done of the epoch after them.
    pub(crate) steps_done: usize,
    /// Steps of the whole run that were left out because something in them was not finite.
    pub(crate) skipped: usize,
    /// Nanoseconds spent on the epoch after those done.
    pub(crate) nanoseconds: u64,
    /// Sums over its steps.
    pub(crate) meter: Meter,
}

impl Progress {
    /// Time spent on the current epoch before this process, or this part of it, began.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// The epoch is done.
    pub(crate) fn next_epoch(&mut self) {
        *self = Self {
            epochs_done: self.epochs_done + 1,
            skipped: self.skipped,
            ..Self::default()
        };
    }
}
