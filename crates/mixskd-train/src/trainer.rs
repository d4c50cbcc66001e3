//! The training loop.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use mixskd_data::{Balance, BatchNeeds, Dataset, Identity, Loader, LoaderConfig, Shard, recipe};
use mixskd_models::{ModelConfig, ParamStore};
use serde::{Deserialize, Serialize};

use crate::average::Average;
use crate::builder::{Maker, TrainerBuilder};
use crate::cadence::Cadence;
use crate::config::OnNan;
use crate::distribution::{Group, Wishes};
use crate::evaluate::{FirstHead, evaluate_batches};
use crate::feed::Feed;
use crate::gpu_step::{GpuStepper, Launching};
use crate::init;
use crate::method::{Method, MethodInputs, TrainBatch};
use crate::observer::{RunStart, StepEvent, TestEvent};
use crate::progress::Progress;
use crate::state::not_balanced;
use crate::step::{Broken, Outcome, Updater};
use crate::to_host::ToHost;
use crate::{
    Control, EpochRecord, Error, HeadScore, Observer, Place, Report, Result, RunDir, Schedule,
    Start, TrainConfig,
};

/// A run, built and ready: data opened, network made, nothing written yet.
pub struct Trainer {
    pub(crate) config: TrainConfig,
    pub(crate) dataset: Dataset,
    pub(crate) model: ModelConfig,
    pub(crate) store: ParamStore,
    pub(crate) method: Box<dyn Method>,
    pub(crate) updater: Updater,
    pub(crate) gpu: GpuStepper,
    pub(crate) schedule: Schedule,
    pub(crate) train_feed: Arc<Feed>,
    test_feed: Feed,
    /// Brings logits of test images.
    logits_to_host: ToHost,
    /// Brings weights and all else that a checkpoint holds.
    pub(crate) to_host: ToHost,
    pub(crate) device: Device,
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

    pub(crate) fn assemble(
        mut config: TrainConfig,
        place: Place,
        parts: TrainerBuilder,
    ) -> Result<Self> {
        if config.distribution.enabled {
            config.distribution.processes = place.world;
        }
        let dataset = match parts.dataset {
            Some(dataset) => dataset.checked()?,
            None => config.data.open()?,
        };
        // So that the resolved configuration means the same set from any working directory.
        if config.own.data.is_none()
            && recipe(&config.data.source).is_none()
            && let Ok(folder) = std::fs::canonicalize(&config.data.source)
            && folder.is_dir()
        {
            config.data.source = folder.display().to_string();
        }
        if let Some(weights) = &mut config.init.weights
            && let Ok(absolute) = std::fs::canonicalize(&*weights)
        {
            *weights = absolute;
        }
        if config.run.batch.saturating_mul(place.world) > dataset.train.len() {
            return Err(Error::Config {
                place: "run.batch".into(),
                message: format!(
                    "a batch of {}{} is larger than the training set of {}",
                    config.run.batch,
                    match place.world {
                        1 => String::new(),
                        world => format!(" for each of {world} processes"),
                    },
                    dataset.train.len()
                ),
                hint: Some(format!(
                    "--batch {}",
                    (dataset.train.len() / place.world).clamp(1, 64)
                )),
            });
        }
        if config.run.image_size == 0 {
            config.run.image_size = dataset.input_size();
        }
        config.model.settle(config.run.image_size);
        let device = config.run.device.open_at(place.local_rank)?;
        config.run.precision.apply(&device)?;
        mixskd_kernels::set_cudnn_benchmark(&device, config.run.cudnn_benchmark)?;
        let model = ModelConfig {
            name: config.model.name.clone(),
            classes: dataset.classes.len(),
            channels: dataset.channels,
            width: config.model.width,
            input: config.run.image_size,
            stem_relu: config.model.stem_relu,
        };
        let seed = config.run.seed;
        let store = ParamStore::new(seed, DType::F32, &device);
        // Before the method is built, so that it finds what the file holds and may still change it.
        let start = config.init.load(&store, &model);
        let inputs = MethodInputs {
            config: &config.method,
            objective: &config.objective,
            model: &model,
            store: &store,
            seed,
            epochs: config.run.epochs,
            train_images: dataset.train.len(),
            freeze_backbone: config.init.freeze_backbone,
        };
        let maker = Maker::new(&config, parts.method)?;
        let needs = maker.needs(&config)?;
        let method = maker.build(&inputs)?;
        if place.world > 1 && config.data.balance > 0.0 && !method.state()?.is_empty() {
            return Err(not_balanced(config.method_name()));
        }
        let body = init::body(&store, method.backbone());
        if config.init.freeze_backbone {
            for name in &body {
                store.freeze(name);
            }
        }
        let is_body = |name: &str| {
            body.binary_search_by(|known| known.as_str().cmp(name))
                .is_ok()
        };
        let factor = |name: &str| {
            if is_body(name) {
                1.0
            } else {
                config.init.head_lr_factor
            }
        };
        let optimizer = config.optimizer.build_with(store.parameters(), factor)?;
        let train = LoaderConfig {
            batch: config.run.batch,
            needs,
            shuffle: true,
            balance: config.data.balance(),
            drop_last: true,
            seed,
            prefetch: config.run.prefetch,
            shard: Shard {
                rank: place.rank,
                world: place.world,
            },
        };
        let test = LoaderConfig {
            batch: config.run.eval_batch.min(dataset.test.len()),
            needs: BatchNeeds::Anchors,
            shuffle: false,
            balance: Balance::default(),
            drop_last: false,
            shard: Shard::default(),
            ..train.clone()
        };
        let train_loader = Loader::new(
            dataset.train.clone(),
            dataset.train_pipeline(config.run.image_size)?,
            train,
        )?;
        let test_loader = Loader::new(
            dataset.test.clone(),
            dataset.eval_pipeline(config.run.image_size)?,
            test,
        )?;
        let schedule = config.schedule.build(
            config.optimizer.lr,
            config.run.epochs,
            at_most(train_loader.steps_per_epoch(), config.run.max_batches),
        )?;
        let precision = config.run.precision;
        let train_feed = Feed::new(train_loader, &dataset, &device, precision)?;
        let test_feed = Feed::new(test_loader, &dataset, &device, precision)?;
        let updater = Updater::new(&config.optimizer, optimizer);
        // Where the host looks at gradients on their way, nothing is captured.
        let launching = if updater.is_direct() && place.world == 1 {
            config.run.launching()
        } else {
            Launching::Kernels
        };
        let gpu = GpuStepper::new(&device, launching)?;
        Ok(Self {
            config,
            dataset,
            model,
            store,
            method,
            updater,
            gpu,
            schedule,
            train_feed: Arc::new(train_feed),
            test_feed,
            logits_to_host: ToHost::new(&device)?,
            to_host: ToHost::new(&device)?,
            device,
            progress: Progress::default(),
            control: Control::default(),
            group: Group::apart(place),
            start_sha256: match &start {
                Ok(Some(start)) => Some(start.sha256.clone()),
                _ => None,
            },
            start,
            kept: false,
            directory: None,
            identity: OnceLock::new(),
        })
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
        self.method.as_ref()
    }

