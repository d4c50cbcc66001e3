//! Whether TensorBoard itself reads what is written for it. Needs Python with `tensorboard`, so it runs only when asked to:
//! `MIXSKD_PYTORCH_TESTS=1 MIXSKD_PYTHON=/path/to/python cargo test -p mixskd-report --test tensorboard`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use mixskd_report::tensorboard::EventFile;
use mixskd_train::{EpochRecord, HeadScore};

fn record(epoch: usize) -> EpochRecord {
    let head = |name: &str| HeadScore {
        name: name.into(),
        top1: 0.1 * epoch as f64,
        top5: 1.0,
        balanced: Some(0.25),
        loss: 0.5,
    };
    EpochRecord {
        epoch,
        lr: 0.1,
        loss: 2.5 / epoch as f64,
        terms: BTreeMap::from([("task_mix".into(), 2.0)]),
        train_top1: 0.5,
        top1: 0.75,
        top5: 1.0,
        test_loss: 0.5,
        heads: vec![head("backbone"), head("self-teacher")],
        samples_per_s: 300.0,
        seconds: 12.5,
        peak_memory_bytes: None,
        gpu_memory_bytes: None,
    }
}

#[test]
fn tensorboard_reads_every_value() {
    if env::var_os("MIXSKD_PYTORCH_TESTS").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(dir.path()).unwrap();
    (1..=3).for_each(|epoch| events.add(&record(epoch)).unwrap());

    let python = env::var("MIXSKD_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tensorboard/read.py");
    let run = Command::new(&python)
        .arg(script)
        .arg(dir.path())
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{complaint}");
    let found: BTreeMap<String, Vec<(usize, f64)>> = serde_json::from_slice(&run.stdout).unwrap();

    let tags: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        tags,
        [
            "balanced/backbone",
            "balanced/self-teacher",
            "loss/task_mix",
            "loss/total",
            "optimizer/lr",
            "speed/samples_per_s",
            "speed/seconds",
            "test_loss/backbone",
            "test_loss/self-teacher",
            "top1/backbone",
            "top1/self-teacher",
            "top1/train",
            "top5/backbone",
            "top5/self-teacher",
        ]
    );
    for (k, (step, value)) in found["loss/total"].iter().enumerate() {
        assert_eq!(*step, k + 1);
        assert!((value - 2.5 / (k + 1) as f64).abs() < 1e-6, "{value}");
    }
    assert_eq!(found["top1/self-teacher"].len(), 3);
}
