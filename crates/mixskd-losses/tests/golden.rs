//! Values and gradients against independent float64 implementations, `golden/losses.py` and `golden/methods.py`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use common::{check_close, flat, outputs_from, scalar};
use mixskd_losses::{
    ObjectiveConfig, attention_distance, attention_distillation, cross_entropy, discriminator_loss,
    ensemble_targets, entropy, feature_mse, focal_loss, kernel_mmd, kl_divergence,
    kl_divergence_attached, kl_from_targets, label_smoothing, mix_cross_entropy, mutual_kl,
    objective, scalar_mean_difference, soft_cross_entropy, virtual_softmax, virtual_teacher,
};

const LISTS: [&str; 7] = [
    "original",
    "mixed",
    "interpolated",
    "interpolated_features",
    "mixed_features",
    "discriminator_interpolated",
    "discriminator_mixed",
];

/// One stored case: its inputs as variables, and what is expected of them.
struct Case {
    name: String,
    inputs: HashMap<String, Var>,
    fixed: HashMap<String, Tensor>,
    expected: HashMap<String, Tensor>,
    relative: f64,
    absolute: f64,
}

impl Case {
    fn get(&self, name: &str) -> Tensor {
        match self.inputs.get(name) {
            Some(var) => var.as_tensor().clone(),
            None => self.fixed[name].clone(),
        }
    }

    fn check(&self, loss: &Tensor) {
        let close = |what: &str, got: &Tensor| {
            let expected = &self.expected[what];
            let what = format!("{} {what}", self.name);
            check_close(&what, got, expected, self.relative, self.absolute);
        };
        close("value", loss);
        let grads = loss.backward().unwrap();
        assert!(!self.inputs.is_empty(), "{}", self.name);
        for (name, var) in &self.inputs {
            let what = format!("grad/{name}");
            match grads.get(var) {
                Some(grad) => close(&what, grad),
                None => assert!(
                    flat(&self.expected[&what]).iter().all(|&g| g == 0.0),
                    "{}: no gradient reaches {name}",
                    self.name
                ),
            }
        }
    }
}

fn cases(file: &str, dtype: DType) -> Vec<Case> {
    let path = format!(
        "{}/tests/golden/{file}.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    let all = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let (relative, absolute) = match dtype {
        DType::F64 => (1e-12, 1e-15),
        _ => (1e-5, 1e-7),
    };
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for (key, tensor) in &all {
        let mut pieces = key.splitn(3, '/');
        let name = format!("{}/{}", pieces.next().unwrap(), pieces.next().unwrap());
        let rest = pieces.next().unwrap();
        let case = cases.entry(name.clone()).or_insert_with(|| Case {
            name,
            inputs: HashMap::new(),
            fixed: HashMap::new(),
            expected: HashMap::new(),
            relative,
            absolute,
        });
        if let Some(input) = rest.strip_prefix("in/") {
            if tensor.dtype() == DType::U32 || tensor.rank() < 2 {
                case.fixed.insert(input.into(), tensor.clone());
            } else {
                let var = Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap();
                case.inputs.insert(input.into(), var);
            }
        } else {
            case.expected.insert(rest.into(), tensor.clone());
        }
    }
    cases.into_values().collect()
}

fn check_objective(case: &Case) {
    let heads = (0..).take_while(|k| case.inputs.contains_key(&format!("mixed.{k}")));
    let heads = heads.count();
    let mut list = Vec::new();
    for name in LISTS {
        list.extend((0..heads).map(|k| case.get(&format!("{name}.{k}"))));
    }
    list.push(case.get("teacher_interpolated"));
    list.push(case.get("teacher_mixed"));
    let weights = flat(&case.get("weights"));
    let config = ObjectiveConfig {
        task_original: weights[0],
        task_mix: weights[1],
        feature: weights[2],
        adversarial: weights[3],
        branch_probability: weights[4],
        self_teacher_task: weights[5],
        backbone_probability: weights[6],
        temperature: scalar(&case.get("temperature")),
        ..ObjectiveConfig::default()
    };
    let loss = objective(
        &outputs_from(&list, heads),
        &case.get("labels"),
        &case.get("partner_labels"),
        &case.get("lambda"),
        &config,
    )
    .unwrap();
    assert_eq!(
        loss.parts.len(),
        weights.iter().filter(|&&w| w > 0.0).count()
    );
    for (name, part) in &loss.parts {
        check_close(
            &format!("{} {name}", case.name),
            part,
            &case.expected[&format!("value/{name}")],
            case.relative,
            case.absolute,
        );
    }
    case.check(&loss.total);
}

