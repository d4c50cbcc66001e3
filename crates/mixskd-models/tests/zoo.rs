//! The networks beyond the plain ResNets against PyTorch in float64 (`golden/zoo.py`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use common::values;
use mixskd_models::{Mode, ModelConfig, ParamStore, Strictness, registry};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-6;
const CLASSES: usize = 5;

/// What `zoo.py` stores of one network.
#[derive(Deserialize)]
struct Golden {
    parameters: u64,
    macs: u64,
    width: f64,
    side: usize,
    eval: Vec<f64>,
    train: Vec<f64>,
    grad: BTreeMap<String, [f64; 2]>,
    after: BTreeMap<String, f64>,
}

fn golden() -> BTreeMap<String, Golden> {
    serde_json::from_str(include_str!("golden/zoo.json")).unwrap()
}

/// `count` numbers in [−1, 1) from a name: FNV-1a, then SplitMix64.
fn draw(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let number = |index: u64| {
        let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    (0..count as u64).map(number).collect()
}

/// What the script sets a tensor of that name and shape to.
fn value(name: &str, dims: &[usize]) -> Tensor {
    let fan_in: usize = dims[1..].iter().product();
    let (scale, shift) = if dims.len() >= 2 {
        ((3.0 / fan_in as f64).sqrt(), 0.0)
    } else if name.ends_with("running_var") || name.ends_with("weight") {
        (0.3, 1.0)
    } else {
        (0.3, 0.0)
    };
    let count = dims.iter().product();
    let data: Vec<f64> = draw(name, count)
        .iter()
        .map(|x| x * scale + shift)
        .collect();
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

fn probe(name: &str, tensor: &Tensor) -> f64 {
    let values = values(tensor);
    let probe = draw(&format!("{name}.probe"), values.len());
    values.iter().zip(probe).map(|(a, b)| a * b).sum()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn check_logits(what: &str, got: &Tensor, expected: &[f64]) {
    let got = values(got);
    assert_eq!(got.len(), expected.len(), "{what}");
    let apart: Vec<f64> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
    let error = norm(&apart) / norm(expected);
    assert!(error < TOLERANCE, "{what}: relative error {error:e}");
}

fn check(name: &str) {
    let golden = golden().remove(name).unwrap();
    let config = ModelConfig {
        width: golden.width,
        ..ModelConfig::new(name, CLASSES).unwrap()
    };
    let store = ParamStore::blank(DType::F64, &Device::Cpu);
    let backbone = config.build(store.builder()).unwrap();
    let tensors: BTreeMap<String, Tensor> = store
        .tensors()
        .into_iter()
        .map(|(name, tensor)| (name.clone(), value(&name, tensor.dims())))
        .collect();
    store.load(&tensors, Strictness::Exact).unwrap();

    let shape = (3, golden.side, golden.side, 3);
    let x = draw("x", 9 * golden.side * golden.side);
    let x = Tensor::from_vec(x, shape, &Device::Cpu).unwrap();
    let evaluated = backbone.forward(&x, Mode::Eval).unwrap();
    check_logits(&format!("{name} eval"), &evaluated, &golden.eval);
    let trained = backbone.forward(&x, Mode::Train).unwrap();
    check_logits(&format!("{name} train"), &trained, &golden.train);

    let weight = draw("weight", trained.elem_count());
    let weight = Tensor::from_vec(weight, trained.shape(), &Device::Cpu).unwrap();
    let loss = (&trained * weight).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let parameters = store.parameters();
    assert!(
        parameters.iter().map(|p| &p.0).eq(golden.grad.keys()),
        "{name}: parameters' names"
    );
    // A bias before a batch norm or a softmax has no gradient but rounding's: its size is measured by the largest.
    let largest = golden.grad.values().fold(0.0, |m: f64, g| m.max(g[1]));
    for (parameter, var) in &parameters {
        let gradient = gradients.get(var.as_tensor()).unwrap();
        let [expected, size] = golden.grad[parameter];
        let got = [probe(parameter, gradient), norm(&values(gradient))];
        let error = (got[0] - expected).abs().max((got[1] - size).abs());
        assert!(
            error <= TOLERANCE * size + 1e-9 * largest,
            "{name}: gradient of {parameter}: {got:?}, expected {expected} and {size}"
        );
    }
    let buffers = store.buffers();
    assert!(
        buffers.iter().map(|b| &b.0).eq(golden.after.keys()),
        "{name}: statistics' names"
    );
    for (buffer, var) in &buffers {
        let got = probe(buffer, &var.as_detached_tensor());
        let expected = golden.after[buffer];
        assert!(
            (got - expected).abs() <= TOLERANCE * (1.0 + expected.abs()),
            "{name}: {buffer} is {got}, expected {expected}"
        );
    }
}

macro_rules! networks {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

networks!(
    cifar_wrn_16_2,
    cifar_wrn_28_10,
    cifar_preact_resnet18,
    cifar_vgg13_bn,
    cifar_densenet40_12,
    cifar_hcgnet_a1,
    cifar_mobilenetv2,
    cifar_shufflenetv2,
    resnet101,
    resnext50_32x4d,
    densenet121,
    mobilenet_v2,
    shufflenet_v2_x1_0,
    efficientnet_b0,
);

/// Every network of the registry has stored values, here or in `golden.rs`.
#[test]
fn none_is_left_out() {
    let golden = golden();
    let elsewhere = ["resnet18", "resnet34", "resnet50"];
    for spec in registry::ALL {
        let plain = spec.name.trim_start_matches("cifar_");
        assert!(
            golden.contains_key(spec.name) || elsewhere.contains(&plain),
            "{}",
            spec.name
        );
    }
}

#[test]
fn full_width_costs_what_pytorch_counts() {
    for (name, golden) in golden() {
        let classes = if name.starts_with("cifar") { 100 } else { 1000 };
        let config = ModelConfig::new(&name, classes).unwrap();
        // Zeros are free until written: full-width networks need no memory here.
        let store = ParamStore::blank(DType::F32, &Device::Cpu);
        let backbone = config.build(store.builder()).unwrap();
        let cost = backbone.cost((config.input, config.input)).unwrap();
        assert_eq!(cost.parameters, golden.parameters, "{name}");
        assert_eq!(store.count("") as u64, golden.parameters, "{name}");
        assert_eq!(cost.macs, golden.macs, "{name}");
    }
}
