//! A run that was interrupted anywhere and goes on ends with the bits of one that was not; and what can go wrong in between.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::path::Path;

use common::{Notices, config, timeless, train, weights, write_set};
use mixskd_train::{
    CheckpointEvery, Control, Error, Observer, OnNan, RunDir, StepEvent, TrainConfig, Trainer,
    method,
};

/// Stops the run, as a signal would, after a step of an epoch, both from 0.
struct StopAt {
    control: Control,
    epoch: usize,
    step: usize,
}

impl Observer for StopAt {
    fn step(&mut self, event: &StepEvent) {
        if (event.epoch, event.step) == (self.epoch, self.step) {
            self.control.stop();
        }
    }
}

/// Runs until it is stopped there; then goes on to the end.
fn interrupted(config: &TrainConfig, out: &Path, epoch: usize, step: usize) -> Error {
    let mut trainer = Trainer::new(config).unwrap();
    let run = RunDir::create(out, trainer.config()).unwrap();
    let control = trainer.control();
    let mut stopper = StopAt {
        control,
        epoch,
        step,
    };
    let error = trainer.run(&run, &mut stopper).unwrap_err();
    drop((trainer, run));
    go_on(out, &mut ());
    error
}

fn go_on(out: &Path, observer: &mut dyn Observer) {
    let (run, config) = RunDir::open(out).unwrap();
    let mut trainer = Trainer::new(&config).unwrap();
    trainer.resume(&run, observer).unwrap();
    trainer.run(&run, observer).unwrap();
}

/// Weights, metrics and everything in the last checkpoint agree.
fn check_same(a: &Path, b: &Path, what: &str) {
    assert_eq!(timeless(a), timeless(b), "{what}");
    assert_eq!(weights(a), weights(b), "{what}");
    let newest = |out: &Path| {
        let epochs = timeless(out).len();
        std::fs::read(out.join(format!("checkpoints/epoch-{epochs:04}.safetensors"))).unwrap()
    };
    assert!(
        newest(a) == newest(b),
        "{what}: the last checkpoints differ"
    );
}

#[test]
fn every_method_goes_on_from_the_middle_of_an_epoch_with_the_same_bits() {
    std::thread::scope(|scope| {
        for part in method::ALL.chunks(method::ALL.len().div_ceil(4)) {
            scope.spawn(move || {
                for spec in part {
                    let dir = tempfile::tempdir().unwrap();
                    write_set(dir.path(), 24, 6);
                    let mut config = config(dir.path(), spec.name, 2);
                    config.optimizer.clip_norm = 1.0;
                    config.optimizer.ema_decay = 0.9;
                    let straight = dir.path().join("straight");
                    train(&config, &straight);
                    let parted = dir.path().join("parted");
                    let error = interrupted(&config, &parted, 1, 1);
                    assert!(
                        matches!(
                            error,
                            Error::Stopped {
                                epoch: 2,
                                step: 2,
                                ..
                            }
                        ),
                        "{error}"
                    );
                    check_same(&straight, &parted, spec.name);
                }
            });
        }
    });
}

#[test]
fn every_place_will_do() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let mut config = config(dir.path(), "ps-kd", 2);
    config.optimizer.clip_norm = 0.5;
    config.optimizer.ema_decay = 0.9;
    let straight = dir.path().join("straight");
    train(&config, &straight);
    for (epoch, step) in [(0, 0), (0, 2), (1, 0)] {
        let parted = dir.path().join(format!("parted-{epoch}-{step}"));
        interrupted(&config, &parted, epoch, step);
        check_same(&straight, &parted, &format!("stopped at {epoch}, {step}"));
    }
    // In the middle of a group of batches, which is finished first.
    config.optimizer.accumulate = 2;
    let grouped = dir.path().join("grouped");
    train(&config, &grouped);
    assert_ne!(weights(&grouped), weights(&straight));
    let parted = dir.path().join("grouped-parted");
    let error = interrupted(&config, &parted, 1, 0);
    assert!(
        matches!(
            error,
            Error::Stopped {
                epoch: 2,
                step: 2,
                ..
            }
        ),
        "{error}"
    );
    check_same(&grouped, &parted, "accumulated");
}

