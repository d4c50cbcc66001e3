//! One whole step of every method that draws nothing, beside float64 PyTorch: `golden/methods.py` computed them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{ModelConfig, ParamStore, Strictness};
use mixskd_train::method::{self, MethodConfig, MethodInputs, TrainBatch};

/// Methods that mix or cut by numbers of their own, which another program cannot draw: see `drawn_golden.rs`.
const DRAWN: [&str; 4] = ["mixup", "manifold-mixup", "cutmix", "mixskd"];

fn below(golden: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let strip =
        |(name, t): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_string(), t.clone()));
    golden.iter().filter_map(strip).collect()
}

/// Largest difference relative to the largest value of the tensor.
fn relative(ours: &Tensor, theirs: &Tensor) -> f64 {
    let flat = |t: &Tensor| {
        let t = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
        t.to_vec1::<f64>().unwrap()
    };
    let (ours, theirs) = (flat(ours), flat(theirs));
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(1e-6f64, |m, x| m.max(x.abs()));
    let pairs = ours.iter().zip(&theirs);
    // In the total order NaN is above all numbers.
    let apart = pairs.map(|(a, b)| (a - b).abs());
    apart.max_by(f64::total_cmp).unwrap_or(0.0) / largest
}

/// `case` is a method's name, or `name+key=value`.
fn check(golden: &BTreeMap<String, Tensor>, case: &str, dtype: DType, tolerance: f64) {
    let (name, setting) = case.split_once('+').unwrap_or((case, ""));
    let spec = method::spec(name).unwrap();
    let mut table: toml::Table = setting.parse().unwrap();
    table.insert("name".into(), name.into());
    let config = MethodConfig::try_from(table).unwrap();
    let name = case;
    let rows = 4 * (spec.batch)(&config).unwrap().blocks();
    let store = ParamStore::new(0, dtype, &Device::Cpu);
    let model = ModelConfig {
        width: 0.03125,
        ..ModelConfig::new("cifar_resnet18", 5).unwrap()
    };
    let mut method = (spec.build)(&MethodInputs {
        config: &config,
        objective: &ObjectiveConfig::default(),
        model: &model,
        store: &store,
        seed: 0,
        epochs: 4,
        train_images: 4,
        freeze_backbone: false,
    })
    .unwrap();
    let initial = below(golden, "initial/");
    let report = store.load(&initial, Strictness::Partial).unwrap();
    assert!(
        report.missing.is_empty() && report.mismatched.is_empty(),
        "{name}: {report}"
    );
    if !method.state().unwrap().is_empty() {
        let past = BTreeMap::from([("predictions".to_string(), golden["past"].clone())]);
        method.load_state(&past).unwrap();
    }
    let batch = TrainBatch {
        images: golden["images"]
            .narrow(0, 0, rows)
            .unwrap()
            .to_dtype(dtype)
            .unwrap(),
        labels: golden["labels"].narrow(0, 0, rows).unwrap(),
        indices: (0..rows as u32).map(|row| row % 4).collect(),
        epoch: 1,
        step: 0,
        draws: vec![],
    };
    let output = method.step(&batch).unwrap();
    assert_eq!(output.targets.dims(), [4], "{name}");
    assert_eq!(output.logits.dims(), [4, 5], "{name}");

    let parts = below(golden, &format!("{name}/part/"));
    let named: BTreeSet<_> = output
        .parts
        .iter()
        .map(|(part, _)| (*part).to_string())
        .collect();
    assert_eq!(named, parts.keys().cloned().collect(), "{name}");
    let close = |what: &str, ours: &Tensor, theirs: &Tensor| {
        let error = relative(ours, theirs);
        assert!(error < tolerance, "{name}, {what}: {error:.1e}");
    };
    for (part, value) in &output.parts {
        close(part, value, &parts[*part]);
    }
    close("total", &output.loss, &golden[&format!("{name}/total")]);
    let gradients = output.loss.backward().unwrap();
    let parameters: BTreeMap<_, _> = store.parameters().into_iter().collect();
    let expected = below(golden, &format!("{name}/grad/"));
    assert!(expected.len() >= 4);
    for (parameter, theirs) in &expected {
        let ours = gradients.get(&parameters[parameter]);
        close(parameter, ours.unwrap(), theirs);
    }
}

#[test]
fn whole_steps_match_pytorch() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/methods.safetensors"
    );
    let golden = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let golden: BTreeMap<String, Tensor> = golden.into_iter().collect();
    let mut seen = BTreeSet::new();
    for case in golden.keys().filter_map(|key| key.strip_suffix("/total")) {
        // PS-KD's past predictions are float32.
        check(&golden, case, DType::F64, 1e-7);
        check(&golden, case, DType::F32, 1e-4);
        seen.insert(case);
    }
    for spec in method::ALL {
        let drawn = DRAWN.contains(&spec.name);
        assert_ne!(drawn, seen.contains(spec.name), "{}", spec.name);
    }
}
