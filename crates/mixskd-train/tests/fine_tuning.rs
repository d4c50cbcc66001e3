//! Runs that start from weights of a file: what is taken, what moves and how far, and that they resume.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use common::{config, write_set};
use mixskd_models::weights::{self, Metadata};
use mixskd_models::{Mode, ModelConfig, ParamStore};
use mixskd_train::{RunDir, TrainConfig, Trainer};

type Bytes = BTreeMap<String, Vec<u8>>;

fn tensors(file: &Path) -> Bytes {
    let data = fs::read(file).unwrap();
    let file = safetensors::SafeTensors::deserialize(&data).unwrap();
    let named = file.iter();
    named
        .map(|(name, view)| (name.to_string(), view.data().to_vec()))
        .collect()
}

/// The weights that a run of `config` leaves.
fn train(config: &TrainConfig, out: &Path) -> Bytes {
    let mut trainer = Trainer::new(config).unwrap();
    let run = RunDir::create(out, trainer.config()).unwrap();
    trainer.run(&run, &mut ()).unwrap();
    tensors(&run.weights())
}

/// A set of three classes and, beside it, weights of a network for `classes`, its running statistics far from where they start.
fn prepare(dir: &Path, classes: usize) -> PathBuf {
    write_set(dir, 24, 6);
    let model = ModelConfig {
        width: 0.03125,
        ..ModelConfig::new("cifar_resnet18", classes).unwrap()
    };
    let store = ParamStore::new(99, DType::F32, &Device::Cpu);
    let backbone = model.build(store.builder()).unwrap();
    let x = candle_core::Tensor::arange(0f32, 3072.0, &Device::Cpu).unwrap();
    let x = (x.reshape((4, 16, 16, 3)).unwrap() / 1000.0).unwrap();
    backbone.stages(&x, Mode::Train).unwrap();
    let file = dir.join("start.safetensors");
    weights::save(&file, &store.tensors(), &Metadata::usual(model)).unwrap();
    file
}

fn from(file: &Path, dir: &Path, method: &str, epochs: usize) -> TrainConfig {
    let mut config = config(dir, method, epochs);
    config.init.weights = Some(file.into());
    config
}

fn is_head(name: &str) -> bool {
    name.starts_with("fc.")
}

#[test]
fn a_frozen_backbone_stays_bit_for_bit_and_the_head_learns() {
    for method in ["ce", "mixskd", "virtual-softmax", "manifold-mixup", "frskd"] {
        let dir = tempfile::tempdir().unwrap();
        let file = prepare(dir.path(), 3);
        let mut config = from(&file, dir.path(), method, 2);
        config.init.freeze_backbone = true;
        let (before, after) = (tensors(&file), train(&config, &dir.path().join("run")));
        for (name, bytes) in before.iter().filter(|(name, _)| !is_head(name)) {
            assert!(after[name] == *bytes, "{method}: {name} moved");
        }
        assert!(after["fc.weight"] != before["fc.weight"], "{method}");
    }
}

#[test]
fn without_freezing_everything_moves_from_where_the_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = prepare(dir.path(), 3);
    let mut config = from(&file, dir.path(), "ce", 1);
    let before = tensors(&file);
    let after = train(&config, &dir.path().join("run"));
    for name in [
        "conv1.weight",
        "bn1.running_mean",
        "layer4.1.bn2.bias",
        "fc.bias",
    ] {
        assert!(after[name] != before[name], "{name}");
    }
    // So small a step is rounded away: what is left is where the run began.
    config.optimizer.lr = 1e-30;
    config.init.head_lr_factor = 1.0;
    let after = train(&config, &dir.path().join("still"));
    for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with("weight")) {
        assert!(after[name] == *bytes, "{name}");
    }
}

#[test]
fn a_head_of_another_number_of_classes_is_dropped_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = prepare(dir.path(), 7);
    let trainer = Trainer::new(&from(&file, dir.path(), "mixskd", 1)).unwrap();
    let said = trainer.start_notices();
    assert!(
        said[0].contains("class head of 7 classes dropped"),
        "{said:?}"
    );
    assert!(said[0].contains("start.safetensors"), "{said:?}");
    let fresh = Trainer::new(&config(dir.path(), "mixskd", 1)).unwrap();
    assert_eq!(fresh.start_notices(), [""; 0]);
}

#[test]
fn data_normalised_otherwise_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = prepare(dir.path(), 3);
    let (held, mut metadata) = weights::load(&file).unwrap();
    metadata.mean = vec![0.25; 3];
    weights::save(&file, &held, &metadata).unwrap();
    let trainer = Trainer::new(&from(&file, dir.path(), "ce", 1)).unwrap();
    let said = trainer.start_notices();
    assert!(said[1].contains("mean [0.25, 0.25, 0.25]"), "{said:?}");
}

