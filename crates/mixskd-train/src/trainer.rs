//! The training loop.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use candle_core::{Device, Tensor};
use mixskd_data::{Dataset, Identity};
use mixskd_models::{ModelConfig, ParamStore};
use serde::{Deserialize, Serialize};

use crate::builder::TrainerBuilder;
use crate::cadence::Cadence;
use crate::config::OnNan;
use crate::distribution::{Group, Wishes};
use crate::evaluate::{FirstHead, evaluate_batches};
use crate::feed::Feed;
use crate::learner::Learner;
use crate::method::{Method, TrainBatch};
use crate::observer::{RunStart, StepEvent, TestEvent};
use crate::progress::Progress;
use crate::step::{Broken, Outcome};
use crate::to_host::ToHost;
use crate::upcoming::Upcoming;
use crate::{
    Control, EpochRecord, Error, HeadScore, Observer, Place, Report, Result, RunDir, Schedule,
    Start, TrainConfig,
};

/// A run, built and ready: data opened, network made, nothing written yet.
pub struct Trainer {
    pub(crate) config: TrainConfig,
    pub(crate) dataset: Dataset,
    pub(crate) model: ModelConfig,
    /// The network in training, and all that a step changes of it.
    pub(crate) learner: Learner,
    pub(crate) schedule: Schedule,
    pub(crate) train_feed: Arc<Feed>,
    pub(crate) test_feed: Feed,
    /// Brings logits of test images.
    pub(crate) logits_to_host: ToHost,
    /// Brings weights and all else that a checkpoint holds.
    pub(crate) to_host: ToHost,
    pub(crate) device: Device,
    /// Why a GPU is not used, or not as it might be.
    pub(crate) device_notices: Vec<String>,
    pub(crate) progress: Progress,
    pub(crate) control: Control,
    pub(crate) group: Group,
    pub(crate) start: Result<Option<Start>>,
    /// SHA-256 of the file of weights that the run began with, where it began with any.
    pub(crate) start_sha256: Option<String>,
    /// A checkpoint was written because of an image that cannot be read, whose error is on its way.
    pub(crate) kept: bool,
    /// The directory of the run that was taken up or begun.
    pub(crate) directory: Option<PathBuf>,
    /// Made when it is first asked for.
    pub(crate) identity: OnceLock<Identity>,
}

impl Trainer {
    /// Opens the data and builds network, method and optimiser. Writes nothing.
    ///
    /// # Errors
    /// When the configuration is out of range, the data cannot be read, or the two do not fit each other.
    pub fn new(config: &TrainConfig) -> Result<Self> {
        let mut trainer = Self::for_resume(config)?;
        trainer.require_start()?;
        Ok(trainer)
    }

