//! Presets, ranges, weights and shapes of the objective.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{Numbers, check_close, outputs_from, scalar};
use mixskd_losses::objective::ALL;
use mixskd_losses::{DiscriminatorMode, Error, MixSkdOutputs, ObjectiveConfig, objective};

const HEADS: usize = 2;
const BATCH: usize = 3;
const CLASSES: usize = 4;

struct Sample {
    vars: Vec<Var>,
    labels: Tensor,
    partner_labels: Tensor,
    lambda: Tensor,
}

impl Sample {
    fn new(dtype: DType) -> Self {
        let mut n = Numbers(11);
        let mut vars = Vec::new();
        let mut add = |shape: &[usize]| {
            let x = n.tensor(shape, 2.0).to_dtype(dtype).unwrap();
            vars.push(Var::from_tensor(&x).unwrap());
        };
        for list in 0..7 {
            for _ in 0..HEADS {
                match list {
                    0..=2 => add(&[BATCH, CLASSES]),
                    3 | 4 => add(&[BATCH, 2, 2, 3]),
                    _ => add(&[BATCH, 2]),
                }
            }
        }
        add(&[BATCH, CLASSES]);
        add(&[BATCH, CLASSES]);
        Self {
            vars,
            labels: n.labels(BATCH, CLASSES),
            partner_labels: n.labels(BATCH, CLASSES),
            lambda: n.lambda(BATCH).to_dtype(dtype).unwrap(),
        }
    }

    fn outputs(&self) -> MixSkdOutputs {
        let list: Vec<_> = self.vars.iter().map(|v| v.as_tensor().clone()).collect();
        outputs_from(&list, HEADS)
    }

    fn run(
        &self,
        outputs: &MixSkdOutputs,
        config: &ObjectiveConfig,
    ) -> mixskd_losses::Result<mixskd_losses::LossParts> {
        objective(
            outputs,
            &self.labels,
            &self.partner_labels,
            &self.lambda,
            config,
        )
    }
}

#[test]
fn every_preset_is_valid_finite_and_the_weighted_sum_of_its_parts() {
    let names: Vec<_> = ALL.iter().map(|preset| preset.name).collect();
    let known = [
        "mixskd",
        "agreement",
        "soft-labels",
        "reference-cifar",
        "reference-imagenet",
    ];
    assert_eq!(names, known);
    for preset in ALL {
        preset.config.validate().unwrap();
        assert_eq!(ObjectiveConfig::preset(preset.name).unwrap(), preset.config);
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let sample = Sample::new(dtype);
            let loss = sample.run(&sample.outputs(), &preset.config).unwrap();
            let sum: f64 = preset
                .config
                .weights()
                .zip(&loss.parts)
                .map(|((name, weight), (part, value))| {
                    assert_eq!(name, *part);
                    assert!(scalar(value).is_finite() && scalar(value) > 0.0, "{name}");
                    weight * scalar(value)
                })
                .sum();
            assert!(
                (sum - scalar(&loss.total)).abs() < 1e-5 * sum,
                "{}",
                preset.name
            );
            let grads = loss.total.backward().unwrap();
            for var in &sample.vars {
                if let Some(grad) = grads.get(var) {
                    let grad = common::flat(grad);
                    assert!(grad.iter().all(|g| g.is_finite()));
                }
            }
        }
    }
}

#[test]
fn presets_say_what_the_released_scripts_do() {
    let find = |name| ObjectiveConfig::preset(name).unwrap();
    assert_eq!(find("mixskd").discriminator, DiscriminatorMode::Joint);
    assert_eq!(ObjectiveConfig::default(), find("mixskd"));
    assert!(find("mixskd").weights().all(|(_, weight)| weight == 1.0));
    let released: Vec<_> = find("reference-cifar").weights().collect();
    let off = |(name, _): &(&str, f64)| !["task_mix", "self_teacher_task"].contains(name);
    let expected: Vec<_> = find("mixskd").weights().filter(off).collect();
    assert_eq!(released, expected);
    for name in ["reference-cifar", "reference-imagenet"] {
        assert!(!find(name).discriminator.trains_discriminators());
    }
}

#[test]
fn soft_labels_are_the_paper_without_feature_maps() {
    let [ours, paper] =
        ["soft-labels", "mixskd"].map(|name| ObjectiveConfig::preset(name).unwrap());
    let off = |(name, _): &(&str, f64)| !["feature", "adversarial"].contains(name);
    let expected: Vec<_> = paper.weights().filter(off).collect();
    assert_eq!(ours.weights().collect::<Vec<_>>(), expected);
    assert!(paper.reads().discriminators && !ours.reads().discriminators);
}

