//! Who does a run: this process, or one of its own.

use std::path::Path;

use crate::{Observer, RunDir, TrainConfig, Trainer};

/// Why a run did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFailure {
    /// What went wrong, in one line.
    pub cause: String,
    /// Whether the whole comparison has to stop, because the user said so.
    pub stop: bool,
}

impl From<crate::Error> for RunFailure {
    fn from(error: crate::Error) -> Self {
        Self {
            cause: error.cause(),
            stop: false,
        }
    }
}

/// Trains in a prepared run directory.
///
/// A process of its own for each run keeps them apart: memory is measured from nothing, and a run that the system kills is a
/// failed run and no more. The command line does that; [`InProcess`] is for libraries and tests.
pub trait Runner {
    /// Goes on with the run in `dir`, from the beginning where it has no checkpoint, until its report is written.
    ///
    /// # Errors
    /// Why it did not come to its end.
    fn run(&mut self, dir: &Path) -> Result<(), RunFailure>;

    /// Seconds of one training step of `config`, loading included. Takes a few steps in this process and writes nothing.
    ///
    /// # Errors
    /// Why it could not be measured.
    fn seconds_per_step(&mut self, config: &TrainConfig) -> Result<f64, RunFailure> {
        Ok(Trainer::for_resume(config)?.seconds_per_step()?)
    }
}

/// Runs in this process. Peak memory is then that of the process so far, and not of one run.
pub struct InProcess<'a> {
    observer: &'a mut dyn Observer,
}

impl<'a> InProcess<'a> {
    /// A runner whose runs `observer` watches.
    pub fn new(observer: &'a mut dyn Observer) -> Self {
        Self { observer }
    }
}

impl Runner for InProcess<'_> {
    fn run(&mut self, dir: &Path) -> Result<(), RunFailure> {
        let (run, config) = RunDir::open(dir)?;
        let mut trainer = Trainer::for_resume(&config)?;
        trainer.resume(&run, self.observer)?;
        trainer.run(&run, self.observer)?;
        Ok(())
    }
}
