//! Where a run stands, as a checkpoint holds it, and back.

use std::collections::BTreeMap;

use candle_core::Tensor;
use mixskd_data::Identity;
use mixskd_kernels::{cudnn_choices, recall_cudnn_choices};
use mixskd_models::{ModelConfig, weights};

use crate::checkpoint::Checkpoint;
use crate::checkpoint_name;
use crate::difference::{self, Difference};
use crate::error::word;
use crate::progress::Progress;
use crate::step::Broken;
use crate::trainer::{Trainer, not_finite};
use crate::{Error, Observer, Result, RunDir, TrainConfig, names};

/// What several processes remember of an image has to be one's alone in an epoch.
pub(crate) fn not_balanced(method: &str) -> Error {
    Error::Config {
        place: "data.balance".into(),
        message: format!(
            "{method} remembers what it said of each image, and of several processes each would say something else of an image that is taken again"
        ),
        hint: Some("train it in one process, or with data.balance = 0".into()),
    }
}

/// Classes with so many times the images of others are far from equal.
const UNEQUAL: usize = 5;

const OTHER_DATA: &str = "put it back as it was (earlier versions passed over TIFF, PPM and PGM files), name the place where it lies with --data, or begin a new run with another --out";

impl Trainer {
    /// What became of the weights that the run starts from, a word where they want other data, and one where the network is not made for images of
    /// this size: lines for the user.
    pub fn start_notices(&self) -> Vec<String> {
        let mut notices = self.device_notices.clone();
        if let Ok(Some(start)) = &self.start {
            let data = &self.dataset;
            notices.push(start.to_string());
            notices.extend(start.other_normalisation(&data.mean, &data.std));
        }
        notices.extend(self.large_for_the_network());
        notices.extend(self.unequal_classes());
        notices
    }

    /// What to say of classes that are far from equal, and of balancing that never begins.
    fn unequal_classes(&self) -> Option<String> {
        let (data, epochs) = (&self.config.data, self.config.run.epochs as u64);
        if data.balance > 0.0 && data.balance_after >= epochs
            || data.balance == 0.0 && data.balance_after > 0
        {
            return Some(format!(
                "classes are never balanced: data.balance is {}, and begins after {} of {epochs} epochs",
                data.balance, data.balance_after
            ));
        }
        let [train, _] = self.dataset.class_images();
        let (fewest, most) = (*train.iter().min()?, *train.iter().max()?);
        if data.balance > 0.0 || most < UNEQUAL * fewest.max(1) {
            return None;
        }
        Some(format!(
            "classes have {fewest} to {most} training images; data.balance = 1 with data.balance_after = {} shows the rare ones as often as the others in the last epochs",
            epochs - epochs.div_ceil(5)
        ))
    }

    /// Gives the error of weights that a run at its beginning needs and that could not be had, however often it is asked.
    ///
    /// # Errors
    /// When `init.weights` is no file, no weights, or does not fit the network.
    pub fn require_start(&mut self) -> Result<()> {
        let Err(error) = &self.start else {
            return Ok(());
        };
        let again = Error::Config {
            place: "init.weights".into(),
            message: error.cause().trim_start_matches("init.weights: ").into(),
            hint: error.hint(),
        };
        std::mem::replace(&mut self.start, Err(again)).map(drop)
    }

    /// Tells what there is to know before the first step. Whoever begins a run needs the weights that it starts from.
    pub(crate) fn tell_beginning(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let notices = if self.progress == Progress::default() {
            self.require_start()?;
            self.start_notices()
        } else {
            self.device_notices.clone()
        };
        for text in notices {
            observer.notice(&text);
        }
        Ok(())
    }

    /// Networks for small images leave large ones their size for a whole stage, which takes long and serves nobody.
    fn large_for_the_network(&self) -> Option<String> {
        let model = &self.model;
        let usual = ModelConfig::new(&model.name, 1).ok()?.input;
        (usual < 64 && model.input > 96).then(|| {
            format!(
                "{} is made for images of about {usual} pixels and gets {}: one of `mixskd models` for photographs, such as resnet18, takes a fraction of the time; so does a smaller run.image_size",
                model.name, model.input
            )
        })
    }

