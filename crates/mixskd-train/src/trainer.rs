//! The training loop.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use mixskd_data::{Batch, BatchNeeds, Dataset, Loader, LoaderConfig, Preset, recipe};
use mixskd_models::weights::{self, Metadata, Resize};
use mixskd_models::{ModelConfig, ParamStore, Strictness};

use crate::checkpoint::Checkpoint;
use crate::evaluate::evaluate;
use crate::init;
use crate::method::{self, BACKBONE, Method, MethodInputs, TrainBatch};
use crate::metrics::{Meter, StepReading};
use crate::observer::{RunStart, StepEvent};
use crate::optimizer::Sgd;
use crate::report::best;
use crate::{
    EpochRecord, Error, HeadScore, Observer, Report, Result, RunDir, Schedule, Start, TrainConfig,
};

/// A run, built and ready: data opened, network made, nothing written yet.
pub struct Trainer {
    pub(crate) config: TrainConfig,
    pub(crate) dataset: Dataset,
    pub(crate) model: ModelConfig,
    pub(crate) store: ParamStore,
    pub(crate) method: Box<dyn Method>,
    pub(crate) optimizer: Sgd,
    schedule: Schedule,
    pub(crate) train_loader: Loader,
    test_loader: Loader,
    pub(crate) device: Device,
    epochs_done: usize,
    start: Result<Option<Start>>,
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
        config.validate()?;
        let mut config = config.clone();
        let dataset = config.data.open()?;
        // So that the resolved configuration means the same set from any working directory.
        if recipe(&config.data.source).is_none()
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
        if config.run.batch > dataset.train.len() {
            return Err(Error::Config {
                place: "run.batch".into(),
                message: format!(
                    "a batch of {} is larger than the training set of {}",
                    config.run.batch,
                    dataset.train.len()
                ),
                hint: Some(format!("--batch {}", dataset.train.len().min(64))),
            });
        }
        if config.run.image_size == 0 {
            config.run.image_size = dataset.input_size();
        }
        let device = config.run.device.open()?;
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
        let spec = method::spec(config.method.name())?;
        let method = (spec.build)(&inputs)?;
        let body = init::body(&store, method.backbone());
        if config.init.freeze_backbone {
            body.iter().for_each(|name| store.freeze(name));
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
            needs: (spec.batch)(&config.method)?,
            shuffle: true,
            drop_last: true,
            seed,
            prefetch: config.run.prefetch,
        };
        let test = LoaderConfig {
            batch: config.run.eval_batch.min(dataset.test.len()),
            needs: BatchNeeds::Anchors,
            shuffle: false,
            drop_last: false,
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
            train_loader.steps_per_epoch(),
        )?;
        Ok(Self {
            config,
            dataset,
            model,
            store,
            method,
            optimizer,
            schedule,
            train_loader,
            test_loader,
            device,
            epochs_done: 0,
            start,
        })
    }

    /// The resolved configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The data.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Gives the error of weights that a run at its beginning needs and that could not be had.
    fn require_start(&mut self) -> Result<()> {
        self.start = Ok(std::mem::replace(&mut self.start, Ok(None))?);
        Ok(())
    }

    /// What became of the weights that the run starts from, and a word where they want other data: lines for the user. None where it
    /// starts from random values.
    pub fn start_notices(&self) -> Vec<String> {
        let Ok(Some(start)) = &self.start else {
            return Vec::new();
        };
        let data = &self.dataset;
        let other = start.other_normalisation(&data.mean, &data.std);
        [Some(start.to_string()), other]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Takes up the newest whole checkpoint of `run`; without one the run begins anew.
    ///
    /// # Errors
    /// When a checkpoint cannot be read or does not fit the network.
    pub fn resume(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<()> {
        let (checkpoint, passed_over) = run.newest_checkpoint(&self.device)?;
        for damaged in passed_over {
            observer.notice(&format!("passed over a checkpoint: {damaged}"));
        }
        match checkpoint {
            Some(checkpoint) => {
                self.store.load(&checkpoint.tensors, Strictness::Exact)?;
                self.optimizer.load_state(&checkpoint.velocities)?;
                self.method.load_state(&checkpoint.method)?;
                self.epochs_done = checkpoint.epochs_done;
            }
            None => observer.notice("no whole checkpoint found: the run begins anew"),
        }
        Ok(())
    }

    /// Trains to the last epoch. After each: evaluation of every head, a line of metrics, weights, a checkpoint.
    ///
    /// # Errors
    /// When an image cannot be read, a loss is not finite, or a file cannot be written; what was written before stays.
    pub fn run(&mut self, run: &RunDir, observer: &mut dyn Observer) -> Result<Report> {
        let mut records = run.records(self.epochs_done)?;
        observer.started(&RunStart {
            dir: run.path(),
            first_epoch: self.epochs_done,
            epochs: self.config.run.epochs,
            steps: self.train_loader.steps_per_epoch(),
            batch: self.config.run.batch,
        });
        if self.epochs_done == 0 {
            self.require_start()?;
            let notices = self.start_notices();
            notices.iter().for_each(|text| observer.notice(text));
        }
        for epoch in self.epochs_done..self.config.run.epochs {
            let started = Instant::now();
            let mut meter = Meter::default();
            let mut lr = 0.0;
            for batch in self.train_loader.epoch(epoch as u64) {
                let batch = to_device(batch?, epoch, &self.device)?;
                lr = self.schedule.lr(epoch, batch.step);
                let reading = self.update(&batch, lr)?;
                if let Some((term, value)) = reading.not_finite() {
                    return Err(not_finite(term, value, &batch, run));
                }
                meter.add(&reading);
                observer.step(&StepEvent {
                    epoch,
                    step: batch.step,
                    loss: meter.loss(),
                    terms: &reading.terms,
                    samples_per_s: meter.samples() as f64 / started.elapsed().as_secs_f64(),
                });
            }
            let samples_per_s = meter.samples() as f64 / started.elapsed().as_secs_f64();
            let heads = evaluate(
                |images| self.method.heads(images),
                &self.test_loader,
                &self.device,
            )?;
            self.check_finite(&heads, epoch, run)?;
            let backbone = &heads[0];
            let record = EpochRecord {
                epoch: epoch + 1,
                lr,
                loss: meter.loss(),
                terms: meter.terms(),
                train_top1: meter.train_top1(),
                top1: backbone.top1,
                top5: backbone.top5,
                test_loss: backbone.loss,
                samples_per_s,
                seconds: started.elapsed().as_secs_f64(),
                heads,
            };
            self.epochs_done = epoch + 1;
            run.append(&record)?;
            weights::save(&run.weights(), &self.store.tensors(), &self.metadata())?;
            run.save_checkpoint(&self.checkpoint()?, self.config.run.keep_checkpoints)?;
            observer.epoch(&record);
            records.push(record);
        }
        let report = self.report(&records, run)?;
        run.write_report(&report)?;
        observer.finished(&report);
        Ok(report)
    }

    /// One step: the method's loss, its gradients, the optimiser's update. A loss that is not finite updates nothing.
    pub(crate) fn update(&mut self, batch: &TrainBatch, lr: f64) -> Result<StepReading> {
        let output = self.method.step(batch)?;
        let reading = StepReading::of(&output)?;
        if reading.not_finite().is_none() {
            let gradients = output.loss.backward()?;
            self.optimizer.step(&gradients, lr)?;
        }
        Ok(reading)
    }

    /// Refuses to call an epoch done whose last update broke the network, so that no checkpoint is ever written of it.
    fn check_finite(&self, heads: &[HeadScore], epoch: usize, run: &RunDir) -> Result<()> {
        let loss = heads.iter().find(|head| !head.loss.is_finite());
        let broken = match loss {
            Some(head) => Some((format!("test loss of {}", head.name), head.loss)),
            None => self.first_not_finite()?,
        };
        let Some((term, value)) = broken else {
            return Ok(());
        };
        Err(Error::NotFinite {
            term,
            value,
            epoch: epoch + 1,
            step: self.train_loader.steps_per_epoch(),
            checkpoint: run.newest_checkpoint_path(),
        })
    }

    /// The first tensor of network or optimiser, in name order, that holds a value which is not finite.
    fn first_not_finite(&self) -> Result<Option<(String, f64)>> {
        for (name, tensor) in self
            .store
            .tensors()
            .into_iter()
            .chain(self.optimizer.state())
        {
            // A sum of finite magnitudes could only overflow where the values are as good as broken.
            let sum = tensor
                .abs()?
                .sum_all()?
                .to_dtype(DType::F64)?
                .to_scalar::<f64>()?;
            if !sum.is_finite() {
                return Ok(Some((name, sum)));
            }
        }
        Ok(None)
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(Checkpoint {
            epochs_done: self.epochs_done,
            tensors: self.store.tensors(),
            velocities: self.optimizer.state(),
            method: self.method.state()?,
        })
    }

    /// What a prediction needs to know besides the tensors.
    fn metadata(&self) -> Metadata {
        let input = self.model.input;
        let shorter = match self.dataset.preset() {
            Preset::Cifar => input,
            Preset::ImageNet => input * 8 / 7,
        };
        Metadata {
            classes: self.dataset.classes.clone(),
            mean: self.dataset.mean.clone(),
            std: self.dataset.std.clone(),
            resize: Resize::CentreCrop { shorter },
            extra: BTreeMap::from([("method".into(), self.config.method.name().into())]),
            ..Metadata::new(self.model.clone())
        }
    }

    fn report(&self, records: &[EpochRecord], run: &RunDir) -> Result<Report> {
        let found = (
            records.last(),
            best(records, |head| head.name == BACKBONE),
            best(records, |_| true),
        );
        let (Some(last), Some(best_backbone), Some(best_head)) = found else {
            return Err(Error::config(
                "run.epochs",
                "the run has no finished epoch to report",
            ));
        };
        let training_seconds: f64 = records
            .iter()
            .map(|r| self.samples_per_epoch() as f64 / r.samples_per_s.max(f64::MIN_POSITIVE))
            .sum();
        Ok(Report {
            method: self.config.method.name().into(),
            model: self.model.name.clone(),
            width: self.model.width,
            data: self.dataset.name.clone(),
            classes: self.dataset.classes.len(),
            epochs: records.len(),
            seed: self.config.run.seed,
            top1: last.top1,
            top5: last.top5,
            test_loss: last.test_loss,
            heads: last.heads.clone(),
            best_backbone,
            best_head,
            parameters_kept: self.store.count(BACKBONE),
            parameters_training: self.store.count(""),
            seconds: records.iter().map(|record| record.seconds).sum(),
            samples_per_s: (records.len() * self.samples_per_epoch()) as f64 / training_seconds,
            peak_memory_bytes: crate::machine::peak_resident_bytes(),
            dir: run.path().to_path_buf(),
            weights: run.weights(),
        })
    }

    fn samples_per_epoch(&self) -> usize {
        self.train_loader.steps_per_epoch() * self.config.run.batch
    }
}

pub(crate) fn to_device(batch: Batch, epoch: usize, device: &Device) -> Result<TrainBatch> {
    Ok(TrainBatch {
        images: batch.images.to_device(device)?,
        labels: Tensor::new(batch.labels, device)?,
        indices: batch.indices,
        epoch,
        step: batch.step as usize,
    })
}

fn not_finite(term: &str, value: f64, batch: &TrainBatch, run: &RunDir) -> Error {
    Error::NotFinite {
        term: term.into(),
        value,
        epoch: batch.epoch + 1,
        step: batch.step + 1,
        checkpoint: run.newest_checkpoint_path(),
    }
}