#[test]
fn agreement_is_that_of_branches_alone() {
    let agreement = ObjectiveConfig::preset("agreement").unwrap();
    let terms: Vec<_> = agreement.weights().collect();
    let expected = ["task_original", "task_mix", "branch_probability"];
    assert_eq!(terms, expected.map(|name| (name, 1.0)));
    assert!(!agreement.reads().maps());
}

#[test]
fn a_term_of_weight_zero_costs_nothing() {
    let sample = Sample::new(DType::F64);
    let config = ObjectiveConfig {
        feature: 0.0,
        ..ObjectiveConfig::default()
    };
    let without = sample.run(&sample.outputs(), &config).unwrap();
    assert!(without.parts.iter().all(|(name, _)| *name != "feature"));
    assert_eq!(without.parts.len(), 6);
    let grads = without.total.backward().unwrap();
    let feature_maps = &sample.vars[3 * HEADS..5 * HEADS];
    assert!(feature_maps.iter().all(|map| grads.get(map).is_none()));
}

const OFF: ObjectiveConfig = ObjectiveConfig {
    task_original: 0.0,
    task_mix: 0.0,
    feature: 0.0,
    adversarial: 0.0,
    branch_probability: 0.0,
    self_teacher_task: 0.0,
    backbone_probability: 0.0,
    temperature: 3.0,
    discriminator: DiscriminatorMode::Joint,
};

#[test]
fn all_weights_zero_give_zero() {
    let sample = Sample::new(DType::F32);
    let loss = sample.run(&sample.outputs(), &OFF).unwrap();
    assert_eq!(scalar(&loss.total), 0.0);
    assert!(loss.parts.is_empty());
    assert!(!OFF.reads().originals() && !OFF.reads().mixes());
}

/// Each term alone gives its value with every output that `reads` does not name left out.
#[test]
fn what_no_term_reads_may_be_left_out() {
    let sample = Sample::new(DType::F64);
    let full = sample.run(&sample.outputs(), &ObjectiveConfig::default());
    for (name, value) in full.unwrap().parts {
        let mut config = OFF;
        match name {
            "task_original" => config.task_original = 1.0,
            "task_mix" => config.task_mix = 1.0,
            "feature" => config.feature = 1.0,
            "adversarial" => config.adversarial = 1.0,
            "branch_probability" => config.branch_probability = 1.0,
            "self_teacher_task" => config.self_teacher_task = 1.0,
            "backbone_probability" => config.backbone_probability = 1.0,
            other => panic!("{other}"),
        }
        let (read, mut outputs) = (config.reads(), sample.outputs());
        let clear = |list: &mut Vec<Tensor>, read: bool| {
            if !read {
                list.clear();
            }
        };
        // One list of logits says how many heads there are.
        clear(&mut outputs.original, read.original || !read.mixed);
        clear(&mut outputs.mixed, read.mixed);
        clear(&mut outputs.interpolated, read.interpolated);
        clear(&mut outputs.interpolated_features, read.features);
        clear(&mut outputs.mixed_features, read.features);
        clear(&mut outputs.discriminator_interpolated, read.discriminators);
        clear(&mut outputs.discriminator_mixed, read.discriminators);
        if !read.teacher {
            (outputs.teacher_interpolated, outputs.teacher_mixed) = (None, None);
        }
        let alone = sample.run(&outputs, &config).unwrap();
        check_close(name, &alone.total, &value, 1e-15, 0.0);
        if read.teacher {
            outputs.teacher_mixed = None;
            assert!(sample.run(&outputs, &config).is_err());
        }
    }
}

#[test]
fn discriminators_may_be_missing_only_without_their_term() {
    let sample = Sample::new(DType::F32);
    let mut outputs = sample.outputs();
    outputs.discriminator_interpolated.clear();
    outputs.discriminator_mixed.clear();
    let error = sample
        .run(&outputs, &ObjectiveConfig::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "objective: discriminator_interpolated holds 0 tensors, wanted 2, one for each branch and the backbone"
    );
    let config = ObjectiveConfig {
        adversarial: 0.0,
        ..ObjectiveConfig::default()
    };
    sample.run(&outputs, &config).unwrap();
    outputs.discriminator_mixed = sample.outputs().discriminator_mixed;
    outputs.discriminator_mixed.truncate(1);
    assert!(sample.run(&outputs, &config).is_err());
}

#[test]
fn reversal_turns_the_features_gradient_and_only_that() {
    let mut n = Numbers(3);
    let features = Var::from_tensor(&n.tensor(&[2, 3], 1.0)).unwrap();
    let gradient = |mode: DiscriminatorMode| {
        let read = mode.input(&features).unwrap();
        let grads = read.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        grads.get(&features).unwrap().clone()
    };
    let joint = gradient(DiscriminatorMode::Joint);
    check_close(
        "frozen",
        &gradient(DiscriminatorMode::Frozen),
        &joint,
        0.0,
        0.0,
    );
    let reversed = gradient(DiscriminatorMode::Reversal);
    check_close("reversal", &reversed, &joint.neg().unwrap(), 1e-15, 0.0);
}