fn check_all(dtype: DType) {
    let mut terms = BTreeSet::new();
    for case in cases("losses", dtype) {
        let term = case.name.split('/').next().unwrap().to_string();
        let get = |name: &str| case.get(name);
        let loss = match term.as_str() {
            "objective" => {
                check_objective(&case);
                None
            }
            "cross_entropy" => Some(cross_entropy(&get("logits"), &get("labels"))),
            "mix_cross_entropy" => Some(mix_cross_entropy(
                &get("logits"),
                &get("labels"),
                &get("partner_labels"),
                &get("lam"),
            )),
            "soft_cross_entropy" => Some(soft_cross_entropy(&get("logits"), &get("targets"))),
            "kl_divergence" => Some(kl_divergence(
                &get("student"),
                &get("teacher"),
                scalar(&get("temperature")),
            )),
            "feature_mse" => Some(feature_mse(&get("a"), &get("b"))),
            "discriminator_loss" => Some(discriminator_loss(&get("interpolated"), &get("mixed"))),
            other => panic!("golden file holds {other}, which no test reads"),
        };
        if let Some(loss) = loss {
            case.check(&loss.unwrap());
        }
        terms.insert(term);
    }
    assert_eq!(terms.len(), 7, "{terms:?}");
}

/// The losses of the methods beside MixSKD.
fn check_methods(dtype: DType) {
    let mut terms = BTreeSet::new();
    for case in cases("methods", dtype) {
        let term = case.name.split('/').next().unwrap().to_string();
        let get = |name: &str| case.get(name);
        let number = |name: &str| scalar(&get(name));
        let loss = match term.as_str() {
            "label_smoothing" => label_smoothing(&get("logits"), &get("labels"), number("epsilon")),
            "focal_loss" => focal_loss(&get("logits"), &get("labels"), number("gamma")),
            "entropy" => entropy(&get("logits")),
            "virtual_softmax" => virtual_softmax(
                &get("logits"),
                &get("features"),
                &get("weight"),
                &get("labels"),
            ),
            "hand_made_teacher" => virtual_teacher(
                &get("logits"),
                &get("labels"),
                number("epsilon"),
                number("temperature"),
            ),
            "kernel_mmd" => kernel_mmd(&get("a"), &get("b")),
            "scalar_mean_difference" => scalar_mean_difference(&get("a"), &get("b")),
            "mutual_kl" => {
                let heads: Vec<_> = (0..case.inputs.len())
                    .map(|k| get(&format!("heads.{k}")))
                    .collect();
                mutual_kl(&heads, number("temperature"))
            }
            "attention_distillation" => attention_distillation(&get("shallow"), &get("deep")),
            "attention_distance" => attention_distance(&get("a"), &get("b")),
            "kl_from_targets" => {
                kl_from_targets(&get("student"), &get("targets"), number("temperature"))
            }
            "kl_divergence_attached" => {
                kl_divergence_attached(&get("student"), &get("teacher"), number("temperature"))
            }
            "ensemble_targets" => {
                let targets = ensemble_targets(
                    &get("features"),
                    &get("logits"),
                    number("omega"),
                    number("temperature"),
                );
                let expected = &case.expected["value"];
                check_close(&case.name, &targets.unwrap(), expected, 1e-12, 1e-15);
                terms.insert(term);
                continue;
            }
            other => panic!("golden file holds {other}, which no test reads"),
        };
        case.check(&loss.unwrap());
        terms.insert(term);
    }
    assert_eq!(terms.len(), 13, "{terms:?}");
}

#[test]
fn double_precision() {
    check_all(DType::F64);
}

#[test]
fn other_methods_in_double_precision() {
    check_methods(DType::F64);
}

#[test]
fn other_methods_in_single_precision() {
    check_methods(DType::F32);
}

#[test]
fn single_precision() {
    check_all(DType::F32);
}
