//! Every method of the table, trained for real on a small set: learning, determinism, refusals.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use common::{Notices, begin, config, timeless, train, weights, write_set};
use mixskd_train::{
    Control, Error, Observer, RunDir, StepEvent, TestEvent, TrainConfig, Trainer, method,
};

#[test]
fn every_method_learns() {
    // Small networks keep one core busy at best.
    std::thread::scope(|scope| {
        for part in method::ALL.chunks(method::ALL.len().div_ceil(4)) {
            scope.spawn(|| part.iter().for_each(|spec| check_learning(spec.name)));
        }
    });
}

fn check_learning(method: &str) {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 48, 12);
    let out = dir.path().join("run");
    let mut config = config(dir.path(), method, 10);
    config.run.image_size = 32;
    let report = train(&config, &out);
    let records = timeless(&out);
    assert_eq!(records.len(), 10, "{method}");
    let (first, last) = (records[0].loss, records[9].loss);
    assert!(last < first, "{method}: {first} -> {last}");
    assert!(report.top1 > 0.6, "{method}: top-1 {}", report.top1);
    assert_eq!(report.heads[0].name, "backbone");
}

#[test]
fn the_same_seed_gives_the_same_bits_for_any_number_of_threads() {
    for spec in method::ALL {
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), 24, 6);
        let config = config(dir.path(), spec.name, 2);
        let outs = [1, 2, 3].map(|threads| {
            let out = dir.path().join(format!("run{threads}"));
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| train(&config, &out));
            out
        });
        for other in &outs[1..] {
            assert_eq!(timeless(&outs[0]), timeless(other), "{}", spec.name);
            assert_eq!(weights(&outs[0]), weights(other), "{}", spec.name);
        }
    }
}

/// Labels of test images as they are told of, with the place that each is said to have, and the class that the logits are largest for.
struct Tested(Vec<(usize, u32, usize)>);

impl Observer for Tested {
    fn tested(&mut self, event: &TestEvent) {
        let classes = event.logits.len() / event.labels.len();
        for (at, (row, &label)) in event.logits.chunks(classes).zip(event.labels).enumerate() {
            let largest = (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            self.0.push((event.first + at, label, largest.unwrap()));
        }
    }
}

#[test]
fn test_images_are_told_of_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    // Five batches, of which the last is not full.
    write_set(dir.path(), 48, 23);
    let mut config = config(dir.path(), "ce", 1);
    config.run.image_size = 32;
    let (mut trainer, run) = begin(&config, &dir.path().join("run"));
    let mut tested = Tested(Vec::new());
    let report = trainer.run(&run, &mut tested).unwrap();
    let told: Vec<_> = tested.0.iter().map(|&(at, label, _)| (at, label)).collect();
    let wanted: Vec<_> = (0..23).map(|k| (k, (k % 3) as u32)).collect();
    assert_eq!(told, wanted);
    let right = tested
        .0
        .iter()
        .filter(|(_, label, largest)| *label as usize == *largest);
    assert!((report.top1 - right.count() as f64 / 23.0).abs() < 1e-9);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_aloud() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 3);
    let out = dir.path().join("run");
    train(&config, &out);
    let expected = weights(&out);
    let newest = out.join("checkpoints/epoch-0003.safetensors");
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() / 2]).unwrap();

    let (run, config) = RunDir::open(&out).unwrap();
    let mut trainer = Trainer::new(&config).unwrap();
    let mut heard = Notices(Vec::new());
    trainer.resume(&run, &mut heard).unwrap();
    // It is not thrown away, nor is the result before the run goes on.
    let damaged = out.join("checkpoints/epoch-0003.safetensors.damaged");
    assert!(std::fs::read(damaged).unwrap() == whole[..whole.len() / 2]);
    assert!(out.join("report.json").exists());
    let mut stop = StopAtOnce(trainer.control(), out.join("report.json"));
    let stopped = trainer.run(&run, &mut stop).unwrap_err();
    assert!(matches!(stopped, Error::Stopped { .. }), "{stopped}");
    trainer.control().reset();
    trainer.run(&run, &mut heard).unwrap();
    assert!(
        heard.0.iter().any(|text| text.contains("epoch-0003")),
        "{:?}",
        heard.0
    );
    assert_eq!(weights(&out), expected);
}

/// Stops a run after its first step, by when the result of an end that is yet to come is not there.
struct StopAtOnce(Control, std::path::PathBuf);

impl Observer for StopAtOnce {
    fn step(&mut self, _: &StepEvent) {
        assert!(!self.1.exists());
        self.0.stop();
    }
}

