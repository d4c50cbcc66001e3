//! Weights of other programs: what is taken, what is dropped and said, what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{images, small, values};
use mixskd_models::weights::{self, ImportReport, Metadata, StateDict};
use mixskd_models::{Mode, ModelConfig, ParamStore, Result, Strictness, registry};

type Tensors = HashMap<String, Tensor>;

/// Tensors of a network, each name with `prefix` before it.
fn tensors(config: &ModelConfig, prefix: &str) -> Tensors {
    let store = ParamStore::new(9, DType::F32, &Device::Cpu);
    config.build(store.builder()).unwrap();
    let named = store.tensors().into_iter();
    named
        .map(|(name, t)| (format!("{prefix}{name}"), t))
        .collect()
}

fn state_dict(folder: &Path, tensors: &Tensors) -> StateDict {
    let path = folder.join("foreign.safetensors");
    candle_core::safetensors::save(tensors, &path).unwrap();
    StateDict::read(&path).unwrap()
}

/// Loads `tensors` into the network `config`; the store and what was said of it.
fn load(
    config: &ModelConfig,
    tensors: &Tensors,
    strictness: Strictness,
) -> (ParamStore, Result<ImportReport>) {
    let folder = tempfile::tempdir().unwrap();
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    config.build(store.builder().pp("backbone")).unwrap();
    let state = state_dict(folder.path(), tensors);
    let fits = state.check(config, strictness);
    let report = state.load_into(&store, "backbone", config, strictness);
    assert_eq!(fits.is_ok(), report.is_ok(), "{fits:?}");
    (store, report)
}

#[test]
fn every_network_is_taken_whole_whatever_wraps_its_names() {
    for spec in registry::ALL {
        let config = small(spec.name, 3);
        for prefix in ["", "module.", "module.backbone.", "model."] {
            let given = tensors(&config, prefix);
            let (store, report) = load(&config, &given, Strictness::Exact);
            let report = report.unwrap();
            assert_eq!(report.load.loaded.len(), given.len(), "{}", spec.name);
            let loaded = store.tensors();
            for (name, tensor) in &given {
                let own = format!("backbone.{}", &name[prefix.len()..]);
                assert_eq!(values(&loaded[&own]), values(tensor), "{name}");
            }
        }
    }
}

#[test]
fn a_head_of_another_size_is_dropped_and_said() {
    for spec in registry::ALL {
        let given = tensors(&small(spec.name, 7), "");
        let config = small(spec.name, 3);
        let (_, report) = load(&config, &given, Strictness::Exact);
        let report = report.unwrap();
        assert_eq!(report.dropped_head, Some((7, 3)), "{}", spec.name);
        assert!(report.load.loaded.len() < given.len());
        let said = report.to_string();
        assert!(said.contains("class head of 7 classes dropped"), "{said}");
        let folder = tempfile::tempdir().unwrap();
        let state = state_dict(folder.path(), &given);
        assert_eq!(state.classes(&config).unwrap(), Some(7), "{}", spec.name);
    }
}

#[test]
fn the_released_checkpoints_training_modules_are_left_out() {
    let config = ModelConfig {
        stem_relu: false,
        ..small("cifar_resnet18", 4)
    };
    let mut given = tensors(&config, "module.backbone.");
    let extra = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
    for name in [
        "auxiliary_classifier.block_extractor1.0.0.conv1.weight",
        "auxiliary_classifier.fc1.bias",
        "final_aux_classifier.conv.weight",
    ] {
        given.insert(format!("module.{name}"), extra.clone());
    }
    let (_, report) = load(&config, &given, Strictness::Exact);
    assert_eq!(report.unwrap().left_out.len(), 3);
}

