//! Two and three trainers that meet over the loopback interface, each on a thread of its own.

use std::net::TcpListener;
use std::path::Path;

use candle_core::DType;
use mixskd_models::Backbone;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::method::{Method, MethodConfig, StepOutput, TrainBatch};
use crate::{Observer, OnNan, Report, RunDir, StepEvent, TrainConfig, Trainer};

/// A tiny network on a few batches of the shipped images.
fn config(method: &str) -> TrainConfig {
    let mut config = TrainConfig::default();
    config.model.width = 0.03125;
    config.method = MethodConfig::new(method).unwrap();
    config.run.batch = 8;
    config.run.eval_batch = 20;
    config.run.epochs = 2;
    config.run.max_batches = 3;
    config.run.image_size = 16;
    config.schedule.warmup_epochs = 0;
    config.distribution.enabled = true;
    config.distribution.timeout_s = 20.0;
    config
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn places(world: usize) -> Vec<Place> {
    let port = free_port();
    let place = |rank| Place {
        rank,
        world,
        local_rank: rank,
        port,
        ..Place::alone()
    };
    (0..world).map(place).collect()
}

fn trainer(config: &TrainConfig, place: &Place) -> Trainer {
    Trainer::at(config, place.clone()).unwrap()
}

/// What a process ends with: its result, and its whole state as a checkpoint's bytes.
type End = (Result<Report>, Vec<u8>);

/// Runs `work` for each place on a thread of its own, with the run directory as that process knows it.
fn each<T: Send>(
    config: &TrainConfig,
    places: &[Place],
    out: &Path,
    work: impl Fn(&Place, &RunDir) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let spawn = |place: &'_ Place| {
            let place = place.clone();
            scope.spawn(move || {
                let run = match (place.is_first(), out.join("config.toml").is_file()) {
                    (true, true) => RunDir::open(out).unwrap().0,
                    (true, false) => RunDir::create(out, config).unwrap(),
                    (false, _) => RunDir::of_first(out),
                };
                work(&place, &run)
            })
        };
        let threads: Vec<_> = places.iter().map(spawn).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn state(trainer: &Trainer) -> Vec<u8> {
    let method = trainer.method().state().unwrap();
    trainer
        .checkpoint(method)
        .unwrap()
        .to_bytes(Path::new("memory"))
        .unwrap()
}

fn train(
    config: &TrainConfig,
    world: usize,
    out: &Path,
    prepare: impl Fn(&mut Trainer) -> Box<dyn Observer> + Sync,
) -> Vec<End> {
    each(config, &places(world), out, |place, run| {
        let mut trainer = trainer(config, place);
        let mut observer = prepare(&mut trainer);
        trainer.resume(run, &mut ()).unwrap();
        let result = trainer.run(run, observer.as_mut());
        (result, state(&trainer))
    })
}

fn quiet(_: &mut Trainer) -> Box<dyn Observer> {
    Box::new(())
}

fn check_alike(ends: &[End]) {
    for (rank, (result, state)) in ends.iter().enumerate() {
        let report = result.as_ref().unwrap();
        assert!(*state == ends[0].1, "rank {rank} holds another state");
        let first = ends[0].0.as_ref().unwrap();
        assert_eq!(report.heads, first.heads);
    }
}

fn errors(ends: &[End]) -> Vec<String> {
    let text = |(result, _): &End| result.as_ref().unwrap_err().to_string();
    ends.iter().map(text).collect()
}

/// Asks a run for something after a step, both from 0.
struct After {
    at: (usize, usize),
    ask: Box<dyn Fn()>,
}

impl Observer for After {
    fn step(&mut self, event: &StepEvent) {
        if (event.epoch, event.step) == self.at {
            (self.ask)();
        }
    }
}

/// A method that goes wrong at one place of an epoch.
struct Faulty {
    inner: Box<dyn Method>,
    at: usize,
    fault: fn(StepOutput) -> Result<StepOutput>,
}

impl Method for Faulty {
    fn backbone(&self) -> &dyn Backbone {
        self.inner.backbone()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let output = self.inner.step(batch)?;
        if batch.step == self.at {
            return (self.fault)(output);
        }
        Ok(output)
    }
}

/// Three processes; the second batch of the first goes wrong in the one at `rank`.
fn faulty(
    config: &TrainConfig,
    rank: usize,
    fault: fn(StepOutput) -> Result<StepOutput>,
) -> Vec<End> {
    let dir = tempfile::tempdir().unwrap();
    train(config, 3, &dir.path().join("run"), |trainer| {
        let inner = crate::method::spec("ce").unwrap();
        let inputs = crate::method::MethodInputs {
            config: &trainer.config.method,
            objective: &trainer.config.objective,
            model: &trainer.model,
            store: trainer.parameters(),
            seed: 0,
            epochs: 1,
            train_images: 0,
            freeze_backbone: false,
        };
        *trainer.learner.parts().0 = Box::new(Faulty {
            inner: (inner.build)(&inputs).unwrap(),
            at: 3 + rank,
            fault,
        });
        Box::new(())
    })
}

#[test]
fn one_process_with_the_switch_gives_the_bits_of_one_without() {
    let dir = tempfile::tempdir().unwrap();
    let run = |enabled, out: &str| {
        let mut config = config("mixskd");
        config.distribution.enabled = enabled;
        let ends = train(&config, 1, &dir.path().join(out), quiet);
        let read = |name: &str| std::fs::read(dir.path().join(out).join(name)).unwrap();
        (ends[0].1.clone(), read("model.safetensors"))
    };
    assert!(run(true, "with") == run(false, "without"));
}

#[test]
fn a_step_of_two_takes_the_mean_of_their_gradients() {
    let mut config = config("mixskd");
    config.run.epochs = 1;
    config.run.max_batches = 1;
    config.optimizer.clip_norm = 0.5;
    let dir = tempfile::tempdir().unwrap();
    let ends = train(&config, 2, &dir.path().join("run"), quiet);
    check_alike(&ends);
    let got = Checkpoint::from_bytes(&ends[0].1, Path::new("memory"), &Device::Cpu).unwrap();

    // By hand: each share's gradients on the same weights, their mean, one update.
    let mut losses = Vec::new();
    let mut both = Vec::new();
    let mut by_hand = None;
    for place in &places(2) {
        let mut trainer = trainer(&config, place);
        let batch = trainer.train_feed.epoch_from(0, 0, 1).next();
        let batch = batch.unwrap().unwrap();
        assert_eq!(batch.step as usize, place.rank);
        let batch = trainer.prepare(batch, 0).unwrap();
        let output = trainer.learner.parts().0.step(&batch).unwrap();
        losses.push(f64::from(output.loss.to_scalar::<f32>().unwrap()));
        let gradients = mixskd_kernels::backward(&output.loss).unwrap();
        both.push(trainer.learner.parts().1.optimizer.gradients(&gradients));
        by_hand.get_or_insert(trainer);
    }
    let mut by_hand = by_hand.unwrap();
    let means: Gradients = both[0]
        .iter()
        .map(|(name, one)| {
            (
                name.clone(),
                ((one + &both[1][name]).unwrap() / 2.0).unwrap(),
            )
        })
        .collect();
    let norm = means.values().map(|g| g.sqr().unwrap().sum_all().unwrap());
    let norm = norm
        .map(|s| f64::from(s.to_scalar::<f32>().unwrap()))
        .sum::<f64>()
        .sqrt();
    let factor = (0.5 / (norm + 1e-6)).min(1.0);
    assert!(factor < 1.0, "nothing is clipped");
    let means = means
        .into_iter()
        .map(|(name, g)| (name, (g * factor).unwrap()));
    let lr = config.optimizer.lr;
    by_hand
        .learner
        .parts()
        .1
        .optimizer
        .update(&means.collect(), lr)
        .unwrap();

    let mut moved = 0.0f32;
    let fresh = trainer(&config, &places(2)[0]);
    for (name, tensor) in by_hand.parameters().tensors() {
        let furthest = |other: &Tensor| {
            let difference = (&tensor - other)
                .unwrap()
                .abs()
                .unwrap()
                .to_dtype(DType::F32);
            let values = difference.unwrap().flatten_all().unwrap().to_vec1::<f32>();
            // In the total order NaN is above all numbers.
            values.unwrap().into_iter().max_by(f32::total_cmp).unwrap()
        };
        assert!(furthest(&got.tensors[&name]) < 1e-6, "{name}");
        moved = moved.max(furthest(&fresh.parameters().tensors()[&name]));
    }
    assert!(moved > 1e-3, "the step changed nothing");
    let text = std::fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    let mean = f64::midpoint(losses[0], losses[1]);
    assert!((record["loss"].as_f64().unwrap() - mean).abs() < 1e-6);
}

#[test]
fn every_process_ends_with_the_same_state_and_goes_on_from_anywhere_with_the_same_bits() {
    for (method, world, accumulate) in [("mixskd", 2, 1), ("ps-kd", 3, 2)] {
        let mut config = config(method);
        config.optimizer.accumulate = accumulate;
        config.optimizer.ema_decay = 0.9;
        let dir = tempfile::tempdir().unwrap();
        let straight = train(&config, world, &dir.path().join("straight"), quiet);
        check_alike(&straight);
        assert_eq!(straight[0].0.as_ref().unwrap().epochs, 2);

        // The last of them is asked to stop in the middle of the second epoch.
        let parted = dir.path().join("parted");
        let stop = |trainer: &mut Trainer| -> Box<dyn Observer> {
            let control = trainer.control();
            let last = trainer.place().rank + 1 == world;
            Box::new(After {
                at: (1, 0),
                ask: Box::new(move || {
                    if last {
                        control.stop();
                    }
                }),
            })
        };
        let stopped = train(&config, world, &parted, stop);
        for (end, _) in &stopped {
            let Err(Error::Stopped {
                epoch, step, dir, ..
            }) = end
            else {
                panic!("{:?}", end.as_ref().map(|_| ()));
            };
            assert_eq!((*epoch, *step), (2, accumulate));
            assert_eq!(dir, &parted);
        }
        let resumed = train(&config, world, &parted, quiet);
        check_alike(&resumed);
        assert!(resumed[0].1 == straight[0].1, "{method}");
        let read = |out: &str| std::fs::read(dir.path().join(out).join("model.safetensors"));
        assert!(read("parted").unwrap() == read("straight").unwrap());
        let (one, other) = (&resumed[0].0, &straight[0].0);
        assert_eq!(one.as_ref().unwrap().heads, other.as_ref().unwrap().heads);
    }
}

#[test]
fn what_a_method_remembers_is_everybodys() {
    let config = config("ps-kd");
    let dir = tempfile::tempdir().unwrap();
    let ends = train(&config, 3, &dir.path().join("run"), quiet);
    let end = Checkpoint::from_bytes(&ends[2].1, Path::new("memory"), &Device::Cpu).unwrap();
    let sums = end.method["predictions"].sum(1).unwrap();
    let seen = sums.to_vec1::<f32>().unwrap();
    let seen = seen.iter().filter(|&&sum| sum > 0.5).count();
    // Two epochs of three steps of three processes of eight images: fewer than that many, for some come twice.
    assert!(seen > 3 * 3 * 8 && seen <= 2 * 3 * 3 * 8, "{seen}");
}

#[test]
fn what_is_not_finite_in_one_process_stops_all_or_is_left_out_by_all() {
    let nan = |mut output: StepOutput| {
        output.loss = (output.loss * f64::NAN)?;
        Ok(output)
    };
    let infinite = |mut output: StepOutput| {
        // The square root of nothing: 0 forward, infinite backward.
        let loss = &output.loss;
        output.loss = (loss + (loss - loss)?.sqrt()?)?;
        Ok(output)
    };
    let mut config = config("ce");
    for (fault, what) in [
        (nan as fn(StepOutput) -> Result<StepOutput>, "`loss`"),
        (infinite, "`gradient`"),
    ] {
        config.run.on_nan = OnNan::Stop;
        for rank in [0, 2] {
            for error in errors(&faulty(&config, rank, fault)) {
                assert!(error.starts_with(what), "{error}");
                assert!(error.contains("epoch 1, step 2"), "{error}");
            }
        }
        config.run.on_nan = OnNan::Skip;
        let ends = faulty(&config, 1, fault);
        check_alike(&ends);
        let end = Checkpoint::from_bytes(&ends[0].1, Path::new("memory"), &Device::Cpu).unwrap();
        assert_eq!(end.progress.skipped, 2);
    }
}

#[test]
fn an_error_in_one_process_ends_all() {
    let fail = |_| Err(Error::config("cats/1.png", "is damaged"));
    for rank in [0, 1] {
        let errors = errors(&faulty(&config("ce"), rank, fail));
        for (k, error) in errors.iter().enumerate() {
            if k == rank {
                assert_eq!(error, "cats/1.png: is damaged");
            } else {
                assert_eq!(
                    error,
                    &format!("rank {rank} failed: cats/1.png: is damaged")
                );
            }
        }
    }
}

#[test]
fn who_does_not_fit_is_refused_and_who_does_not_come_is_not_waited_for_for_ever() {
    let meet = |configs: &[TrainConfig], places: &[Place]| {
        let dir = tempfile::tempdir().unwrap();
        each(
            &configs[0],
            places,
            &dir.path().join("run"),
            |place, run| {
                let at = places.iter().position(|p| p == place).unwrap();
                let mut trainer = trainer(&configs[at.min(configs.len() - 1)], place);
                trainer.run(run, &mut ()).unwrap_err()
            },
        )
    };
    let mut other = config("ce");
    other.optimizer.lr = 0.25;
    let refused = meet(&[config("ce"), other], &places(2));
    let text = refused[0].to_string();
    assert!(
        text.contains("rank 1: was started with `lr = 0.25` where rank 0 has `lr = 0.05`"),
        "{text}"
    );
    assert!(refused[0].is_usage());
    assert!(
        refused[1]
            .to_string()
            .starts_with("rank 0 failed: rank 1: was started"),
        "{}",
        refused[1]
    );

    let mut impatient = config("ce");
    impatient.distribution.timeout_s = 1.0;
    let missing = meet(&[impatient.clone()], &places(3)[..2]);
    for error in &missing {
        let text = error.to_string();
        assert!(
            text.starts_with("rank 2 did not appear at 127.0.0.1:"),
            "{text}"
        );
        assert!(text.ends_with("within 1 s"), "{text}");
    }
    assert!(
        missing[0]
            .hint()
            .unwrap()
            .contains("distribution.timeout_s")
    );
    let alone = meet(&[impatient], &places(2)[1..]);
    assert!(
        alone[0].to_string().contains("rank 0 does not answer"),
        "{}",
        alone[0]
    );
}

#[test]
fn who_comes_late_to_a_meeting_that_has_failed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = config("ce");
    let mut other = config.clone();
    other.optimizer.lr = 0.25;
    let errors = |places: &[Place], name: &str| {
        each(&config, places, &dir.path().join(name), |place, run| {
            if place.rank == 2 {
                std::thread::sleep(Duration::from_millis(400));
            }
            let config = if place.rank == 1 { &other } else { &config };
            let mut trainer = trainer(config, place);
            trainer.run(run, &mut ()).unwrap_err().to_string()
        })
    };
    // Rank 1 has other settings, which its directory does not know, either: it holds none.
    let told = errors(&places(3), "refused");
    assert!(
        told[2].starts_with("rank 0 failed: rank 1: was started with"),
        "{}",
        told[2]
    );

    // The first does not come at all, and says so to both.
    let places = places(3);
    std::thread::scope(|scope| {
        let first = &places[0];
        scope.spawn(move || Meeting::decline(first, "no\nroom", Duration::from_secs(15)));
        let told = errors(&places[1..], "declined");
        assert_eq!(told, ["rank 0 failed: no room"; 2]);
    });
}

#[test]
fn a_batch_for_each_process_has_to_be_there() {
    let mut config = config("ce");
    config.run.batch = 4000;
    let error = Trainer::at(&config, places(2)[0].clone()).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("4000 for each of 2 processes is larger than"),
        "{text}"
    );
    config.distribution.enabled = false;
    let error = Trainer::at(&config, places(2)[0].clone()).err().unwrap();
    assert!(error.to_string().contains("is not distributed"), "{error}");
    config.distribution.enabled = true;
    config.distribution.processes = 3;
    let error = Trainer::at(&config, places(2)[0].clone()).err().unwrap();
    assert!(
        error.to_string().contains("made for 3, and there are 2"),
        "{error}"
    );
}
