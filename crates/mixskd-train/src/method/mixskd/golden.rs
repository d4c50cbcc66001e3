//! Two whole steps against float64 PyTorch: `tests/golden/step.py` computed them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use mixskd_losses::DiscriminatorMode::{self, Frozen, Joint, Reversal};
use mixskd_models::{ModelConfig, ParamStore, Strictness};

use super::*;
use crate::OptimizerConfig;
use crate::method::MethodConfig;

/// Everything below the prefix, in the network's own number type.
fn below(
    golden: &BTreeMap<String, Tensor>,
    prefix: &str,
    dtype: DType,
) -> BTreeMap<String, Tensor> {
    let strip = |(name, t): (&String, &Tensor)| {
        Some((
            name.strip_prefix(prefix)?.to_string(),
            t.to_dtype(dtype).unwrap(),
        ))
    };
    golden.iter().filter_map(strip).collect()
}

/// Largest difference relative to the largest value of the tensor.
fn relative(ours: &Tensor, theirs: &Tensor) -> f64 {
    let max = |t: Tensor| {
        let values = t.abs().unwrap().flatten_all().unwrap().to_vec1::<f64>();
        // In the total order NaN is above all numbers.
        values.unwrap().into_iter().max_by(f64::total_cmp).unwrap()
    };
    let (ours, theirs) = (
        ours.to_dtype(DType::F64).unwrap(),
        theirs.to_dtype(DType::F64).unwrap(),
    );
    max((ours - &theirs).unwrap()) / max(theirs).max(1e-3)
}

/// Runs both steps in `dtype` and compares every part, and every tensor after the updates, to `tolerance`.
fn check(model: &str, width: f64, discriminator: DiscriminatorMode, dtype: DType, tolerance: f64) {
    let mode = match discriminator {
        DiscriminatorMode::Joint => "",
        DiscriminatorMode::Frozen => "-frozen",
        DiscriminatorMode::Reversal => "-reversal",
    };
    let path = format!("tests/golden/step-{model}{mode}.safetensors");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let golden: BTreeMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect();

    let store = ParamStore::new(0, dtype, &Device::Cpu);
    let model = ModelConfig {
        width,
        ..ModelConfig::new(model, 5).unwrap()
    };
    let config = MethodConfig::default();
    let objective = ObjectiveConfig {
        discriminator,
        ..ObjectiveConfig::default()
    };
    let method = MixSkd::new(&MethodInputs {
        config: &config,
        objective: &objective,
        model: &model,
        store: &store,
        seed: 0,
        epochs: 1,
        train_images: 3,
        freeze_backbone: false,
    })
    .unwrap();
    store
        .load(&below(&golden, "initial/", dtype), Strictness::Exact)
        .unwrap();
    let optimizer = OptimizerConfig {
        lr: 0.05,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
        ..OptimizerConfig::default()
    };
    let mut optimizer = optimizer.build(store.parameters()).unwrap();

    for step in 0..2 {
        let get = |name: &str| golden[&format!("step{step}/{name}")].clone();
        let labels = get("labels");
        let partner = get("partner");
        let partner_labels = labels.index_select(&partner, 0).unwrap();
        let pairs = PairTensors {
            dominant: labels.clone(),
            cut: None,
            lambda: get("lambda").to_dtype(dtype).unwrap(),
            partner,
            partner_labels,
        };
        let images = get("images").to_dtype(dtype).unwrap();
        let batch = TrainBatch {
            images,
            labels,
            indices: vec![],
            epoch: 0,
            step,
            draws: vec![],
        };
        let output = method.step_with(&batch, &pairs).unwrap();
        for (name, value) in &output.parts {
            let error = relative(&value.reshape(1).unwrap(), &get(&format!("part/{name}")));
            assert!(error < tolerance, "step {step}, {name}: {error:.1e}");
        }
        assert!(relative(&output.loss.reshape(1).unwrap(), &get("total")) < tolerance);
        let gradients = output.loss.backward().unwrap();
        optimizer.step(&gradients, 0.05).unwrap();
    }
    let ours = store.tensors();
    let theirs = below(&golden, "after/", DType::F64);
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (name, tensor) in &theirs {
        let error = relative(&ours[name], tensor);
        assert!(error < tolerance, "{name} after two updates: {error:.1e}");
    }
}

#[test]
fn two_whole_steps_match_pytorch_in_float32() {
    check("cifar_resnet18", 0.0625, Joint, DType::F32, 1e-4);
    check("resnet18", 0.046875, Joint, DType::F32, 1e-4);
}

#[test]
fn two_whole_steps_match_pytorch_in_float64() {
    // The stored values are rounded to float32, which bounds what can be seen.
    check("cifar_resnet18", 0.0625, Joint, DType::F64, 1e-6);
    check("resnet18", 0.046875, Joint, DType::F64, 1e-6);
}

#[test]
fn frozen_and_reversed_discriminators_match_pytorch() {
    for mode in [Frozen, Reversal] {
        check("cifar_resnet18", 0.03125, mode, DType::F32, 1e-4);
        check("cifar_resnet18", 0.03125, mode, DType::F64, 1e-6);
    }
}
