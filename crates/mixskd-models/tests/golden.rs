//! The networks against an independent PyTorch implementation in float64 (`golden/resnet.py`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use common::check_close;
use mixskd_models::{
    Backbone, Branches, Discriminator, DiscriminatorHead, Mode, ModelConfig, ParamStore,
    SelfTeacher, Strictness,
};

const TOLERANCE: f64 = 1e-6;

/// The network's outputs by their golden names.
type Outputs = BTreeMap<String, Tensor>;

fn plain(backbone: &dyn Backbone, x: &Tensor, mode: Mode) -> Outputs {
    let stages = backbone.stages(x, mode).unwrap();
    let mut outputs = Outputs::new();
    outputs.insert("logits".into(), backbone.head(&stages[3]).unwrap());
    for (index, map) in stages.into_iter().enumerate() {
        outputs.insert(format!("stage.{index}"), map);
    }
    outputs
}

fn check(golden: &str, store: &ParamStore, forward: impl Fn(&Tensor, Mode) -> Outputs) {
    let path = format!(
        "{}/tests/golden/{golden}.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    let golden: HashMap<String, Tensor> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let group = |prefix: &str| -> BTreeMap<String, Tensor> {
        golden
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t.clone())))
            .collect()
    };
    store.load(&group("param."), Strictness::Exact).unwrap();
    let x = golden["x"].to_dtype(DType::F64).unwrap();

    let compare = |prefix: &str, got: &Outputs| {
        let expected = group(prefix);
        assert!(got.keys().eq(expected.keys()), "{prefix}");
        for (name, expected) in expected {
            check_close(
                &format!("{prefix}{name}"),
                &got[&name],
                &expected,
                TOLERANCE,
            );
        }
    };
    compare("eval.", &forward(&x, Mode::Eval));
    let outputs = forward(&x, Mode::Train);
    compare("train.", &outputs);

    let mut loss = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
    for (name, weight) in group("weight.") {
        let term = (&outputs[&name] * weight).unwrap().sum_all().unwrap();
        loss = (loss + term).unwrap();
    }
    let gradients = loss.backward().unwrap();
    let got = store.parameters().into_iter().map(|(name, var)| {
        let gradient = gradients.get(var.as_tensor());
        let gradient = gradient.unwrap_or_else(|| panic!("no gradient for {name}"));
        (name, gradient.clone())
    });
    compare("grad.", &got.collect());
    let buffers = store.buffers().into_iter();
    compare(
        "after.",
        &buffers
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect(),
    );
}

fn check_backbone(golden: &str, config: &ModelConfig) {
    let store = ParamStore::new(0, DType::F64, &Device::Cpu);
    let backbone = config.build(store.builder()).unwrap();
    check(golden, &store, |x, mode| plain(backbone.as_ref(), x, mode));
}

fn config(name: &str, classes: usize, width: f64) -> ModelConfig {
    ModelConfig {
        width,
        ..ModelConfig::new(name, classes).unwrap()
    }
}

#[test]
fn cifar_resnet18_without_stem_relu() {
    let config = ModelConfig {
        stem_relu: false,
        ..config("cifar_resnet18", 7, 1.0 / 32.0)
    };
    check_backbone("cifar_resnet18", &config);
}

#[test]
fn resnet18_on_grey_images() {
    let config = ModelConfig {
        channels: 1,
        ..config("resnet18", 5, 1.0 / 32.0)
    };
    check_backbone("resnet18", &config);
}

#[test]
fn resnet50() {
    check_backbone("resnet50", &config("resnet50", 5, 1.0 / 32.0));
}

#[test]
fn whole_mixskd_network() {
    let classes = 5;
    let store = ParamStore::new(0, DType::F64, &Device::Cpu);
    let vb = store.builder();
    let config = config("cifar_resnet18", classes, 1.0 / 64.0);
    let backbone = config.build(vb.pp("backbone")).unwrap();
    let last = backbone.stage_channels()[3];
    let branches = Branches::new(backbone.as_ref(), classes, vb.pp("branches")).unwrap();
    let teacher = SelfTeacher::new(4, last, classes, vb.pp("self_teacher")).unwrap();
    let discriminator =
        Discriminator::new(last, DiscriminatorHead::TwoLogits, vb.pp("discriminator")).unwrap();
    check("mixskd", &store, |x, mode| {
        let heads = branches.all_outputs(backbone.as_ref(), x, mode).unwrap();
        let features: Vec<Tensor> = heads.iter().map(|head| head.features.clone()).collect();
        let mut outputs = Outputs::new();
        for (index, head) in heads.into_iter().enumerate() {
            outputs.insert(format!("features.{index}"), head.features);
            outputs.insert(format!("logits.{index}"), head.logits);
        }
        let judged = discriminator.forward(&features[3]).unwrap();
        outputs.insert("logits.discriminator".into(), judged);
        outputs.insert(
            "logits.teacher".into(),
            teacher.forward(&features, mode).unwrap(),
        );
        outputs
    });
}