    /// Every parameter and buffer by name, those of the network that is kept under `backbone.`.
    pub fn parameters(&self) -> &ParamStore {
        &self.store
    }

    /// The method's name, as it stands in records.
    pub fn method_name(&self) -> &str {
        self.config.method_name()
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
            // A checkpoint's may have come in.
            self.gpu.parameters_changed();
            let mut batches = feed.epoch_from(epoch as u64, first as u64, steps - first);
            let (mut due, mut ahead) = (false, None);
            while let Some(batch) = self.next(&mut ahead, &mut batches, epoch)? {
                run.glance()?;
                let step = batch.step / world;
                let (lr, done) = (self.schedule.lr(epoch, step), step + 1);
                let update = done.is_multiple_of(self.config.optimizer.accumulate) || done == steps;
                // What is to be done between this step and the next has to be known before the next is launched.
                let place = (epoch * steps + done) as u64;
                let go_on = !due && !self.control.wants_something() && !cadence.is_due(place);
                self.begin(&batch, lr, &mut ahead, &mut batches, go_on)?;
                let terms = match self.step(&batch, lr, update, &mut || batches.fetch())? {
                    Outcome::Done(reading) => {
                        self.progress.meter.add(&reading);
                        reading.terms
                    }
                    Outcome::NotFinite(broken) => {
                        self.skip(broken, &batch, run, observer)?;
                        Vec::new()
                    }
                };
                if let Some(notice) = self.gpu.take_notice() {
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
                if self.gpu.is_ahead() {
                    continue;
                }
                if !self.group.is_alone() && ahead.is_none() {
                    // Whether everybody has a next batch is found out while all can still write a checkpoint together.
                    ahead = (batches.next()).map(|next| self.prepare(next?, epoch));
                }
                let asked = self.group.wishes(Wishes {
                    checkpoint: self.control.take_checkpoint() || cadence.is_due(place),
                    stop: self.control.is_stopped(),
                    keep: matches!(ahead, Some(Err(Error::Data(_)))) && !self.group.is_alone(),
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
            drop(batches);
            let meter = &self.progress.meter;
            let training = self.progress.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            let (loss, terms, train_top1) = (meter.loss(), meter.terms(), meter.train_top1());
            let samples_per_s = meter.samples() as f64 / training;
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
            let heads = match self.group.firsts(evaluate)? {
                Evaluated::Heads(heads) => heads,
                Evaluated::Stopped => return Err(self.stopped(run)?),
                Evaluated::Unread => {
                    self.write_checkpoint(run)?;
                    self.kept = true;
                    if let Some(error) = unread {
                        return Err(error);
                    }
                    // Its words are on their way.
                    self.group.wishes(Wishes::default())?;
                    return Err(Error::peer(0, "could not read an image"));
                }
            };
            let backbone = HeadScore::of_backbone(&heads)?;
            let record = EpochRecord {
                epoch: epoch + 1,
                lr: self.schedule.lr(epoch, steps.saturating_sub(1)),
                loss,
                terms,
                train_top1,
                top1: backbone.top1,
                top5: backbone.top5,
                test_loss: backbone.loss,
                samples_per_s,
                seconds: (before + started.elapsed()).as_secs_f64(),
                peak_memory_bytes: crate::machine::peak_resident_bytes(),
                heads,
            };
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

    /// Scores every head and writes the backbone's weights, with the moving average in the network where there is one. `None` when
    /// the run is to stop.
    fn evaluate_and_save(
        &self,
        run: &RunDir,
        epoch: usize,
        observer: &mut dyn Observer,
    ) -> Result<Option<Vec<HeadScore>>> {
        let own = match &self.updater.average {
            Some(average) => Some(average.put_in(&self.store)?),
            None => None,
        };
        let batches = at_most(usize::MAX, self.config.run.max_batches);
        let heads = |images: &Tensor| {
            self.control.go_on()?;
            self.method.heads(images)
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
        let scores = put();
        // Whatever went wrong: a checkpoint may still be written.
        if let Some(own) = own {
            Average::put_back(&own, &self.store)?;
        }
        scores
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
                layer: self.first_not_finite()?.map(|(name, _)| name),
                value: head.loss,
            },
            None => match self.first_not_finite()? {
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
fn at_most(count: usize, limit: usize) -> usize {
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