    /// The same for a run about to be resumed: the weights it started from may be gone, since its checkpoints hold all there is to know.
    /// Only a run that has none yet wants them again.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_resume(config: &TrainConfig) -> Result<Self> {
        Self::builder(config).build_for_resume()
    }

    /// The same as the process of a distributed run that `place` says, whatever the launcher's variables say.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(config: &TrainConfig, place: Place) -> Result<Self> {
        Self::builder(config).place(place).build_for_resume()
    }

    /// A trainer with a data set or a method of the caller's own.
    pub fn builder(config: &TrainConfig) -> TrainerBuilder {
        TrainerBuilder::new(config)
    }

    /// A handle by which another thread or a signal handler stops the run or asks for a checkpoint.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Steps of one epoch.
    pub(crate) fn steps_per_epoch(&self) -> usize {
        at_most(
            self.train_feed.loader().steps_per_epoch(),
            self.config.run.max_batches,
        )
    }

    /// The resolved configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The data.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The method, and with it the network.
    pub fn method(&self) -> &dyn Method {
        self.learner.method()
    }

    /// Every parameter and buffer by name, those of the network that is kept under `backbone.`.
    pub fn parameters(&self) -> &ParamStore {
        self.learner.store()
    }

    /// The method's name, as it stands in records.
    pub fn method_name(&self) -> &str {
        self.config.method_name()
    }

    /// Whether steps are launched as a captured CUDA graph.
    pub fn has_captured_step(&self) -> bool {
        self.learner.gpu().is_captured()
    }

    /// Whether that graph has branches that run beside the backbone.
    pub fn has_captured_branches(&self) -> bool {
        self.learner.gpu().has_branches()
    }

    /// Trains to the last epoch. After each: evaluation of every head, a line of metrics, weights, a checkpoint. A run that was begun
    /// before goes on where [`Self::resume`] has taken it up.
    ///
    /// # Errors
    /// When `run` holds a run that was not taken up, or one of other settings; before anything is written.
    /// When an image cannot be read, a loss or gradient is not finite, a file cannot be written, or [`Control::stop`] was called;
    /// what was written before stays.
    pub fn run(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<Report> {
        self.train(run, observer).map_err(|error| {
            let error = run.explain(self.keep(run, error)).with_place_of(run);
            self.group.farewell(&error);
            error
        })
    }

    fn train(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<Report> {
        if let Err(error) = self.check_directory(run) {
            self.group
                .decline(&self.config.distribution, &error.cause());
            return Err(error);
        }
        self.directory = Some(run.path().to_path_buf());
        self.kept = false;
        // By whoever holds them, too: `Trainer::parameters`.
        self.learner.parameters_changed();
        self.meet(observer)?;
        let world = self.place().world;
        let records = || run.records(self.progress.epochs_done);
        let mut records = self.group.firsts(records)?;
        run.settle_beginning(&self.config, self.progress.epochs_done)?;
        let steps = self.steps_per_epoch();
        observer.started(&RunStart {
            dir: run.path(),
            first_epoch: self.progress.epochs_done,
            first_step: self.progress.steps_done,
            epochs: self.config.run.epochs,
            steps,
            batch: world * self.config.run.batch,
            input: self.config.run.image_size,
        });
        self.tell_beginning(observer)?;
        let mut cadence = Cadence::new(self.config.run.checkpoint_every);
        for epoch in self.progress.epochs_done..self.config.run.epochs {
            let (before, started) = (self.progress.elapsed(), Instant::now());
            let first = self.progress.steps_done;
            let feed = self.train_feed.clone();
            let batches = feed.epoch_from(epoch as u64, first as u64, steps - first);
            let mut upcoming = Upcoming::new(epoch, batches);
            let mut due = false;
            while let Some(batch) = upcoming.next(self)? {
                run.glance()?;
                let step = batch.step / world;
                let (lr, done) = (self.schedule.lr(epoch, step), step + 1);
                let update = done.is_multiple_of(self.config.optimizer.accumulate) || done == steps;
                // What is to be done between this step and the next has to be known before the next is launched.
                let place = (epoch * steps + done) as u64;
                let go_on = !due && !self.control.wants_something() && !cadence.is_due(place);
                self.begin(&batch, lr, &mut upcoming, go_on)?;
                let terms = match self.step(&batch, lr, update, &mut upcoming)? {
                    Outcome::Done(reading) => {
                        self.progress.meter.add(&reading);
                        reading.terms
                    }
                    Outcome::NotFinite(broken) => {
                        self.skip(broken, &batch, run, observer)?;
                        Vec::new()
                    }
                };
                if let Some(notice) = self.learner.take_notice() {
                    observer.notice(&notice);
                }
                self.progress.steps_done = done;
                let elapsed = before + started.elapsed();
                self.progress.nanoseconds = elapsed.as_nanos() as u64;
                let meter = &self.progress.meter;
                observer.step(&StepEvent {
                    epoch,
                    step,
                    loss: meter.loss(),
                    terms: &terms,
                    samples_per_s: meter.samples() as f64 / elapsed.as_secs_f64(),
                });
                if self.learner.gpu().is_ahead() {
                    continue;
                }
                if !self.group.is_alone() {
                    // Whether everybody has a next batch is found out while all can still write a checkpoint together.
                    upcoming.prepare(self);
                }
                let asked = self.group.wishes(Wishes {
                    checkpoint: self.control.take_checkpoint() || cadence.is_due(place),
                    stop: self.control.is_stopped(),
                    keep: upcoming.is_unreadable() && !self.group.is_alone(),
                })?;
                due |= asked.checkpoint || asked.keep;
                if update && asked.stop {
                    return Err(self.stopped(run)?);
                }
                if update && due && done < steps {
                    self.write_checkpoint(run)?;
                    cadence.written();
                    due = false;
                    self.kept = asked.keep;
                }
            }
            drop(upcoming);
            let heads = self.evaluate_together(run, epoch, observer)?;
            let record = self.record(epoch, heads, (before + started.elapsed()).as_secs_f64())?;
            run.append(&record)?;
            self.progress.next_epoch();
            self.write_checkpoint(run)?;
            cadence.written();
            observer.epoch(&record);
            records.push(record);
            let asked = Wishes {
                stop: self.control.is_stopped(),
                ..Wishes::default()
            };
            if epoch + 1 < self.config.run.epochs && self.group.wishes(asked)?.stop {
                return Err(self.stopped(run)?);
            }
        }
        run.settle()?;
        self.group.leave();
        let report = self.report(&records, run)?;
        run.write_report(&report)?;
        observer.finished(&report);
        Ok(report)
    }

    /// [`Self::evaluate_and_save`] by the first process, and for all what it came to.
    fn evaluate_together(
        &mut self,
        run: &RunDir,
        epoch: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<HeadScore>> {
        let mut unread = None;
        let evaluate = || match self.evaluate_and_save(run, epoch, observer) {
            Ok(Some(heads)) => Ok(Evaluated::Heads(heads)),
            Ok(None) => Ok(Evaluated::Stopped),
            Err(error @ Error::Data(_)) if !self.group.is_alone() => {
                unread = Some(error);
                Ok(Evaluated::Unread)
            }
            Err(error) => Err(error),
        };
        match self.group.firsts(evaluate)? {
            Evaluated::Heads(heads) => Ok(heads),
            Evaluated::Stopped => Err(self.stopped(run)?),
            Evaluated::Unread => {
                self.write_checkpoint(run)?;
                self.kept = true;
                if let Some(error) = unread {
                    return Err(error);
                }
                // Its words are on their way.
                self.group.wishes(Wishes::default())?;
                Err(Error::peer(0, "could not read an image"))
            }
        }
    }

    /// What is noted of an epoch whose steps are done, and whose `heads` did so well; evaluation included it took `seconds`.
    fn record(&self, epoch: usize, heads: Vec<HeadScore>, seconds: f64) -> Result<EpochRecord> {
        let backbone = HeadScore::of_backbone(&heads)?;
        let (top1, top5, test_loss) = (backbone.top1, backbone.top5, backbone.loss);
        let meter = &self.progress.meter;
        let training = self.progress.elapsed().as_secs_f64();
        let last = self.steps_per_epoch().saturating_sub(1);
        Ok(EpochRecord {
            epoch: epoch + 1,
            lr: self.schedule.lr(epoch, last),
            loss: meter.loss(),
            terms: meter.terms(),
            train_top1: meter.train_top1(),
            top1,
            top5,
            test_loss,
            samples_per_s: meter.samples() as f64 / training.max(f64::MIN_POSITIVE),
            seconds,
            peak_memory_bytes: crate::machine::peak_resident_bytes(),
            // What it costs is not worth a run.
            gpu_memory_bytes: mixskd_kernels::gpu_memory_in_use(&self.device).unwrap_or_default(),
            heads,
        })
    }

    /// Scores every head and writes the backbone's weights, with the moving average in the network where there is one. `None` when
    /// the run is to stop.
    fn evaluate_and_save(
        &self,
        run: &RunDir,
        epoch: usize,
        observer: &mut dyn Observer,
    ) -> Result<Option<Vec<HeadScore>>> {
        let batches = at_most(usize::MAX, self.config.run.max_batches);
        let heads = |images: &Tensor| {
            self.control.go_on()?;
            self.method().heads(images)
        };
        let mut tested = |batch: FirstHead| {
            observer.tested(&TestEvent {
                epoch,
                first: batch.first,
                labels: batch.labels,
                logits: batch.logits,
            });
        };
        let feed = &self.test_feed;
        let evaluate = || evaluate_batches(heads, feed, &self.logits_to_host, batches, &mut tested);
        let put = || {
            let (scores, draft) = self.drafting_weights(&run.weights(), evaluate)?;
            let scores = match scores {
                Err(Error::Stopping) => return Ok(None),
                scores => scores?,
            };
            HeadScore::of_backbone(&scores)?;
            self.check_finite(&scores, epoch, run)?;
            draft?.put_in_place()?;
            run.sync();
            Ok(Some(scores))
        };
        // Whatever goes wrong: a checkpoint may still be written.
        self.learner.with_average(put)
    }

    /// Counts a step that is left out, or stops the run.
    fn skip(
        &mut self,
        mut broken: Broken,
        batch: &TrainBatch,
        run: &RunDir,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let step = batch.step / self.place().world;
        let limit = match self.config.run.on_nan {
            OnNan::Stop => 0,
            OnNan::Skip => self.config.run.max_skips,
        };
        if broken.layer.is_none() {
            broken.layer = self.locate_anywhere(batch)?;
        }
        if self.progress.skipped >= limit {
            return Err(not_finite(broken, batch.epoch, step, run));
        }
        self.progress.skipped += 1;
        let layer = broken
            .layer
            .map_or(String::new(), |layer| format!(" of {layer}"));
        observer.notice(&format!(
            "`{}`{layer} was {} at epoch {}, step {}: the step is left out ({} of at most {limit})",
            broken.term,
            broken.value,
            batch.epoch + 1,
            step + 1,
            self.progress.skipped,
        ));
        Ok(())
    }

    /// Refuses to call an epoch done whose last update broke the network, so that no checkpoint is ever written of it.
    fn check_finite(&self, heads: &[HeadScore], epoch: usize, run: &RunDir) -> Result<()> {
        let broken = match heads.iter().find(|head| !head.loss.is_finite()) {
            Some(head) => Broken {
                term: format!("test loss of {}", head.name),
                layer: self.learner.first_not_finite()?.map(|(name, _)| name),
                value: head.loss,
            },
            None => match self.learner.first_not_finite()? {
                Some((name, value)) => Broken::weights(name, value),
                None => return Ok(()),
            },
        };
        Err(not_finite(broken, epoch, self.steps_per_epoch() - 1, run))
    }
}

/// How an evaluation ended.
#[derive(Serialize, Deserialize)]
enum Evaluated {
    Heads(Vec<HeadScore>),
    /// The run is to stop.
    Stopped,
    /// An image cannot be read.
    Unread,
}

/// `limit` where it is above 0 and below `count`.
pub(crate) fn at_most(count: usize, limit: usize) -> usize {
    if limit == 0 { count } else { count.min(limit) }
}

/// `epoch` and `step` from 0.
pub(crate) fn not_finite(broken: Broken, epoch: usize, step: usize, run: &RunDir) -> Error {
    Error::NotFinite {
        term: broken.term,
        layer: broken.layer,
        value: broken.value,
        epoch: epoch + 1,
        step: step + 1,
        checkpoint: run.newest_checkpoint_path(),
    }
}