#[test]
fn a_run_without_its_checkpoints_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 2);
    let out = dir.path().join("run");
    train(&config, &out);
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    let written = ["metrics.jsonl", "model.safetensors"].map(|name| (name, read(name)));
    let expected = weights(&out);
    for file in std::fs::read_dir(out.join("checkpoints")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }

    // Finished: there is nothing to go on with, and whoever does not ask does not overwrite it either.
    let (run, config) = RunDir::open(&out).unwrap();
    let mut trainer = Trainer::new(&config).unwrap();
    let error = trainer.resume(&run, &mut ()).unwrap_err();
    assert!(error.to_string().contains("finished run"), "{error}");
    assert!(error.hint().unwrap().contains("--config"));
    let error = trainer.run(&run, &mut ()).unwrap_err();
    assert!(error.to_string().contains("begun before"), "{error}");
    for (name, before) in &written {
        assert!(read(name) == *before, "{name}");
    }

    // Not finished: it begins anew, and what there was is kept.
    std::fs::remove_file(out.join("report.json")).unwrap();
    let error = trainer.run(&run, &mut ()).unwrap_err();
    assert!(error.to_string().contains("begun before"), "{error}");
    let mut heard = Notices(Vec::new());
    trainer.resume(&run, &mut heard).unwrap();
    assert!(heard.0[0].contains("earlier-1"), "{:?}", heard.0);
    trainer.run(&run, &mut ()).unwrap();
    for (name, before) in &written {
        assert!(read(&format!("earlier-1/{name}")) == *before, "{name}");
    }
    assert_eq!(weights(&out), expected);

    // Weights alone are something, too; what else lies here is nobody's business.
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    std::fs::rename(
        out.join("earlier-1/model.safetensors"),
        out.join("model.safetensors"),
    )
    .unwrap();
    for name in [
        "report.json",
        "metrics.jsonl",
        "checkpoints/epoch-0001.safetensors",
        "checkpoints/epoch-0002.safetensors",
    ] {
        std::fs::remove_file(out.join(name)).unwrap();
    }
    let mut again = Trainer::new(&config).unwrap();
    again.resume(&run, &mut ()).unwrap();
    assert!(out.join("earlier-2/model.safetensors").exists() && out.join("notes.txt").exists());
    // Other classes are other data.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    write_set(&other, 24, 6);
    std::fs::write(other.join("fine_label_names.txt"), "red\ngreen\npink\n").unwrap();
    std::fs::rename(
        out.join("earlier-2/model.safetensors"),
        out.join("model.safetensors"),
    )
    .unwrap();
    let mut elsewhere = config.clone();
    elsewhere.data.source = other.display().to_string();
    let mut stranger = Trainer::new(&elsewhere).unwrap();
    let error = stranger.resume(&run, &mut ()).unwrap_err();
    assert!(error.to_string().contains("other classes"), "{error}");
    again.resume(&run, &mut ()).unwrap();
    again.run(&run, &mut ()).unwrap();

    // A trainer that has gone on cannot go back to a beginning that is no longer there.
    for file in std::fs::read_dir(out.join("checkpoints")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    std::fs::remove_file(out.join("report.json")).unwrap();
    let error = trainer.resume(&run, &mut ()).unwrap_err();
    assert!(error.to_string().contains("past the beginning"), "{error}");
}

#[test]
fn settings_that_were_changed_are_told_and_lines_that_are_lost_too() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 2);
    let out = dir.path().join("run");
    train(&config, &out);
    let mut changed = config.clone();
    changed.run.epochs = 3;
    changed.run.prefetch = 2;
    std::fs::write(out.join("config.toml"), changed.to_toml().unwrap()).unwrap();
    let (run, changed) = RunDir::open(&out).unwrap();
    let mut trainer = Trainer::new(&changed).unwrap();
    let mut heard = Notices(Vec::new());
    trainer.resume(&run, &mut heard).unwrap();
    assert_eq!(heard.0.len(), 1, "{:?}", heard.0);
    assert!(
        heard.0[0].contains("run.epochs was 2, is 3"),
        "{:?}",
        heard.0
    );
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let first = lines.lines().next().unwrap();
    std::fs::write(out.join("metrics.jsonl"), format!("{first}\n")).unwrap();
    let error = trainer.run(&run, &mut ()).unwrap_err();
    assert!(
        !error.is_usage() && error.to_string().contains("holds 1 epochs"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("checkpoints/"));
}

#[test]
fn a_configuration_of_the_users_own_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("config.toml");
    std::fs::write(&own, "# mine\n[run]\nepochs = 3\n").unwrap();
    let error = RunDir::create(dir.path(), &TrainConfig::default()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert!(std::fs::read_to_string(&own).unwrap().starts_with("# mine"));
}

