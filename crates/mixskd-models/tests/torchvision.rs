//! Weights on their way to and from the real torchvision. Needs Python, so it runs only when asked to:
//! `MIXSKD_PYTORCH_TESTS=1 MIXSKD_PYTHON=/path/to/python cargo test -p mixskd-models --test torchvision`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::ffi::OsStr;
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use common::{check_close, images, values};
use mixskd_models::weights::{self, Metadata};
use mixskd_models::{Mode, ModelConfig, ParamStore, Strictness, registry};

fn wanted() -> bool {
    env::var_os("MIXSKD_PYTORCH_TESTS").is_some()
}

/// torchvision's networks: those not for small images.
fn networks() -> impl Iterator<Item = &'static str> {
    let names = registry::ALL.iter().map(|spec| spec.name);
    names.filter(|name| !name.starts_with("cifar_"))
}

fn python(script: &str, arguments: &[&OsStr]) -> String {
    let python = env::var("MIXSKD_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torchvision");
    let run = Command::new(&python)
        .arg(format!("{folder}/{script}"))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{complaint}");
    said
}

/// Our weights load there with `strict=True`, and the logits agree.
#[test]
fn every_network_loads_strictly_and_says_the_same() {
    if !wanted() {
        return;
    }
    for name in networks() {
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
        let logits = backbone.forward(&x, Mode::Eval).unwrap();
        weights::save(&file, &store.tensors(), &Metadata::new(config)).unwrap();
        let pair = HashMap::from([("x", x), ("logits", logits)]);
        candle_core::safetensors::save(&pair, &expected).unwrap();
        let said = python("strict.py", &[file.as_os_str(), expected.as_os_str()]);
        println!("{said}");
    }
}

/// Their weights load here without a name missing or left over; logits agree to 1e-4 of the largest.
#[test]
fn every_network_takes_torchvisions_weights() {
    if !wanted() {
        return;
    }
    for name in networks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        let expected = folder.path().join("expected.safetensors");
        python(
            "reference.py",
            &[name.as_ref(), file.as_os_str(), expected.as_os_str()],
        );
        let load = |path| candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let tensors: BTreeMap<String, Tensor> = load(&file).into_iter().collect();
        let expected = load(&expected);

        let config = ModelConfig::new(name, 1000).unwrap();
        let store = ParamStore::blank(DType::F32, &Device::Cpu);
        let backbone = config.build(store.builder()).unwrap();
        store.load(&tensors, Strictness::Exact).unwrap();
        let logits = backbone.forward(&expected["x"], Mode::Eval).unwrap();
        check_close(name, &logits, &expected["logits"], 1e-4);

        if ["resnet18", "resnet50", "mobilenet_v2", "densenet121"].contains(&name) {
            check_gradients(name, &config, &tensors, &expected);
        }
    }
}

/// The gradient of every parameter agrees to 1e-3 of its length. In float64 on both sides: rounding that flips a ReLU moves a single
/// gradient by more than that in float32.
fn check_gradients(
    name: &str,
    config: &ModelConfig,
    tensors: &BTreeMap<String, Tensor>,
    expected: &HashMap<String, Tensor>,
) {
    let store = ParamStore::blank(DType::F64, &Device::Cpu);
    let backbone = config.build(store.builder()).unwrap();
    store.load(tensors, Strictness::Exact).unwrap();
    let wide = |name: &str| expected[name].to_dtype(DType::F64).unwrap();
    let trained = backbone.forward(&wide("x"), Mode::Train).unwrap();
    let loss = (trained * wide("direction")).unwrap();
    let gradients = loss.sum_all().unwrap().backward().unwrap();
    let size = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    // What a batch norm takes away again has no gradient but rounding's.
    let sizes = expected
        .iter()
        .filter(|(name, _)| name.starts_with("grad."))
        .map(|(_, gradient)| size(&values(gradient)));
    let least = 1e-9 * sizes.fold(0.0, f64::max);
    let mut worst = (0.0, String::new());
    for (parameter, var) in store.parameters() {
        let got = values(gradients.get(var.as_tensor()).unwrap());
        let want = values(&expected[&format!("grad.{parameter}")]);
        let apart: Vec<f64> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
        let error = size(&apart) / size(&want).max(least);
        if error > worst.0 || error.is_nan() {
            worst = (error, parameter);
        }
    }
    println!("{name}: gradients within {:.1e} ({})", worst.0, worst.1);
    assert!(worst.0 < 1e-3, "{name}: {} off by {}", worst.1, worst.0);
}
