//! The batches of an epoch, as steps take them.

use crate::feed::Batches;
use crate::method::TrainBatch;
use crate::step::Outcome;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// Batches of one epoch that are still to come. One of them may have been prepared, draws and all, while a GPU was at the one before.
pub(crate) struct Upcoming<'a> {
    epoch: usize,
    batches: Batches<'a>,
    prepared: Option<Result<TrainBatch>>,
}

impl<'a> Upcoming<'a> {
    pub(crate) fn new(epoch: usize, batches: Batches<'a>) -> Self {
        Self {
            epoch,
            batches,
            prepared: None,
        }
    }

    /// Prepares the next batch, unless that is done. What is wrong with it is told when its turn comes.
    pub(crate) fn prepare(&mut self, trainer: &Trainer) {
        if self.prepared.is_none() {
            let next = self.batches.next();
            self.prepared = next.map(|batch| trainer.prepare(batch?, self.epoch));
        }
    }

    /// The next batch; `None` after the last.
    pub(crate) fn next(&mut self, trainer: &Trainer) -> Result<Option<TrainBatch>> {
        self.prepare(trainer);
        self.prepared.take().transpose()
    }

    /// Brings the images of the next batch on their way.
    pub(crate) fn fetch(&mut self) {
        self.batches.fetch();
    }

    /// Whether the next batch cannot be had for want of an image.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self.prepared, Some(Err(Error::Data(_))))
    }
}

impl Trainer {
    /// Has a GPU begin the step that comes next where it can, and prepares the batch after it while the GPU works: [`Learner::step`](crate::learner::Learner::step)
    /// then finds it begun, and the GPU finds the next one in its place; with `go_on` it is launched, too.
    pub(crate) fn begin(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        upcoming: &mut Upcoming,
        go_on: bool,
    ) -> Result<()> {
        if !self.learner.begin(batch, lr, &self.group)? {
            return Ok(());
        }
        upcoming.prepare(self);
        if let Some(Ok(next)) = &upcoming.prepared {
            let lr = self.schedule.lr(next.epoch, next.step / self.place().world);
            // The step that was begun is to be counted first.
            if let Err(error) = self.learner.fill_ahead(next, lr, go_on) {
                upcoming.prepared = Some(Err(error));
            }
        }
        Ok(())
    }

    /// One step of `batch`, which may have been begun; the images of the next are brought on their way before a GPU is waited for.
    pub(crate) fn step(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        update: bool,
        upcoming: &mut Upcoming,
    ) -> Result<Outcome> {
        let fetch = &mut || upcoming.fetch();
        self.learner.step(batch, lr, update, &self.group, fetch)
    }
}
