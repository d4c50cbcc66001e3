//! A small learnable set in CIFAR-100's binary layout, and a configuration that trains on it in a blink.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::collections::BTreeMap;
use std::path::Path;

use mixskd_train::method::MethodConfig;
use mixskd_train::{EpochRecord, Report, RunDir, TrainConfig, Trainer};

/// Writes `train` and `test` images of three classes: each class has its own colour, each image its own pattern.
pub(crate) fn write_set(dir: &Path, train: usize, test: usize) {
    for (name, count) in [("train.bin", train), ("test.bin", test)] {
        let mut data = Vec::new();
        for k in 0..count {
            let class = k % 3;
            data.extend([0, class as u8]);
            for channel in 0..3 {
                for pixel in 0..1024 {
                    let bright = if channel == class { 120 } else { 20 };
                    data.push((bright + (pixel * 7 + k * 13 + channel * 5) % 90) as u8);
                }
            }
        }
        std::fs::write(dir.join(name), data).unwrap();
    }
    std::fs::write(dir.join("fine_label_names.txt"), "red\ngreen\nblue\n").unwrap();
    std::fs::write(dir.join("coarse_label_names.txt"), "colour\n").unwrap();
}

/// A tiny network for `epochs` epochs of `method` on the set in `dir`.
pub(crate) fn config(dir: &Path, method: &str, epochs: usize) -> TrainConfig {
    let mut config = TrainConfig::default();
    config.data.source = dir.display().to_string();
    config.model.width = 0.03125;
    config.method = MethodConfig::new(method).unwrap();
    config.optimizer.lr = 0.02;
    config.run.epochs = epochs;
    config.run.batch = 8;
    config.run.image_size = 16;
    config.run.eval_batch = 5;
    config.schedule.warmup_epochs = 0;
    config
}

/// A run in a new directory.
pub(crate) fn begin(config: &TrainConfig, out: &Path) -> (Trainer, RunDir) {
    let trainer = Trainer::new(config).unwrap();
    let run = RunDir::create(out, trainer.config()).unwrap();
    (trainer, run)
}

/// Trains into a new directory.
pub(crate) fn train(config: &TrainConfig, out: &Path) -> Report {
    let (mut trainer, run) = begin(config, out);
    trainer.run(&run, &mut ()).unwrap()
}

/// The records of a run without their times and their memory.
pub(crate) fn timeless(out: &Path) -> Vec<EpochRecord> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| EpochRecord {
            seconds: 0.0,
            samples_per_s: 0.0,
            peak_memory_bytes: None,
            gpu_memory_bytes: None,
            ..serde_json::from_str(line).unwrap()
        })
        .collect()
}

/// Every tensor of the weights file.
pub(crate) fn weights(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let data = std::fs::read(out.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&data).unwrap();
    file.iter()
        .map(|(name, view)| (name.to_string(), view.data().to_vec()))
        .collect()
}

/// Keeps what a run has to say.
pub(crate) struct Notices(pub(crate) Vec<String>);

impl mixskd_train::Observer for Notices {
    fn notice(&mut self, text: &str) {
        self.0.push(text.into());
    }
}
