//! Weights files: what is written, what comes back, what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{images, small, values};
use mixskd_models::weights::{self, Metadata, Resize, StateDict};
use mixskd_models::{Mode, ModelConfig, ParamStore, Strictness, registry};

fn metadata(model: ModelConfig) -> Metadata {
    Metadata {
        classes: (0..model.classes)
            .map(|i| format!("class {i}, \"ü\""))
            .collect(),
        mean: vec![0.5071, 0.4867, 0.4408],
        std: vec![0.2675, 0.2565, 0.2761],
        resize: Resize::CentreCrop { shorter: 256 },
        extra: BTreeMap::from([("epochs".into(), "20".into())]),
        ..Metadata::new(model)
    }
}

/// A small trained-looking backbone under `backbone.`, beside another module's tensors.
fn sample(name: &str) -> (ParamStore, Metadata, Tensor) {
    let store = ParamStore::new(5, DType::F32, &Device::Cpu);
    let config = small(name, 3);
    let backbone = config.build(store.builder().pp("backbone")).unwrap();
    backbone
        .alignment(0, store.builder().pp("branches.0"))
        .unwrap();
    let x = images(2, config.input.min(48), 3, DType::F32);
    backbone.stages(&x, Mode::Train).unwrap();
    let stages = backbone.stages(&x, Mode::Eval).unwrap();
    let logits = backbone.head(stages.last().unwrap()).unwrap();
    (store, metadata(config), logits)
}

fn check_refused(path: &Path, parts: &[&str]) {
    let error = match weights::build_from_file(path, &Device::Cpu) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => error.to_string(),
    };
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn every_network_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    for spec in registry::ALL {
        let (store, metadata, expected) = sample(spec.name);
        let path = folder.path().join(format!("{}.safetensors", spec.name));
        weights::save(&path, &store.tensors(), &metadata).unwrap();
        let (backbone, read) = weights::build_from_file(&path, &Device::Cpu).unwrap();
        assert_eq!(read, metadata);
        let x = images(2, read.model.input.min(48), 3, DType::F32);
        let stages = backbone.stages(&x, Mode::Eval).unwrap();
        let got = backbone.head(stages.last().unwrap()).unwrap();
        assert_eq!(values(&got), values(&expected), "{}", spec.name);
    }
}

#[test]
fn the_file_holds_the_backbone_alone_under_torchvisions_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (store, metadata, _) = sample("resnet18");
    weights::save(&path, &store.tensors(), &metadata).unwrap();
    let (tensors, _) = weights::load(&path).unwrap();
    // torchvision's resnet18 has 122 entries, 20 of them counters.
    assert_eq!(tensors.len(), 122);
    let counters = tensors
        .iter()
        .filter(|(name, _)| name.ends_with("num_batches_tracked"));
    for (name, counter) in counters.clone() {
        assert_eq!(
            (counter.dtype(), counter.dims()),
            (DType::I64, &[][..]),
            "{name}"
        );
    }
    assert_eq!(counters.count(), 20);
    assert_eq!(tensors["layer2.0.downsample.0.weight"].dims(), [8, 4, 1, 1]);
    assert_eq!(tensors["bn1.running_var"].dtype(), DType::F32);
}

#[test]
fn float64_is_written_as_float32_and_the_bytes_are_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let config = small("cifar_resnet18", 3);
    let write = |name: &str, dtype| {
        let store = ParamStore::new(5, dtype, &Device::Cpu);
        config.build(store.builder()).unwrap();
        let path = folder.path().join(name);
        weights::save(&path, &store.tensors(), &metadata(config.clone())).unwrap();
        fs::read(path).unwrap()
    };
    let first = write("a", DType::F32);
    assert_eq!(first, write("b", DType::F32));
    assert_eq!(first, write("c", DType::F64));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        3,
        "a temporary file stayed"
    );
}

#[test]
fn what_is_no_weights_file_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    check_refused_io(&path);

    fs::write(&path, b"").unwrap();
    check_refused(&path, &["not a safetensors file", "hint"]);
    fs::write(&path, b"\x89PNG\r\n\x1a\n and some more bytes of a picture").unwrap();
    check_refused(&path, &["not a safetensors file"]);

    let (store, metadata, _) = sample("cifar_resnet18");
    weights::save(&path, &store.tensors(), &metadata).unwrap();
    let whole = fs::read(&path).unwrap();
    for keep in [whole.len() - 1, whole.len() / 2] {
        fs::write(&path, &whole[..keep]).unwrap();
        check_refused(&path, &["truncated"]);
    }
    fs::write(&path, &whole[..100]).unwrap();
    check_refused(&path, &["hint"]);
}

fn check_refused_io(path: &Path) {
    check_refused(path, &["cannot read"]);
}

#[test]
fn a_file_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let (store, ..) = sample("cifar_resnet18");
    let tensors: std::collections::HashMap<String, Tensor> = store.tensors().into_iter().collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    check_refused(&path, &["without metadata"]);
}

#[test]
fn weights_that_do_not_fit_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (store, metadata, _) = sample("cifar_resnet18");
    let mut tensors = store.tensors();
    tensors.remove("backbone.fc.bias");
    let extra = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
    tensors.insert("backbone.surplus".into(), extra);
    let wide = Metadata {
        model: ModelConfig {
            classes: 4,
            ..metadata.model.clone()
        },
        classes: Vec::new(),
        ..metadata
    };
    weights::save(&path, &tensors, &wide).unwrap();
    check_refused(
        &path,
        &[
            "do not fit",
            "1 missing: fc.bias",
            "1 extra: surplus",
            "fc.weight (wanted [4, 32], got [3, 32])",
        ],
    );
}