#[test]
fn what_does_not_fit_is_listed_and_refused_unless_partial() {
    let config = small("resnet18", 3);
    let mut given = tensors(&config, "");
    given.remove("bn1.weight");
    let stranger = Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap();
    given.insert("surplus".into(), stranger.clone());
    given.insert("layer1.0.conv1.weight".into(), stranger.clone());
    let (store, report) = load(&config, &given, Strictness::Exact);
    let said = report.unwrap_err().to_string();
    for part in [
        "bn1.weight",
        "surplus",
        "layer1.0.conv1.weight (wanted",
        "--partial",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let fresh = ParamStore::new(0, DType::F32, &Device::Cpu);
    config.build(fresh.builder().pp("backbone")).unwrap();
    let name = "backbone.conv1.weight";
    assert_eq!(
        values(&store.tensors()[name]),
        values(&fresh.tensors()[name])
    );

    let (store, report) = load(&config, &given, Strictness::Partial);
    let report = report.unwrap();
    assert_eq!(report.load.missing, ["backbone.bn1.weight"]);
    assert_eq!(report.load.extra, ["backbone.surplus"]);
    assert_eq!(
        values(&store.tensors()[name]),
        values(&given["conv1.weight"])
    );

    let none = Tensors::from([("surplus".to_string(), stranger)]);
    assert!(load(&config, &none, Strictness::Partial).1.is_err());
}

/// Names that timm, and torchvision before it forbade dots, give some of a network's tensors.
#[test]
fn other_spellings_of_names_are_understood() {
    for (network, own, foreign) in [
        (
            "mobilenet_v2",
            "features.6.conv.1.1.bias",
            "blocks.2.2.bn2.bias",
        ),
        ("mobilenet_v2", "classifier.1.weight", "classifier.weight"),
        (
            "efficientnet_b0",
            "features.8.1.running_mean",
            "bn2.running_mean",
        ),
        (
            "densenet121",
            "features.denseblock2.denselayer3.norm2.bias",
            "features.denseblock2.denselayer3.norm.2.bias",
        ),
    ] {
        let config = small(network, 3);
        let mut given = tensors(&config, "");
        let tensor = given.remove(own).unwrap();
        given.insert(foreign.into(), tensor.clone());
        let (store, report) = load(&config, &given, Strictness::Exact);
        report.unwrap();
        let taken = &store.tensors()[&format!("backbone.{own}")];
        assert_eq!(values(taken), values(&tensor), "{foreign}");
    }
}

#[test]
fn files_for_timm_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("timm.safetensors");
    for name in ["mobilenet_v2", "efficientnet_b0", "resnet18"] {
        let config = small(name, 3);
        let store = ParamStore::new(9, DType::F32, &Device::Cpu);
        config.build(store.builder()).unwrap();
        let metadata = Metadata::usual(config.clone());
        weights::save_timm(&path, &store.tensors(), &metadata).unwrap();
        let held = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(held.contains_key("conv_stem.weight"), name != "resnet18");
        assert!(!held.keys().any(|key| key.starts_with("features.")));
        let (taken, report) = load(&config, &held, Strictness::Exact);
        report.unwrap();
        for (name, tensor) in store.tensors() {
            let own = &taken.tensors()[&format!("backbone.{name}")];
            assert_eq!(values(own), values(&tensor), "{name}");
        }
    }
    let metadata = Metadata::usual(small("cifar_resnet18", 3));
    let error =
        weights::save_timm(&path, &std::collections::BTreeMap::default(), &metadata).unwrap_err();
    assert!(error.to_string().contains("timm has no such"), "{error}");
}

#[test]
fn half_precision_weights_become_float32() {
    let config = small("cifar_resnet18", 3);
    let halves = tensors(&config, "").into_iter();
    let halves: Tensors = halves
        .map(|(name, tensor)| (name, tensor.to_dtype(DType::BF16).unwrap()))
        .collect();
    let (store, report) = load(&config, &halves, Strictness::Exact);
    report.unwrap();
    let backbone = config.build(store.builder().pp("backbone")).unwrap();
    let x = images(1, 32, 3, DType::F32);
    let logits = backbone.forward(&x, Mode::Eval).unwrap();
    assert_eq!(logits.dtype(), DType::F32);
}
