//! A small real run.

use std::path::Path;

use mixskd_report::Recorder;
use mixskd_train::{Report, RunDir, TrainConfig, Trainer};

/// Trains in `dir` on the shipped images for an epoch of two batches, and evaluates on two.
pub(crate) fn train(dir: &Path, settings: &[&str], recorded: bool) -> Report {
    let mut config = TrainConfig::default();
    let small = [
        "model.width=0.03125",
        "run.epochs=1",
        "run.batch=50",
        "run.max_batches=2",
        "schedule.warmup_epochs=0",
    ];
    for setting in small.iter().chain(settings) {
        config = config.with(setting).unwrap();
    }
    let mut trainer = Trainer::new(&config).unwrap();
    let run = RunDir::create(dir, trainer.config()).unwrap();
    if recorded {
        let mut inner = ();
        let mut recorder = Recorder::new(&mut inner, "a test").with_pictures(&trainer);
        trainer.run(&run, &mut recorder).unwrap()
    } else {
        trainer.run(&run, &mut ()).unwrap()
    }
}
