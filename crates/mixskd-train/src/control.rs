//! What somebody outside can ask of a run: to stop, or to write a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// Requests to a run, from another thread or a signal handler; a clone speaks to the same run.
///
/// ```
/// use mixskd_train::Control;
///
/// let control = Control::default();
/// let elsewhere = control.clone();
/// elsewhere.stop();
/// assert!(control.is_stopped());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    checkpoint: Arc<AtomicBool>,
}

impl Control {
    /// Finish the step (on a GPU, the one that has been launched behind it, too), write a checkpoint, and end with [`Error::Stopped`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Write a checkpoint after this step (on a GPU, after the one that has been launched behind it), and go on.
    pub fn checkpoint(&self) {
        self.checkpoint.store(true, Ordering::SeqCst);
    }

    /// Takes back what was asked for: a trainer that has been stopped goes on after it, with another call of
    /// [`Trainer::run`](crate::Trainer::run).
    pub fn reset(&self) {
        self.stop.store(false, Ordering::SeqCst);
        self.checkpoint.store(false, Ordering::SeqCst);
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether a checkpoint is wanted; asking forgets it.
    pub(crate) fn take_checkpoint(&self) -> bool {
        self.checkpoint.swap(false, Ordering::SeqCst)
    }

    /// Whether the run is to stop or a checkpoint is wanted; asking changes nothing.
    pub(crate) fn wants_something(&self) -> bool {
        self.is_stopped() || self.checkpoint.load(Ordering::SeqCst)
    }

    /// An error once the run is to stop: for work that may be left in the middle, such as an evaluation.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::Stopping);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_what_was_taken_back() {
        let control = Control::default();
        control.stop();
        control.checkpoint();
        assert!(control.wants_something() && control.go_on().is_err());
        control.reset();
        assert!(!control.wants_something() && !control.take_checkpoint());
    }
}
