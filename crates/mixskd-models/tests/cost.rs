//! Parameters and multiply-adds against published counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use candle_core::{DType, Device};
use common::small;
use mixskd_models::{
    Branches, Discriminator, DiscriminatorHead, ModelConfig, ParamStore, SelfTeacher, StageShape,
    registry,
};

fn store() -> ParamStore {
    ParamStore::blank(DType::F32, &Device::Cpu)
}

/// torchvision's table of models gives parameters and GMAC at 224 pixels, 1000 classes.
fn check(name: &str, parameters: u64, macs: u64) {
    let store = store();
    let config = ModelConfig::new(name, 1000).unwrap();
    let backbone = config.build(store.builder()).unwrap();
    let cost = backbone.cost((config.input, config.input)).unwrap();
    assert_eq!(cost.parameters, parameters, "{name}");
    assert_eq!(store.count("") as u64, parameters, "{name}");
    // torchvision rounds to a million.
    assert_eq!(
        (cost.macs + 500_000) / 1_000_000,
        macs,
        "{name}: {}",
        cost.macs
    );
}

#[test]
fn counts_are_torchvisions() {
    check("resnet18", 11_689_512, 1814);
    check("resnet34", 21_797_672, 3664);
    check("resnet50", 25_557_032, 4089);
}

#[test]
fn stages_of_both_stems() {
    let stage = |h, c| StageShape { h, w: h, c };
    let shapes = |name: &str, side| {
        let backbone = small(name, 10).build(store().builder()).unwrap();
        backbone.cost((side, side)).unwrap().stages
    };
    assert_eq!(
        shapes("cifar_resnet18", 32),
        [stage(32, 4), stage(16, 8), stage(8, 16), stage(4, 32)]
    );
    assert_eq!(
        shapes("resnet50", 224),
        [stage(56, 16), stage(28, 32), stage(14, 64), stage(7, 128)]
    );
}

/// 42.4 M in training, 11.2 M kept: the released code's CIFAR-100 ResNet-18 (its discriminators register no parameter).
#[test]
fn mixskd_resnet18_in_training() {
    let store = store();
    let vb = store.builder();
    let config = ModelConfig::new("cifar_resnet18", 100).unwrap();
    let backbone = config.build(vb.pp("backbone")).unwrap();
    let branches = Branches::new(backbone.as_ref(), 100, vb.pp("branches")).unwrap();
    let teacher = SelfTeacher::new(4, 512, 100, vb.pp("self_teacher")).unwrap();
    assert_eq!(store.count("backbone"), 11_220_132);
    assert_eq!(store.count(""), 42_380_084);

    let mut cost = backbone.cost((32, 32)).unwrap();
    let last = cost.stages[3];
    cost.add(&branches.cost(&cost.stages).unwrap());
    cost.add(&teacher.cost(last).unwrap());
    assert_eq!(cost.parameters, 42_380_084);

    let judge =
        Discriminator::new(512, DiscriminatorHead::TwoLogits, vb.pp("discriminators.0")).unwrap();
    assert_eq!(
        store.count("discriminators") as u64,
        judge.cost(last).parameters
    );
}

/// A convolution's multiply-adds by hand: ResNet-18 for 32 pixels is 555,468,800 plus its classifier.
#[test]
fn cifar_resnet18_macs() {
    let config = ModelConfig::new("cifar_resnet18", 10).unwrap();
    let cost = config
        .build(store().builder())
        .unwrap()
        .cost((32, 32))
        .unwrap();
    let conv = |side: u64, input: u64, output: u64, taps: u64| side * side * input * output * taps;
    let mut expected = conv(32, 3, 64, 9) + 4 * conv(32, 64, 64, 9);
    for (side, channels) in [(16, 128), (8, 256), (4, 512)] {
        expected += conv(side, channels / 2, channels, 9) + 3 * conv(side, channels, channels, 9);
        expected += conv(side, channels / 2, channels, 1);
    }
    assert_eq!(cost.macs, expected + 512 * 10);
}

#[test]
fn every_networks_cost_counts_its_parameters() {
    for spec in registry::ALL {
        let store = store();
        let backbone = small(spec.name, 3).build(store.builder()).unwrap();
        let cost = backbone.cost((spec.input, spec.input)).unwrap();
        assert_eq!(cost.parameters, store.count("") as u64, "{}", spec.name);
        let channels: Vec<usize> = cost.stages.iter().map(|stage| stage.c).collect();
        assert_eq!(channels, backbone.stage_channels(), "{}", spec.name);
    }
}