#[test]
fn bad_metadata_names_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (store, good, _) = sample("cifar_resnet18");
    let refused = |metadata: Metadata| {
        let error = weights::save(&path, &store.tensors(), &metadata);
        assert!(!path.exists());
        error.unwrap_err().to_string()
    };
    let classes = vec!["only one".into()];
    let error = refused(Metadata {
        classes,
        ..good.clone()
    });
    assert!(
        error.contains("`classes` has 1 names for 3 classes"),
        "{error}"
    );
    let error = refused(Metadata {
        std: vec![1.0],
        ..good.clone()
    });
    assert!(
        error.contains("`std` has 1 values for 3 channels"),
        "{error}"
    );

    weights::save(&path, &store.tensors(), &good).unwrap();
    let bytes = fs::read(&path).unwrap();
    let broken = replace(&bytes, b"\"mean\":", b"\"maen\":");
    fs::write(&path, broken).unwrap();
    check_refused(&path, &["no key `mean`"]);
    fs::write(&path, replace(&bytes, b"cifar_resnet18", b"cifar_resnet99")).unwrap();
    let error = weights::build_from_file(&path, &Device::Cpu).err().unwrap();
    assert!(error.to_string().contains("cifar_resnet99"), "{error}");
}

#[test]
fn pictures_must_be_scalable_and_normalisable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (store, good, _) = sample("cifar_resnet18");
    let check = |metadata: Metadata, part: &str| {
        let error = weights::save(&path, &store.tensors(), &metadata).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!path.exists());
    };
    for value in [f32::NAN, f32::INFINITY, -f32::INFINITY, 0.0, -0.5] {
        let std = vec![0.5, value, 0.5];
        check(
            Metadata {
                std,
                ..good.clone()
            },
            "`std` must hold finite numbers above 0",
        );
    }
    let mean = vec![0.5, 0.5, f32::NAN];
    check(
        Metadata {
            mean,
            ..good.clone()
        },
        "`mean` must hold finite numbers",
    );
    for shorter in [0, 8193, usize::MAX] {
        let resize = Resize::CentreCrop { shorter };
        let part = "`shorter` of `resize` must be from 1 to 8192";
        check(
            Metadata {
                resize,
                ..good.clone()
            },
            part,
        );
    }
    let mut large = good.clone();
    large.model.input = 8193;
    check(large, "`input` of `model` must be from 1 to 8192");

    // The same in a file that somebody else wrote.
    weights::save(&path, &store.tensors(), &good).unwrap();
    let bytes = fs::read(&path).unwrap();
    let is_there = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    for (from, to, part) in [
        (&b"0.2675"[..], &b"0.0000"[..], "`std`"),
        (b"0.2675", b"1.0e99", "`std`"),
        (b":256}", b":0  }", "`shorter`"),
    ] {
        assert!(is_there(from));
        fs::write(&path, replace(&bytes, from, to)).unwrap();
        check_refused(&path, &[part, "hint"]);
        let error = StateDict::read(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn metadata_of_mixskd_that_cannot_be_read_is_an_error_for_importers_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (store, good, _) = sample("cifar_resnet18");
    let newer = Metadata {
        version: "9.9.9".into(),
        ..good
    };
    weights::save(&path, &store.tensors(), &newer).unwrap();
    assert_eq!(StateDict::read(&path).unwrap().metadata(), Some(&newer));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, replace(&bytes, b"\"mean\":", b"\"maen\":")).unwrap();
    let parts = ["no key `mean`", "mixskd 9.9.9 wrote the file", "hint"];
    check_refused(&path, &parts);
    let error = StateDict::read(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

/// A kilobyte that names a network of 131 GB for its class head alone.
#[test]
fn a_network_larger_than_its_file_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = ModelConfig {
        width: 16.0,
        ..ModelConfig::new("resnet50", 1_000_000).unwrap()
    };
    let tensors = BTreeMap::from([(
        "fc.bias".to_string(),
        Tensor::zeros(1000, DType::F32, &Device::Cpu).unwrap(),
    )]);
    weights::save(&path, &tensors, &Metadata::new(model.clone())).unwrap();
    check_refused(
        &path,
        &["do not fit", "fc.bias (wanted [1000000], got [1000])"],
    );
    let state = StateDict::read(&path).unwrap();
    assert!(state.classes(&model).unwrap() == Some(1000));
    for strictness in [Strictness::Exact, Strictness::Partial] {
        let error = state.check(&model, strictness).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("missing"), "{error}");
    }
}

/// Replaces the first occurrence of `from` by `to`, of one length, so that the file's offsets still hold.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let place = bytes.windows(from.len()).position(|window| window == from);
    let place = place.unwrap();
    let mut bytes = bytes.to_vec();
    bytes[place..place + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_failed_write_leaves_nothing_behind_and_the_old_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, metadata, _) = sample("cifar_resnet18");
    let nowhere = folder.path().join("no/such/folder/model.safetensors");
    let error = weights::save(&nowhere, &store.tensors(), &metadata).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");

    // A folder in the file's place: everything is written, and the rename fails.
    let taken = folder.path().join("taken");
    fs::create_dir_all(taken.join("full")).unwrap();
    let error = weights::save(&taken, &store.tensors(), &metadata).unwrap_err();
    assert!(error.to_string().contains("cannot rename"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