/// One step, so that both runs see the same gradients: a factor of 2 at a rate is the step of twice the rate, to the bit.
#[test]
fn the_head_learns_at_exactly_its_factor_times_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let file = prepare(dir.path(), 3);
    let run = |name: &str, lr: f64, factor: f64| {
        let mut config = from(&file, dir.path(), "mixskd", 1);
        config.run.batch = 24;
        config.optimizer.lr = lr;
        config.init.head_lr_factor = factor;
        train(&config, &dir.path().join(name));
        tensors(
            &dir.path()
                .join(name)
                .join("checkpoints/epoch-0001.safetensors"),
        )
    };
    let (once, twice, factor) = (run("a", 0.25, 1.0), run("b", 0.5, 1.0), run("c", 0.25, 2.0));
    let (mut slow, mut fast) = (0, 0);
    for (name, bytes) in &factor {
        let Some(parameter) = name.strip_prefix("model/") else {
            continue;
        };
        if parameter.ends_with("running_mean") || parameter.ends_with("running_var") {
            continue;
        }
        let body = parameter
            .strip_prefix("backbone.")
            .is_some_and(|rest| !is_head(rest));
        let expected = if body { &once } else { &twice };
        assert!(expected[name] == *bytes, "{name}");
        *(if body { &mut slow } else { &mut fast }) += usize::from(once[name] != twice[name]);
    }
    assert!(slow > 20 && fast > 20, "{slow} and {fast} parameters moved");
}

#[test]
fn a_run_resumes_with_the_same_bits_though_the_file_be_gone() {
    for freeze in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let file = prepare(dir.path(), 7);
        let mut config = from(&file, dir.path(), "mixskd", 3);
        config.init.freeze_backbone = freeze;
        config.init.head_lr_factor = 4.0;
        config.run.keep_checkpoints = 3;
        let straight = dir.path().join("straight");
        let expected = train(&config, &straight);

        // What a crash in the second epoch leaves.
        let broken = dir.path().join("broken");
        fs::create_dir_all(broken.join("checkpoints")).unwrap();
        for name in [
            "config.toml",
            "metrics.jsonl",
            "checkpoints/epoch-0001.safetensors",
        ] {
            fs::copy(straight.join(name), broken.join(name)).unwrap();
        }
        fs::remove_file(&file).unwrap();
        let (run, config) = RunDir::open(&broken).unwrap();
        assert_eq!(config.init.head_lr_factor, 4.0);
        let mut trainer = Trainer::for_resume(&config).unwrap();
        trainer.resume(&run, &mut ()).unwrap();
        trainer.run(&run, &mut ()).unwrap();
        assert!(tensors(&run.weights()) == expected, "frozen: {freeze}");

        // Without a checkpoint the file is wanted again, however often one asks, and what is there stays there.
        fs::remove_dir_all(broken.join("checkpoints")).unwrap();
        fs::create_dir(broken.join("checkpoints")).unwrap();
        fs::remove_file(broken.join("report.json")).unwrap();
        let mut trainer = Trainer::for_resume(&config).unwrap();
        for _ in 0..2 {
            let error = trainer.resume(&run, &mut ()).unwrap_err();
            assert!(error.to_string().contains("no such file"), "{error}");
        }
        assert!(tensors(&run.weights()) == expected);
        drop(run);
        let run = RunDir::create(&dir.path().join("anew"), trainer.config()).unwrap();
        for _ in 0..2 {
            let error = trainer.run(&run, &mut ()).unwrap_err();
            assert!(error.to_string().contains("no such file"), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_started_from_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = prepare(dir.path(), 3);
    let check = |change: fn(&mut TrainConfig), wanted: &[&str]| {
        let mut config = from(&file, dir.path(), "ce", 1);
        change(&mut config);
        let Err(error) = Trainer::new(&config) else {
            panic!("{wanted:?}: accepted")
        };
        let text = format!("{}; {}", error.cause(), error.hint().unwrap_or_default());
        assert!(error.is_usage(), "{text}");
        for part in wanted {
            assert!(text.contains(part), "`{text}` lacks `{part}`");
        }
    };
    check(
        |c| c.init.weights = Some("none.pth".into()),
        &["init.weights", "none.pth"],
    );
    check(
        |c| c.model.width = 0.0625,
        &[
            "of another shape",
            "conv1.weight",
            "--model cifar_resnet18 --width 0.03125",
        ],
    );
    check(
        |c| {
            c.init.weights = None;
            c.init.freeze_backbone = true;
        },
        &["init.freeze_backbone", "--init"],
    );
}