#[test]
fn bad_numbers_are_named() {
    let check = |config: ObjectiveConfig, key: &str| match config.validate().unwrap_err() {
        Error::Range { key: named, .. } => assert_eq!(named, key),
        other => panic!("{other}"),
    };
    let good = ObjectiveConfig::default();
    check(
        ObjectiveConfig {
            feature: -1.0,
            ..good
        },
        "feature",
    );
    check(
        ObjectiveConfig {
            task_mix: f64::NAN,
            ..good
        },
        "task_mix",
    );
    check(
        ObjectiveConfig {
            adversarial: f64::INFINITY,
            ..good
        },
        "adversarial",
    );
    for temperature in [0.0, -3.0, f64::NAN, f64::INFINITY] {
        check(
            ObjectiveConfig {
                temperature,
                ..good
            },
            "temperature",
        );
    }
}

#[test]
fn an_unknown_preset_gets_the_nearest_name() {
    let error = ObjectiveConfig::preset("reference-cifer")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "unknown objective `reference-cifer`\nhint: did you mean `reference-cifar`? \
         known: mixskd, agreement, soft-labels, reference-cifar, reference-imagenet"
    );
}

#[test]
fn configuration_survives_serialisation_and_refuses_unknown_keys() {
    for preset in ALL {
        let text = serde_json::to_string(&preset.config).unwrap();
        assert_eq!(
            serde_json::from_str::<ObjectiveConfig>(&text).unwrap(),
            preset.config
        );
    }
    let partial = r#"{"feature": 0.5, "discriminator": "reversal"}"#;
    let config: ObjectiveConfig = serde_json::from_str(partial).unwrap();
    assert_eq!(config.feature, 0.5);
    assert_eq!(config.discriminator, DiscriminatorMode::Reversal);
    assert_eq!(config.temperature, 3.0);
    assert!(serde_json::from_str::<ObjectiveConfig>(r#"{"features": 1.0}"#).is_err());
}

#[test]
fn shapes_and_types_are_named() {
    let mut n = Numbers(5);
    let logits = n.tensor(&[2, 3], 1.0);
    let labels = n.labels(2, 3);
    let message = |r: mixskd_losses::Result<Tensor>| r.unwrap_err().to_string();
    assert_eq!(
        message(mixskd_losses::cross_entropy(&logits, &n.labels(3, 3))),
        "cross_entropy: labels must be [2], got [3]"
    );
    assert_eq!(
        message(mixskd_losses::cross_entropy(&logits, &n.lambda(2))),
        "cross_entropy: labels must be u32 class indices, got F64"
    );
    assert_eq!(
        message(mixskd_losses::cross_entropy(&labels, &labels)),
        "cross_entropy: logits must be [batch, class], neither of them 0, got [2]"
    );
    let bytes = Tensor::zeros((2, 3), DType::U8, &Device::Cpu).unwrap();
    for refused in [
        message(mixskd_losses::cross_entropy(&bytes, &labels)),
        message(mixskd_losses::kl_divergence(&bytes, &bytes, 3.0)),
        message(mixskd_losses::feature_mse(&bytes, &bytes)),
        message(mixskd_losses::mix_cross_entropy(
            &bytes,
            &labels,
            &labels,
            &n.lambda(2),
        )),
        message(mixskd_losses::virtual_teacher(&bytes, &labels, 0.1, 2.0)),
    ] {
        assert!(refused.ends_with("must be floats, got U8"), "{refused}");
    }
    assert_eq!(
        message(mixskd_losses::kl_divergence(
            &logits,
            &n.tensor(&[2, 4], 1.0),
            3.0
        )),
        "kl_divergence: teacher must be [2, 3], got [2, 4]"
    );
    assert!(
        message(mixskd_losses::kl_divergence(&logits, &logits, 0.0))
            .starts_with("temperature = 0 is out of range\nhint: ")
    );
    assert_eq!(
        message(mixskd_losses::feature_mse(&logits, &labels)),
        "feature_mse: b must be [2, 3], got [2]"
    );
    assert_eq!(
        message(mixskd_losses::discriminator_loss(&logits, &logits)),
        "discriminator_loss: interpolated must be [batch, 1] or [batch, 2], got [2, 3]"
    );
    assert!(mixskd_losses::gradient_reversal(&logits, f64::NAN).is_err());
    let high = Tensor::new(&[0u32, 3], &candle_core::Device::Cpu).unwrap();
    assert!(mixskd_losses::cross_entropy(&logits, &high).is_err());
}
