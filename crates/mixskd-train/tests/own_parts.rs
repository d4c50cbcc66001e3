//! Parts of the caller's own in a trainer, and directories that are not its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::{config, write_set};
use mixskd_data::{BatchNeeds, DataConfig, Dataset, PackedSamples};
use mixskd_models::{Backbone, Mode};
use mixskd_train::method::{Method, MethodInputs, StepOutput, TrainBatch};
use mixskd_train::{Control, Error, RunDir, TrainConfig, Trainer, TrainerBuilder};

/// Cross-entropy.
struct Own(Box<dyn Backbone>);

impl Method for Own {
    fn backbone(&self) -> &dyn Backbone {
        self.0.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> mixskd_train::Result<StepOutput> {
        let logits = self.0.forward(&batch.images, Mode::Train)?;
        let task = mixskd_losses::cross_entropy(&logits, &batch.labels)?;
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }
}

fn own(inputs: &MethodInputs) -> mixskd_train::Result<Box<dyn Method>> {
    Ok(Box::new(Own(inputs.backbone()?)))
}

fn dataset(dir: &Path) -> Dataset {
    let config = DataConfig {
        source: dir.display().to_string(),
        ..DataConfig::default()
    };
    config.open().unwrap()
}

fn weights(run: &RunDir) -> Vec<u8> {
    let file = std::fs::read(run.weights()).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    names
        .iter()
        .flat_map(|name| tensors.tensor(name).unwrap().data().to_vec())
        .collect()
}

fn with_own_parts(config: &TrainConfig, dir: &Path) -> TrainerBuilder {
    Trainer::builder(config)
        .dataset(dataset(dir))
        .method("mine", BatchNeeds::Anchors, own)
}

/// The same, whose only head has a name of its own.
struct Nameless(Own);

impl Method for Nameless {
    fn backbone(&self) -> &dyn Backbone {
        self.0.backbone()
    }

    fn step(&mut self, batch: &TrainBatch) -> mixskd_train::Result<StepOutput> {
        self.0.step(batch)
    }

    fn heads(&self, images: &Tensor) -> mixskd_train::Result<Vec<(String, Tensor)>> {
        let logits = self.backbone().forward(images, Mode::Eval)?;
        Ok(vec![("network".into(), logits)])
    }
}

/// The same, which counts its steps in whole numbers.
struct Counting(Own);

impl Method for Counting {
    fn backbone(&self) -> &dyn Backbone {
        self.0.backbone()
    }

    fn step(&mut self, batch: &TrainBatch) -> mixskd_train::Result<StepOutput> {
        self.0.step(batch)
    }

    fn state(&self) -> mixskd_train::Result<BTreeMap<String, Tensor>> {
        let steps = Tensor::new(&[0u32], &Device::Cpu)?;
        Ok(BTreeMap::from([("steps".into(), steps)]))
    }
}

#[test]
fn a_state_that_no_checkpoint_could_hold_is_refused_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let counting = |inputs: &MethodInputs| -> mixskd_train::Result<Box<dyn Method>> {
        Ok(Box::new(Counting(Own(inputs.backbone()?))))
    };
    let built = Trainer::builder(&config(dir.path(), "ce", 1))
        .method("counting", BatchNeeds::Anchors, counting)
        .build();
    let Err(error) = built else {
        panic!("accepted");
    };
    assert!(error.to_string().contains("`steps`, is u32"), "{error}");
}

#[test]
fn the_first_head_is_the_backbone() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 2);
    let mut trainer = Trainer::builder(&config)
        .method("nameless", BatchNeeds::Anchors, |inputs: &MethodInputs| {
            Ok(Box::new(Nameless(Own(inputs.backbone()?))))
        })
        .build()
        .unwrap();
    let run = RunDir::create(&dir.path().join("run"), trainer.config()).unwrap();
    let error = trainer.run(&run, &mut ()).unwrap_err();
    assert!(
        error.to_string().contains("has to be `backbone`"),
        "{error}"
    );
    // Before anything was written of an epoch.
    assert!(!run.path().join("metrics.jsonl").exists() && !run.weights().exists());
}

#[test]
fn a_method_and_data_of_ones_own_train_as_the_same_ones_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let by_name = config(dir.path(), "ce", 2);
    let out = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(&by_name).unwrap();
    let known = RunDir::create(&out.path().join("known"), trainer.config()).unwrap();
    trainer.run(&known, &mut ()).unwrap();

    // Neither is what the configuration says.
    let mut config = config(dir.path(), "mixup", 2);
    config.data.source = "nowhere".into();
    let mut trainer = with_own_parts(&config, dir.path()).build().unwrap();
    let run = RunDir::create(&out.path().join("own"), trainer.config()).unwrap();
    let report = trainer.run(&run, &mut ()).unwrap();
    assert_eq!(report.method, "mine");
    assert!(weights(&run) == weights(&known));
    let (_, metadata) = mixskd_models::weights::load(&run.weights()).unwrap();
    assert_eq!(metadata.extra["method"], "mine");

    // Stopped and taken up by the program that knows the parts, and by nothing else.
    let control = Control::default();
    control.stop();
    let mut trainer = with_own_parts(&config, dir.path())
        .control(control.clone())
        .build()
        .unwrap();
    let stopped = RunDir::create(&out.path().join("stopped"), trainer.config()).unwrap();
    let ended = trainer.run(&stopped, &mut ());
    assert!(matches!(ended, Err(Error::Stopped { .. })));
    drop(trainer);
    drop(stopped);
    let (stopped, noted) = RunDir::open(&out.path().join("stopped")).unwrap();
    let error = Trainer::for_resume(&noted).err().unwrap();
    assert!(error.to_string().starts_with("own.method: "), "{error}");
    assert!(error.hint().unwrap().contains("Trainer::builder"));
    let mut other = noted.clone();
    other.own.data = Some("another".into());
    let error = with_own_parts(&other, dir.path()).build().err().unwrap();
    assert!(error.to_string().starts_with("own.data: "), "{error}");
    let mut trainer = with_own_parts(&noted, dir.path())
        .build_for_resume()
        .unwrap();
    trainer.resume(&stopped, &mut ()).unwrap();
    trainer.run(&stopped, &mut ()).unwrap();
    assert!(weights(&stopped) == weights(&known));
}