#[test]
fn checkpoints_come_as_often_as_asked_and_the_last_few_stay() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let mut config = config(dir.path(), "ce", 2);
    let straight = dir.path().join("straight");
    train(&config, &straight);
    config.run.checkpoint_every = CheckpointEvery::Steps(2);
    config.run.keep_checkpoints = 3;
    let out = dir.path().join("often");
    train(&config, &out);
    assert_eq!(weights(&out), weights(&straight));
    let mut names: Vec<String> = std::fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let wanted = [
        "epoch-0001-step-000001.safetensors",
        "epoch-0001.safetensors",
        "epoch-0002.safetensors",
    ];
    assert_eq!(names, wanted);

    // The newest torn, then the one before it altered, too: the one before is used, and said so.
    let path = |name: &str| out.join("checkpoints").join(name);
    let whole = std::fs::read(path(wanted[2])).unwrap();
    std::fs::write(path(wanted[2]), &whole[..whole.len() / 2]).unwrap();
    let mut heard = Notices(Vec::new());
    go_on(&out, &mut heard);
    assert!(
        heard.0.len() == 1 && heard.0[0].contains(wanted[2]),
        "{:?}",
        heard.0
    );
    assert_eq!(weights(&out), weights(&straight));
    for name in [wanted[0], wanted[2]] {
        let mut altered = std::fs::read(path(name)).unwrap();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        std::fs::write(path(name), &altered).unwrap();
    }
    let mut heard = Notices(Vec::new());
    go_on(&out, &mut heard);
    assert_eq!(heard.0.len(), 2, "{:?}", heard.0);
    check_same(&straight, &out, "from the third newest");
}

#[test]
fn a_request_for_a_checkpoint_is_met_after_the_step() {
    struct Ask(Control);
    impl Observer for Ask {
        fn step(&mut self, event: &StepEvent) {
            if event.step == 1 {
                self.0.checkpoint();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let out = dir.path().join("run");
    let mut trainer = Trainer::new(&config(dir.path(), "ce", 1)).unwrap();
    let run = RunDir::create(&out, trainer.config()).unwrap();
    let mut ask = Ask(trainer.control());
    trainer.run(&run, &mut ask).unwrap();
    assert!(
        out.join("checkpoints/epoch-0000-step-000002.safetensors")
            .is_file()
    );
}

#[test]
fn steps_that_are_not_finite_are_left_out_as_often_as_allowed() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 48, 6);
    let mut config = config(dir.path(), "ce", 3);
    // The first update sends the weights away for good.
    config.optimizer.lr = 1e30;
    config.run.on_nan = OnNan::Skip;
    config.run.max_skips = 3;
    let mut trainer = Trainer::new(&config).unwrap();
    let run = RunDir::create(&dir.path().join("run"), trainer.config()).unwrap();
    let mut heard = Notices(Vec::new());
    let error = trainer.run(&run, &mut heard).unwrap_err();
    assert_eq!(heard.0.len(), 3, "{:?}", heard.0);
    assert!(heard.0[2].contains("3 of at most 3"), "{:?}", heard.0);
    let Error::NotFinite { layer, step, .. } = &error else {
        panic!("{error}")
    };
    assert!(layer.is_some() && *step == 5, "{error}");
}

// Elsewhere a directory whose files are open stays.
#[cfg(unix)]
#[test]
fn a_directory_that_goes_away_is_told() {
    struct Remove<'a>(&'a Path);
    impl Observer for Remove<'_> {
        fn step(&mut self, _: &StepEvent) {
            let _ = std::fs::remove_dir_all(self.0);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let out = dir.path().join("run");
    let mut trainer = Trainer::new(&config(dir.path(), "ce", 1)).unwrap();
    let run = RunDir::create(&out, trainer.config()).unwrap();
    let error = trainer.run(&run, &mut Remove(&out)).unwrap_err();
    assert!(matches!(error, Error::Gone { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--out") && !error.is_usage());
}

#[test]
fn what_a_dead_process_was_writing_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let out = dir.path().join("run");
    train(&config(dir.path(), "ce", 1), &out);
    let left = [
        out.join(".writing-abc"),
        out.join(".model.safetensors.17.tmp"),
        out.join("checkpoints/.writing-xyz"),
    ];
    for path in &left {
        std::fs::write(path, "half").unwrap();
    }
    RunDir::open(&out).unwrap();
    assert!(left.iter().all(|path| !path.exists()));
}
