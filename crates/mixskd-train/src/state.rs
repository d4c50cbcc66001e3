//! Where a run stands, as a checkpoint holds it, and back.

use std::collections::BTreeMap;

use candle_core::Tensor;
use mixskd_kernels::{cudnn_choices, recall_cudnn_choices};
use mixskd_models::Strictness;

use crate::average::Average;
use crate::checkpoint::Checkpoint;
use crate::step::Broken;
use crate::trainer::{Trainer, not_finite};
use crate::{Error, Observer, Result, RunDir};

impl Trainer {
    /// Takes up the newest whole checkpoint of `run`; without one the run begins anew.
    ///
    /// # Errors
    /// When a checkpoint cannot be read or does not fit the network.
    pub fn resume(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<()> {
        if !run.is_held() {
            // It comes from the first process when they meet.
            return Ok(());
        }
        let (checkpoint, passed_over) = run.newest_checkpoint(&self.device)?;
        for damaged in &passed_over {
            observer.notice(&format!("passed over a checkpoint: {damaged}"));
        }
        if !passed_over.is_empty() {
            run.forget_after(checkpoint.as_ref())?;
        }
        match checkpoint {
            Some(checkpoint) => self.take_up(checkpoint)?,
            // Of a run that was prepared and never begun there is nothing to tell.
            None if passed_over.is_empty() && !run.metrics_path().exists() => {}
            None => observer.notice("no whole checkpoint found: the run begins anew"),
        }
        Ok(())
    }

    /// Goes to where a checkpoint was written.
    pub(crate) fn take_up(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.gpu.forget_begun()?;
        self.store.load(&checkpoint.tensors, Strictness::Exact)?;
        self.updater.optimizer.load_state(&checkpoint.velocities)?;
        if let Some(average) = &mut self.updater.average {
            average.load_state(checkpoint.average);
        }
        self.method.load_state(&checkpoint.method)?;
        if let Some(choices) = &checkpoint.convolutions
            && !recall_cudnn_choices(&self.device, choices)?
        {
            self.gpu.tell(
                "the ways of cuDNN that this run was begun with are not of this device or version: others are chosen, which round otherwise".into(),
            );
        }
        self.progress = checkpoint.progress;
        Ok(())
    }

    /// Where the run stands, with what the method remembers.
    pub(crate) fn checkpoint(&self, method: BTreeMap<String, Tensor>) -> Result<Checkpoint> {
        let average = self.updater.average.as_ref();
        // What cuDNN guesses it will guess again.
        let convolutions = if self.config.run.cudnn_benchmark {
            cudnn_choices(&self.device)?
        } else {
            None
        };
        Ok(Checkpoint {
            progress: self.progress.clone(),
            tensors: self.store.tensors(),
            velocities: self.updater.optimizer.state(),
            average: average.map(Average::state).unwrap_or_default(),
            method,
            convolutions,
        })
    }

    /// Has a checkpoint written of where the run stands, unless the network is broken.
    pub(crate) fn write_checkpoint(&mut self, run: &RunDir) -> Result<()> {
        let method = self.method_state()?;
        if !run.is_held() {
            return Ok(());
        }
        if let Some((name, value)) = self.first_not_finite()? {
            let (epoch, step) = (self.progress.epochs_done, self.progress.steps_done);
            let broken = Broken::weights(name, value);
            return Err(not_finite(broken, epoch, step.saturating_sub(1), run));
        }
        let keep = self.config.run.keep_checkpoints;
        run.begin_checkpoint(&self.checkpoint(method)?, &self.to_host, keep)
    }

    /// Writes a checkpoint, and what to say of a run that ends here.
    pub(crate) fn stopped(&mut self, run: &RunDir) -> Result<Error> {
        self.write_checkpoint(run)?;
        let (epochs, steps) = (self.progress.epochs_done, self.progress.steps_done);
        let (epoch, step) = match steps {
            0 => (epochs, self.steps_per_epoch()),
            steps => (epochs + 1, steps),
        };
        let paths = || {
            run.settle()?;
            Ok((run.path().to_path_buf(), run.newest_checkpoint_path()))
        };
        let (dir, checkpoint) = self.group.firsts(paths)?;
        Ok(Error::Stopped {
            dir,
            epoch,
            step,
            checkpoint: checkpoint.unwrap_or_default(),
        })
    }
}