    /// Takes up the newest whole checkpoint of `run`. Where there is none the run begins anew, and what it has written before is moved into
    /// a folder `earlier-N` of its directory.
    ///
    /// # Errors
    /// When a checkpoint cannot be read or does not fit the network; when the run is finished, or this trainer has begun, and there is no checkpoint.
    pub fn resume(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<()> {
        if !run.is_held() {
            // It comes from the first process when they meet.
            return Ok(());
        }
        let (checkpoint, damaged) = run.newest_checkpoint(&self.device)?;
        if checkpoint.is_none() {
            self.check_may_begin(run)?;
        }
        for (path, fault) in &damaged {
            checkpoint_name::set_aside(path)?;
            observer.notice(&format!(
                "passed over a checkpoint, now called ….damaged: {fault}"
            ));
        }
        match checkpoint {
            Some(checkpoint) => {
                if checkpoint.data.is_none() {
                    observer.notice("the checkpoint does not say which data it is of, and those that are there are taken: an earlier version wrote it");
                }
                for change in self.changes_since(&checkpoint)? {
                    observer.notice(&change);
                }
                self.take_up(checkpoint)?;
            }
            None if run.has_results() => {
                self.require_start()?;
                self.check_classes_of(run)?;
                let aside = run.set_aside()?;
                observer.notice(&format!(
                    "no whole checkpoint found: the run begins anew; what it had written before is in {}",
                    aside.display()
                ));
            }
            // Of a run that was prepared and never begun there is nothing to tell.
            None if damaged.is_empty() && !run.was_begun() => {}
            None => observer.notice("no whole checkpoint found: the run begins anew"),
        }
        self.directory = Some(run.path().to_path_buf());
        Ok(())
    }

    /// Refuses to begin a run anew with other classes than those of the weights that it has left.
    fn check_classes_of(&self, run: &RunDir) -> Result<()> {
        let Ok((_, metadata)) = weights::load(&run.weights()) else {
            return Ok(());
        };
        if metadata.classes.is_empty() || metadata.classes == self.dataset.classes {
            return Ok(());
        }
        Err(Error::Config {
            place: "data.source".into(),
            message: format!(
                "{} is not the data that the run began with: its weights know other classes",
                self.data_name()
            ),
            hint: Some(OTHER_DATA.into()),
        })
    }

    /// Refuses to begin a run anew for want of a checkpoint where that would serve nobody.
    fn check_may_begin(&self, run: &RunDir) -> Result<()> {
        let (message, hint) = if run.is_finished() {
            let config = run.path().join(names::CONFIG_TOML);
            let hint = format!(
                "report.json has its result; `mixskd train --config {} --out DIR` trains the same once more",
                word(&config)
            );
            let message = "is a finished run without a whole checkpoint: there is nothing to go on with, and nothing was changed";
            (message, hint)
        } else if self.progress != Progress::default() {
            let message =
                "holds no whole checkpoint to go back to, and this trainer is past the beginning";
            (message, "begin with another trainer".into())
        } else {
            return Ok(());
        };
        Err(Error::RunDir {
            path: run.path().to_path_buf(),
            message: message.into(),
            hint: Some(hint),
        })
    }

    /// Whether `run` is the directory of this run: what it holds would be overwritten.
    pub(crate) fn check_directory(&self, run: &RunDir) -> Result<()> {
        if !run.is_held() {
            return Ok(());
        }
        let refuse = |message: String, hint: &str| {
            Err(Error::RunDir {
                path: run.path().to_path_buf(),
                message,
                hint: Some(hint.into()),
            })
        };
        let is_own = self.directory.as_deref() == Some(run.path());
        if !is_own && self.progress != Progress::default() {
            return refuse(
                "is not the directory of the run that this trainer has begun".into(),
                "another run takes another trainer",
            );
        }
        let is_begun = run.newest_checkpoint_path().is_some() || run.has_results();
        if !is_own && is_begun {
            return refuse(
                "holds a run that was begun before".into(),
                "`Trainer::resume` goes on with it; another run takes another directory",
            );
        }
        // What changes no result may change, and what was left to the data is resolved.
        let resolved = ["run.image_size", "distribution.processes"];
        let noted = TrainConfig::from_file(&run.path().join(names::CONFIG_TOML))?;
        match difference::in_results(&noted, &self.config, &resolved)? {
            Some(found) => refuse(
                format!(
                    "its config.toml has {} = {}, the trainer {}",
                    found.key, found.one, found.other
                ),
                "make a new directory with `trainer.config()`, or the trainer of the configuration that `RunDir::open` gives",
            ),
            None => Ok(()),
        }
    }

    /// What of the settings was changed since `checkpoint` was written and may change the result, a line for the user each.
    fn changes_since(&self, checkpoint: &Checkpoint) -> Result<Vec<String>> {
        let Some(before) = &checkpoint.settings else {
            return Ok(Vec::new());
        };
        let changes = difference::all(before, &difference::settings(&self.config)?);
        let line = |found: Difference| {
            format!(
                "config.toml was changed since the checkpoint was written: {} was {}, is {}; the run goes on with that",
                found.key, found.one, found.other
            )
        };
        Ok(changes.into_iter().map(line).collect())
    }

    /// Goes to where a checkpoint was written.
    pub(crate) fn take_up(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let began = checkpoint.data.as_ref();
        if let Some(difference) = began.and_then(|began| began.difference(self.identity())) {
            return Err(Error::Config {
                place: "data.source".into(),
                message: format!(
                    "{} is not the data that the run began with: {difference}",
                    self.data_name()
                ),
                hint: Some(OTHER_DATA.into()),
            });
        }
        self.learner.load(&checkpoint)?;
        if let Some(choices) = &checkpoint.convolutions
            && !recall_cudnn_choices(&self.device, choices)?
        {
            self.learner.tell(
                "the ways of cuDNN that this run was begun with are not of this device or version: others are chosen, which round otherwise".into(),
            );
        }
        // One of an earlier version does not say, and the file may be another one by now.
        self.start_sha256 = checkpoint.start_sha256;
        self.progress = checkpoint.progress;
        Ok(())
    }

    /// What the data are called: as the configuration names them, or the program that gives its own.
    fn data_name(&self) -> &str {
        let own = self.config.own.data.as_deref();
        own.unwrap_or(&self.config.data.source)
    }

    /// What makes the data set the one it is.
    pub(crate) fn identity(&self) -> &Identity {
        self.identity.get_or_init(|| self.dataset.identity())
    }

    /// Where the run stands, with what the method remembers.
    pub(crate) fn checkpoint(&self, method: BTreeMap<String, Tensor>) -> Result<Checkpoint> {
        // What cuDNN guesses it will guess again.
        let convolutions = if self.config.run.cudnn_benchmark {
            cudnn_choices(&self.device)?
        } else {
            None
        };
        Ok(Checkpoint {
            progress: self.progress.clone(),
            tensors: self.learner.store().tensors(),
            velocities: self.learner.velocities(),
            average: self.learner.averages(),
            method,
            convolutions,
            data: Some(self.identity().clone()),
            start_sha256: self.start_sha256.clone(),
            settings: Some(difference::settings(&self.config)?),
        })
    }

    /// Has a checkpoint written of where the run stands, unless the network is broken.
    pub(crate) fn write_checkpoint(&mut self, run: &RunDir) -> Result<()> {
        let method = self.method_state()?;
        if !run.is_held() {
            return Ok(());
        }
        if let Some((name, value)) = self.learner.first_not_finite()? {
            let (epoch, step) = (self.progress.epochs_done, self.progress.steps_done);
            let broken = Broken::weights(name, value);
            return Err(not_finite(broken, epoch, step.saturating_sub(1), run));
        }
        let keep = self.config.run.keep_checkpoints;
        run.begin_checkpoint(&self.checkpoint(method)?, &self.to_host, keep)
    }

    /// `error`, and where it is one image's, a checkpoint of all steps before. Several processes have written it together, where they could.
    pub(crate) fn keep(&mut self, run: &RunDir, error: Error) -> Error {
        let steps = self.progress.steps_done;
        let alone = self.place().world == 1 && !self.learner.gpu().is_ahead();
        let between = steps.is_multiple_of(self.config.optimizer.accumulate)
            || steps == self.steps_per_epoch();
        let may_write = alone && steps > 0 && between;
        if !matches!(error, Error::Data(_)) || !(may_write || self.kept) {
            return error;
        }
        let written = if self.kept {
            Ok(())
        } else {
            self.write_checkpoint(run)
        };
        let written = written.and_then(|()| run.settle());
        match (written, run.newest_checkpoint_path()) {
            (Ok(()), Some(checkpoint)) => Error::Kept {
                source: Box::new(error),
                dir: run.path().to_path_buf(),
                checkpoint,
            },
            _ => error,
        }
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