#[test]
fn a_loss_that_is_not_finite_names_its_term_and_keeps_the_checkpoint() {
    for batch in [8, 24] {
        // With one step an epoch, the loss before the step is still finite and only what it leaves behind is not.
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), 24, 6);
        let mut config = config(dir.path(), "mixskd", 1);
        config.run.batch = batch;
        let out = dir.path().join("run");
        train(&config, &out);
        let (good, records) = (weights(&out), timeless(&out));

        config.run.epochs = 3;
        config.optimizer.lr = 1e30;
        std::fs::write(out.join("config.toml"), config.to_toml().unwrap()).unwrap();
        let (run, config) = RunDir::open(&out).unwrap();
        let mut trainer = Trainer::new(&config).unwrap();
        trainer.resume(&run, &mut ()).unwrap();
        let error = trainer.run(&run, &mut ()).unwrap_err();
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("--lr") && hint.contains("epoch-0001"),
            "{hint}"
        );
        assert!(!error.is_usage());
        let Error::NotFinite {
            term,
            epoch,
            checkpoint,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert!(epoch == 2 && !term.is_empty(), "{term} at {epoch}");
        assert_eq!(
            checkpoint,
            Some(out.join("checkpoints/epoch-0001.safetensors"))
        );
        assert_eq!(weights(&out), good);
        assert_eq!(timeless(&out), records);
        // Of the weights that were not sound nothing is left.
        let mut files = std::fs::read_dir(&out).unwrap();
        assert!(files.all(|file| !file.unwrap().path().to_string_lossy().ends_with(".tmp")));

        let mut trainer = Trainer::new(&config).unwrap();
        let mut heard = Notices(Vec::new());
        trainer.resume(&run, &mut heard).unwrap();
        // No checkpoint is passed over; that the settings were changed above is told.
        assert_eq!(heard.0.len(), 2, "{:?}", heard.0);
        assert!(heard.0.iter().all(|text| text.contains("was changed")));
    }
}

#[test]
fn a_run_that_finished_no_epoch_leaves_room_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let mut config = config(dir.path(), "ce", 1);
    let out = dir.path().join("run");
    config.optimizer.lr = 1e30;
    let mut trainer = Trainer::new(&config).unwrap();
    let run = RunDir::create(&out, trainer.config()).unwrap();
    assert!(trainer.run(&run, &mut ()).is_err());
    drop(run);
    config.optimizer.lr = 0.02;
    train(&config, &out);
}

#[test]
fn a_run_directory_is_used_by_one_run() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let config = config(dir.path(), "ce", 1);
    let out = dir.path().join("run");
    let held = RunDir::create(&out, &config).unwrap();
    let taken = RunDir::open(&out).unwrap_err();
    assert!(taken.to_string().contains("another process"), "{taken}");
    drop(held);
    train(&config, &out);
    let again = RunDir::create(&out, &config).unwrap_err();
    assert!(again.hint().unwrap().contains("--resume"), "{again}");
}

#[test]
fn what_does_not_fit_the_data_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let check = |change: fn(&mut TrainConfig), wanted: &str| {
        let mut config = config(dir.path(), "ce", 1);
        change(&mut config);
        let Err(error) = Trainer::new(&config) else {
            panic!("{wanted}: accepted")
        };
        let text = format!("{}; {}", error.cause(), error.hint().unwrap_or_default());
        assert!(text.contains(wanted), "`{text}` lacks `{wanted}`");
    };
    check(|c| c.run.batch = 25, "larger than the training set of 24");
    check(|c| c.model.name = "cifar_resnet81".into(), "cifar_resnet18");
    check(|c| c.optimizer.lr = -1.0, "optimizer.lr");
    check(
        |c| {
            *c = c
                .with("method.name=mixup")
                .and_then(|c| c.with("method.alpha=0"))
                .unwrap();
        },
        "method.alpha",
    );
    check(|c| c.data.source = "/nonexistent".into(), "/nonexistent");
}

#[test]
fn a_plan_counts_and_measures() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let plan = Trainer::new(&config(dir.path(), "mixskd", 2))
        .unwrap()
        .plan()
        .unwrap();
    assert_eq!(plan.steps_per_epoch, 3);
    assert!(plan.parameters_training > 3 * plan.parameters_kept);
    assert!(plan.macs_per_step > 8 * 3 * plan.macs_per_image);
    assert!(plan.seconds_per_step > 0.0 && plan.memory_bytes > 0);
}