#[test]
fn data_of_ones_own_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 1);
    let mut labelled = dataset(dir.path());
    labelled.classes.truncate(2);
    let error = Trainer::builder(&config)
        .dataset(labelled)
        .build()
        .err()
        .unwrap();
    assert!(error.to_string().contains("out of range"), "{error}");
    let mut grey = dataset(dir.path());
    grey.channels = 1;
    let error = Trainer::builder(&config)
        .dataset(grey)
        .build()
        .err()
        .unwrap();
    assert!(error.to_string().contains("have 3 channels"), "{error}");
}

#[test]
fn a_stopped_trainer_goes_on_when_it_is_let() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 1);
    let out = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(&config).unwrap();
    let run = RunDir::create(&out.path().join("run"), trainer.config()).unwrap();
    let control = trainer.control();
    control.stop();
    assert!(matches!(
        trainer.run(&run, &mut ()),
        Err(Error::Stopped { .. })
    ));
    control.reset();
    trainer.run(&run, &mut ()).unwrap();
}

#[test]
fn other_pixels_under_the_same_labels_are_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("run");
    let config = config(dir.path(), "ce", 1);
    let trainer = |pixel: u8| {
        let mut dataset = dataset(dir.path());
        let packed = dataset.train.packed().unwrap();
        let mut pixels = packed.pixels().to_vec();
        pixels[7] = pixel;
        let (shape, labels) = (packed.shape(), packed.labels().to_vec());
        dataset.train = Arc::new(PackedSamples::new(shape, pixels, labels, "memory").unwrap());
        Trainer::builder(&config).dataset(dataset).build().unwrap()
    };
    let mut first = trainer(1);
    let run = RunDir::create(&path, first.config()).unwrap();
    first.control().stop();
    assert!(matches!(
        first.run(&run, &mut ()),
        Err(Error::Stopped { .. })
    ));
    drop((first, run));
    let (run, _) = RunDir::open(&path).unwrap();
    let error = trainer(2).resume(&run, &mut ()).unwrap_err();
    assert!(error.to_string().contains("other pixels"), "{error}");
    trainer(1).resume(&run, &mut ()).unwrap();
}

#[test]
fn another_runs_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let ce = config(dir.path(), "ce", 1);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("run");
    let mut trainer = Trainer::new(&ce).unwrap();
    let run = RunDir::create(&path, trainer.config()).unwrap();
    trainer.run(&run, &mut ()).unwrap();
    drop((trainer, run));
    let before = std::fs::read(path.join("model.safetensors")).unwrap();
    let refused = |config: &TrainConfig, cause: &str| {
        let (run, _) = RunDir::open(&path).unwrap();
        let mut trainer = Trainer::new(config).unwrap();
        let error = trainer.run(&run, &mut ()).unwrap_err();
        assert!(
            error.is_usage() && error.to_string().contains(cause),
            "{error}"
        );
        assert!(before == std::fs::read(path.join("model.safetensors")).unwrap());
    };
    // Opened, and not taken up.
    refused(&ce, "holds a run that was begun before");
    // Another run's, by a trainer that has begun its own.
    let mut trainer = Trainer::new(&ce).unwrap();
    let own = RunDir::create(&out.path().join("own"), trainer.config()).unwrap();
    trainer.run(&own, &mut ()).unwrap();
    let (begun, _) = RunDir::open(&path).unwrap();
    for run in [
        &begun,
        &RunDir::create(&out.path().join("fresh"), trainer.config()).unwrap(),
    ] {
        let error = trainer.run(run, &mut ()).unwrap_err().to_string();
        assert!(error.contains("is not the directory of the run"), "{error}");
    }
    let mut trainer = Trainer::new(&ce).unwrap();
    trainer.resume(&own, &mut ()).unwrap();
    assert!(trainer.run(&begun, &mut ()).is_err());
    assert!(before == std::fs::read(path.join("model.safetensors")).unwrap());
    drop(begun);
    // What was left to the data may have been left open.
    let mut open = ce.clone();
    open.run.image_size = 0;
    let mut trainer = Trainer::new(&open).unwrap();
    let run = RunDir::create(&out.path().join("open"), &open).unwrap();
    trainer.run(&run, &mut ()).unwrap();
    // A new directory of other settings.
    let other = config(dir.path(), "mixup", 1);
    let path = out.path().join("new");
    let mut trainer = Trainer::new(&ce).unwrap();
    let run = RunDir::create(&path, &other).unwrap();
    let error = trainer.run(&run, &mut ()).unwrap_err().to_string();
    assert!(error.contains("its config.toml has method."), "{error}");
    assert!(!path.join("metrics.jsonl").exists());
}
