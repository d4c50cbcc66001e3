//! The written files in the real torchvision. Needs Python, so it runs only when asked to:
//! `MIXSKD_PYTORCH_TESTS=1 MIXSKD_PYTHON=/path/to/python cargo test -p mixskd-models --test torchvision`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashMap;
use std::env;
use std::process::Command;

use candle_core::{DType, Device};
use common::images;
use mixskd_models::weights::{self, Metadata};
use mixskd_models::{Mode, ModelConfig, ParamStore};

fn check(name: &str) {
    if env::var_os("MIXSKD_PYTORCH_TESTS").is_none() {
        return;
    }
    let python = env::var("MIXSKD_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let expected = folder.path().join("expected.safetensors");

    let store = ParamStore::new(1, DType::F32, &Device::Cpu);
    let config = ModelConfig::new(name, 1000).unwrap();
    let backbone = config.build(store.builder().pp("backbone")).unwrap();
    let x = images(2, 64, 3, DType::F32);
    // Twice, so that the running statistics are far from where they start.
    backbone.stages(&x, Mode::Train).unwrap();
    backbone.stages(&x, Mode::Train).unwrap();
    let stages = backbone.stages(&x, Mode::Eval).unwrap();
    let logits = backbone.head(stages.last().unwrap()).unwrap();
    weights::save(&file, &store.tensors(), &Metadata::new(config)).unwrap();
    let pair = HashMap::from([("x", x), ("logits", logits)]);
    candle_core::safetensors::save(&pair, &expected).unwrap();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torchvision/strict.py");
    let run = Command::new(&python)
        .arg(script)
        .args([&file, &expected])
        .output();
    let run = run.unwrap_or_else(|error| panic!("{python}: {error}"));
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    println!("{said}");
}

#[test]
fn resnet18_loads_strictly_and_says_the_same() {
    check("resnet18");
}

#[test]
fn resnet50_loads_strictly_and_says_the_same() {
    check("resnet50");
}
