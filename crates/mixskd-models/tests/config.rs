//! Settings: what is refused and how, and what the width does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use candle_core::{DType, Device};
use common::{images, small};
use mixskd_models::{
    Branches, Discriminator, DiscriminatorHead, Mode, ModelConfig, ParamStore, SelfTeacher,
};

fn store() -> ParamStore {
    ParamStore::new(0, DType::F32, &Device::Cpu)
}

fn check_refused(config: &ModelConfig, part: &str) {
    let Err(error) = config.build(store().builder()) else {
        panic!("{config:?} was accepted");
    };
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn values_out_of_range_name_their_key() {
    let good = small("cifar_resnet18", 10);
    check_refused(
        &ModelConfig {
            classes: 0,
            ..good.clone()
        },
        "`classes` must be from 1 to 1000000, got 0",
    );
    check_refused(
        &ModelConfig {
            channels: 0,
            ..good.clone()
        },
        "`channels`",
    );
    check_refused(
        &ModelConfig {
            input: 0,
            ..good.clone()
        },
        "`input`",
    );
    check_refused(
        &ModelConfig {
            input: 8193,
            ..good.clone()
        },
        "`input` must be from 1 to 8192, got 8193",
    );
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        check_refused(
            &ModelConfig {
                width,
                ..good.clone()
            },
            "`width`",
        );
    }
}

#[test]
fn an_unknown_model_suggests_the_nearest() {
    for (typo, nearest) in [
        ("cifar_resnet81", "cifar_resnet18"),
        ("ResNet50", "resnet50"),
        ("cifar-resnet34", "cifar_resnet34"),
        ("resnet", "resnet18"),
    ] {
        let error = ModelConfig::new(typo, 10).unwrap_err().to_string();
        assert!(
            error.contains(&format!("did you mean `{nearest}`")),
            "{error}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_and_defaults_filled_in() {
    let parse = |text: &str| serde_json::from_str::<ModelConfig>(text);
    let config = parse(r#"{"name": "resnet18", "classes": 7, "input": 224}"#).unwrap();
    assert_eq!(config, ModelConfig::new("resnet18", 7).unwrap());
    let error = parse(r#"{"name": "resnet18", "classes": 7, "input": 224, "depth": 3}"#);
    assert!(error.unwrap_err().to_string().contains("depth"));
}

#[test]
fn widths_round_to_the_nearest_channel_but_never_to_none() {
    let scaled = |width, base| {
        let config = ModelConfig {
            width,
            ..small("resnet18", 2)
        };
        config.scaled(base)
    };
    assert_eq!(scaled(0.25, 64), 16);
    assert_eq!(scaled(0.0625, 64), 4);
    assert_eq!(scaled(0.0703125, 64), 5);
    assert_eq!(scaled(0.001, 64), 1);
    assert_eq!(scaled(2.0, 64), 128);
}

#[test]
fn the_stem_relu_can_be_left_out() {
    let stage = |stem_relu| {
        let config = ModelConfig {
            stem_relu,
            ..small("cifar_resnet18", 2)
        };
        let backbone = config.build(store().builder()).unwrap();
        let maps = backbone
            .stages(&images(2, 8, 3, DType::F32), Mode::Train)
            .unwrap();
        common::values(&maps[0])
    };
    assert_ne!(stage(true), stage(false));
}

#[test]
fn modules_name_what_does_not_fit() {
    let store = store();
    let backbone = small("cifar_resnet18", 2)
        .build(store.builder().pp("backbone"))
        .unwrap();
    let error = |result: mixskd_models::Result<_>| match result {
        Ok(()) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    let vb = store.builder();
    let deepest = backbone.alignment(3, vb.pp("ζ"));
    assert!(error(deepest.map(|_| ())).contains("alignment: stage must be below 3, got 3"));
    let branches = Branches::new(backbone.as_ref(), 2, vb.pp("branches")).unwrap();
    let x = images(1, 8, 3, DType::F32);
    let few = branches.forward(std::slice::from_ref(&x), Mode::Train);
    assert!(error(few.map(|_| ())).contains("4 maps, got 1 maps"));
    let teacher = SelfTeacher::new(4, 32, 2, vb.pp("teacher")).unwrap();
    assert!(error(teacher.forward(&[x], Mode::Train).map(|_| ())).contains("self-teacher"));
}

#[test]
fn training_on_a_single_value_per_channel_is_refused() {
    let backbone = small("resnet18", 2).build(store().builder()).unwrap();
    let error = backbone.stages(&images(1, 32, 3, DType::F32), Mode::Train);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("got batch 1 at 1×1 pixels"), "{error}");
    backbone
        .stages(&images(1, 32, 3, DType::F32), Mode::Eval)
        .unwrap();
}

#[test]
fn a_discriminator_ends_in_one_or_two_logits() {
    let store = store();
    for (name, head, logits) in [
        ("one", DiscriminatorHead::OneLogit, 1),
        ("two", DiscriminatorHead::default(), 2),
    ] {
        let judge = Discriminator::new(3, head, store.builder().pp(name)).unwrap();
        let y = judge.forward(&images(5, 2, 3, DType::F32)).unwrap();
        assert_eq!(y.dims(), [5, logits]);
    }
    let text = serde_json::to_string(&DiscriminatorHead::OneLogit).unwrap();
    assert_eq!(text, "\"one-logit\"");
}
