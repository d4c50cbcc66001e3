//! The structure of written files, for every network of the registry. What runtimes compute from them is compared where there
//! are any: `cargo xtask interop`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use super::*;
use crate::{ModelConfig, ParamStore, registry};

fn model(name: &str, config: &OnnxConfig) -> ModelProto {
    let store = ParamStore::new(3, DType::F32, &Device::Cpu);
    let model = ModelConfig {
        width: 0.0625,
        ..ModelConfig::new(name, 5).unwrap()
    };
    let backbone = model.build(store.builder()).unwrap();
    let metadata = Metadata {
        classes: (0..5).map(|class| format!("class {class}")).collect(),
        ..Metadata::usual(model)
    };
    let bytes = config.model(backbone.as_ref(), &metadata).unwrap();
    ModelProto::decode(bytes.as_slice()).unwrap()
}

fn count(model: &ModelProto, op: &str) -> usize {
    let nodes = &model.graph.as_ref().unwrap().node;
    nodes.iter().filter(|node| node.op_type == op).count()
}

#[test]
fn every_value_is_made_once_and_before_it_is_read() {
    for spec in registry::ALL {
        for fold in [true, false] {
            let config = OnnxConfig {
                fold,
                softmax: !fold,
                normalize: !fold,
                ..OnnxConfig::default()
            };
            let model = model(spec.name, &config);
            let graph = model.graph.as_ref().unwrap();
            let mut made = BTreeSet::from(["image".to_string()]);
            for constant in &graph.initializer {
                let values: i64 = constant.dims.iter().product();
                let width = if constant.data_type == FLOAT { 4 } else { 8 };
                assert_eq!(
                    constant.raw_data.len() as i64,
                    values * width,
                    "{}",
                    constant.name
                );
                assert!(made.insert(constant.name.clone()), "{}", constant.name);
            }
            for node in &graph.node {
                assert!(
                    node.input.iter().all(|input| made.contains(input)),
                    "{}",
                    node.name
                );
                assert!(made.insert(node.output[0].clone()), "{}", node.name);
            }
            assert!(made.contains(&graph.output[0].name), "{}", spec.name);
            let norms = count(&model, "BatchNormalization");
            assert_eq!(norms == 0, fold, "{}", spec.name);
            // Attention pools have softmaxes of their own.
            let last = graph.node.last().map(|node| node.op_type.as_str());
            assert_eq!(last == Some("Softmax"), !fold, "{}", spec.name);
        }
    }
}

#[test]
fn weights_keep_their_names_and_a_residual_network_needs_no_transposition() {
    let model = model("resnet50", &OnnxConfig::default());
    let graph = model.graph.as_ref().unwrap();
    let names: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    for name in [
        "conv1.weight",
        "conv1.bias",
        "layer1.0.downsample.0.weight",
        "fc.weight",
    ] {
        assert!(names.contains(name), "{name}");
    }
    assert_eq!((count(&model, "Transpose"), count(&model, "Gemm")), (0, 1));
}

#[test]
fn the_file_says_what_a_reader_needs() {
    let model = model("cifar_resnet18", &OnnxConfig::default());
    let get = |key: &str| {
        let found = model.metadata_props.iter().find(|entry| entry.key == key);
        found.unwrap_or_else(|| panic!("no {key}")).value.as_str()
    };
    assert_eq!(get("input"), "32");
    assert_eq!(get("mean"), "[0.5071,0.4867,0.4408]");
    assert!(get("classes").starts_with("[\"class 0\","));
    assert!(get("std").starts_with('[') && get("model").contains("cifar_resnet18"));
    assert_eq!(get("normalized"), "false");
    let image = &model.graph.as_ref().unwrap().input[0];
    let shape = image.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
    let sizes: Vec<_> = shape
        .shape
        .as_ref()
        .unwrap()
        .dim
        .iter()
        .map(|d| d.value.clone())
        .collect();
    let size = |value| Some(DimensionValue::Size(value));
    let batch = Some(DimensionValue::Name("batch".into()));
    assert_eq!(sizes, [batch, size(3), size(32), size(32)]);
}

#[test]
fn an_unknown_opset_is_refused() {
    let store = ParamStore::blank(DType::F32, &Device::Cpu);
    let model = ModelConfig::new("cifar_resnet18", 2).unwrap();
    let backbone = model.build(store.builder()).unwrap();
    let config = OnnxConfig {
        opset: 16,
        ..OnnxConfig::default()
    };
    let error = config
        .model(backbone.as_ref(), &Metadata::new(model))
        .unwrap_err();
    assert!(error.to_string().contains("17 to 22"), "{error}");
}
