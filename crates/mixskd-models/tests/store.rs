//! The parameter store: what it draws, lists, loads and refuses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use common::{images, small, values};
use mixskd_models::layers::{BatchNorm, Conv2d, ConvInit, Linear};
use mixskd_models::{Error, Misfit, Mode, ParamStore, Strictness};
use proptest::prelude::*;

fn store() -> ParamStore {
    ParamStore::new(11, DType::F32, &Device::Cpu)
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

#[test]
fn initial_values_have_torchvisions_distributions() {
    let store = store();
    let vb = store.builder();
    let config = mixskd_kernels::Conv2dConfig::default();
    Conv2d::new(64, 128, 3, config, ConvInit::FanOut, vb.pp("he")).unwrap();
    Conv2d::new(64, 128, 3, config, ConvInit::TorchDefault, vb.pp("default")).unwrap();
    Linear::new(400, 200, vb.pp("fc")).unwrap();
    BatchNorm::new(8, vb.pp("bn")).unwrap();
    let tensors = store.tensors();
    let values = |name: &str| values(&tensors[name]);

    let (mean, deviation) = moments(&values("he.weight"));
    let expected = (2.0f64 / (128.0 * 9.0)).sqrt();
    assert!(mean.abs() < 0.02 * expected, "{mean}");
    assert!((deviation / expected - 1.0).abs() < 0.02, "{deviation}");
    let beyond = values("he.weight")
        .iter()
        .filter(|v| v.abs() > 2.0 * expected)
        .count();
    let share = beyond as f64 / (64.0 * 128.0 * 9.0);
    assert!(
        (share - 0.0455).abs() < 0.004,
        "a normal has 4.55 % beyond two deviations: {share}"
    );

    for (name, fan_in) in [
        ("default.weight", 576.0f64),
        ("fc.weight", 400.0),
        ("fc.bias", 400.0),
    ] {
        let bound = 1.0 / fan_in.sqrt();
        let (mean, deviation) = moments(&values(name));
        let largest = values(name).iter().fold(0.0f64, |a, b| a.max(b.abs()));
        // Four standard errors of the mean of that many values.
        let room = 4.0 * bound / (3.0 * values(name).len() as f64).sqrt();
        assert!(
            largest <= bound && largest > 0.95 * bound,
            "{name}: {largest}"
        );
        assert!(mean.abs() < room, "{name}: {mean}");
        assert!(
            (deviation * 3f64.sqrt() / bound - 1.0).abs() < 0.1,
            "{name}: {deviation}"
        );
    }
    for (name, value) in [
        ("weight", 1.0),
        ("bias", 0.0),
        ("running_mean", 0.0),
        ("running_var", 1.0),
    ] {
        assert_eq!(values(&format!("bn.{name}")), [value; 8]);
    }
}

#[test]
fn asking_twice_gives_the_same_variable_or_an_error() {
    let store = store();
    let vb = store.builder();
    let first = vb.get_with_hints(3, "a", Init::Const(1.0)).unwrap();
    let again = vb.get_with_hints(3, "a", Init::Const(2.0)).unwrap();
    assert_eq!(first.id(), again.id());
    let error = vb.get(4, "a").unwrap_err().to_string();
    assert!(error.contains("a [3], got [4]"), "{error}");
    assert!(vb.contains_tensor("a") && !vb.contains_tensor("b"));
}

#[test]
fn parameters_are_sorted_and_leave_out_buffers_and_the_frozen() {
    let store = store();
    let vb = store.builder();
    store.freeze("judge");
    Linear::new(2, 2, vb.pp("judge.0")).unwrap();
    Linear::new(2, 2, vb.pp("judges")).unwrap();
    BatchNorm::new(2, vb.pp("bn")).unwrap();
    let names = |list: Vec<(String, _)>| -> Vec<String> { list.into_iter().map(|p| p.0).collect() };
    assert_eq!(
        names(store.parameters()),
        ["bn.bias", "bn.weight", "judges.bias", "judges.weight"]
    );
    assert_eq!(
        names(store.buffers()),
        ["bn.running_mean", "bn.running_var"]
    );
    assert_eq!(store.count(""), 16);
    assert_eq!(store.count("judge"), 6);
    assert_eq!(store.tensors().len(), 8);
}

#[test]
fn exact_loading_lists_everything_and_changes_nothing() {
    let store = store();
    Linear::new(2, 3, store.builder().pp("fc")).unwrap();
    let before = store.snapshot().unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let given = BTreeMap::from([
        ("fc.weight".to_string(), zeros(&[2, 2])),
        ("head.weight".to_string(), zeros(&[1])),
        ("bn.num_batches_tracked".to_string(), zeros(&[])),
    ]);
    let Err(Error::Weights { report, .. }) = store.load(&given, Strictness::Exact) else {
        panic!("accepted");
    };
    assert_eq!(report.missing, ["fc.bias"]);
    assert_eq!(report.extra, ["head.weight"]);
    let misfit = Misfit {
        name: "fc.weight".into(),
        wanted: vec![3, 2],
        got: vec![2, 2],
    };
    assert_eq!(report.mismatched, [misfit]);
    assert_eq!(
        report.to_string(),
        "1 missing: fc.bias; 1 extra: head.weight; 1 of another shape: fc.weight (wanted [3, 2], got [2, 2])"
    );
    for (name, tensor) in store.tensors() {
        assert_eq!(values(&tensor), values(&before[&name]));
    }
}

#[test]
fn partial_loading_takes_what_fits_under_its_prefix() {
    let store = store();
    Linear::new(2, 3, store.builder().pp("backbone.fc")).unwrap();
    Linear::new(2, 3, store.builder().pp("other")).unwrap();
    let bias = Tensor::new(&[1f64, 2.0, 3.0], &Device::Cpu).unwrap();
    let given = BTreeMap::from([("fc.bias".to_string(), bias)]);
    let report = store
        .load_under("backbone", &given, Strictness::Partial)
        .unwrap();
    assert_eq!(report.loaded, ["backbone.fc.bias"]);
    assert_eq!(report.missing, ["backbone.fc.weight"]);
    assert_eq!(
        values(&store.tensors()["backbone.fc.bias"]),
        [1.0, 2.0, 3.0]
    );
}

#[test]
fn a_snapshot_outlives_training_and_its_own_tensors_can_be_loaded() {
    let store = store();
    let backbone = small("cifar_resnet18", 2).build(store.builder()).unwrap();
    let before = store.snapshot().unwrap();
    backbone
        .stages(&images(2, 8, 3, DType::F32), Mode::Train)
        .unwrap();
    let name = "bn1.running_mean";
    assert_ne!(values(&store.tensors()[name]), values(&before[name]));
    store.load(&store.tensors(), Strictness::Exact).unwrap();
    store.load(&before, Strictness::Exact).unwrap();
    assert_eq!(values(&store.tensors()[name]), values(&before[name]));
}

#[test]
fn evaluation_changes_nothing() {
    let store = store();
    let backbone = small("cifar_resnet18", 2).build(store.builder()).unwrap();
    let before = store.snapshot().unwrap();
    backbone
        .stages(&images(2, 8, 3, DType::F32), Mode::Eval)
        .unwrap();
    for (name, tensor) in store.tensors() {
        assert_eq!(values(&tensor), values(&before[&name]), "{name}");
    }
}

proptest! {
    #[test]
    fn values_depend_on_seed_and_name_alone(seed: u64, names in prop::collection::btree_set("[a-z]{1,8}", 2..6)) {
        let draw = |names: &mut dyn Iterator<Item = &String>| {
            let store = ParamStore::new(seed, DType::F64, &Device::Cpu);
            for name in names {
                store.builder().get_with_hints(5, name, Init::Uniform { lo: -1.0, up: 1.0 }).unwrap();
            }
            store.tensors()
        };
        let forward = draw(&mut names.iter());
        let backward = draw(&mut names.iter().rev());
        let mut seen = Vec::new();
        for (name, tensor) in &forward {
            prop_assert_eq!(values(tensor), values(&backward[name]));
            prop_assert!(!seen.contains(&values(tensor)));
            seen.push(values(tensor));
        }
    }
}
