//! Measures beside other people's code: `golden/analysis.py` computed the values.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use mixskd_analyze::{
    ClassActivationMap, Classifier, Prediction, Reliability, Row, fgsm, fit_temperature, mean_theta,
};
use mixskd_models::weights::Metadata;
use mixskd_models::{ModelConfig, ParamStore, Strictness};

type Golden = HashMap<String, Tensor>;

fn golden() -> Golden {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/analysis.safetensors"
    );
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    flat.to_vec1().unwrap()
}

fn labels(golden: &Golden, name: &str) -> Vec<u32> {
    golden[name].to_vec1().unwrap()
}

fn single(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F32).unwrap()
}

/// Largest difference relative to the largest value.
fn relative(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(1e-9f64, |m, x| m.max(x.abs()));
    let pairs = ours.iter().zip(theirs);
    // In the total order NaN is above all numbers.
    let apart = pairs.map(|(a, b)| (a - b).abs());
    apart.max_by(f64::total_cmp).unwrap_or(0.0) / largest
}

fn network(golden: &Golden) -> Classifier {
    let model = ModelConfig {
        width: 0.03125,
        input: 16,
        ..ModelConfig::new("cifar_resnet18", 5).unwrap()
    };
    let store = ParamStore::blank(DType::F32, &Device::Cpu);
    let backbone = model.build(store.builder()).unwrap();
    let weights = golden
        .iter()
        .filter_map(|(name, t)| Some((name.strip_prefix("network/")?.to_string(), single(t))))
        .filter(|(name, _)| name != "mean" && name != "std")
        .collect::<BTreeMap<_, _>>();
    store.load(&weights, Strictness::Exact).unwrap();
    let metadata = Metadata {
        mean: single(&golden["network/mean"]).to_vec1().unwrap(),
        std: single(&golden["network/std"]).to_vec1().unwrap(),
        ..Metadata::new(model)
    };
    Classifier::new("golden", backbone, metadata, &Device::Cpu).unwrap()
}

#[test]
fn calibration_errors_are_torchmetrics_and_the_temperature_is_pytorchs() {
    let golden = golden();
    let labels = labels(&golden, "calibration/labels");
    let logits = single(&golden["calibration/logits"])
        .to_vec2::<f32>()
        .unwrap();
    let rows = logits.into_iter().zip(&labels).enumerate();
    let rows = rows
        .map(|(index, (logits, &label))| Row {
            index,
            label: label as usize,
            logits,
        })
        .collect::<Vec<_>>();
    let at = |temperature| {
        let predictions = rows
            .iter()
            .map(|row| Prediction::new(row.index, row.label, &row.logits, temperature))
            .collect::<Vec<_>>();
        Reliability::new(&predictions, 15)
    };
    let check = |name: &str, ours: f64, tolerance: f64| {
        let theirs = numbers(&golden[&format!("calibration/{name}")])[0];
        assert!(
            (ours - theirs).abs() < tolerance,
            "{name}: {ours} and {theirs}"
        );
    };
    let plain = at(1.0);
    // torchmetrics keeps confidences in float32.
    check("ece", plain.ece, 1e-6);
    check("mce", plain.mce, 1e-6);
    check("nll", plain.nll, 1e-9);
    check("brier", plain.brier, 1e-9);
    check("accuracy", plain.accuracy, 1e-12);
    let fitted = fit_temperature(&rows);
    check("temperature", fitted.value, 1e-6);
    check("nll_scaled", fitted.nll_after, 1e-9);
    assert!((at(fitted.value).nll - fitted.nll_after).abs() < 1e-12);
}

#[test]
fn logits_gradients_and_attacks_are_pytorchs() {
    let golden = golden();
    let network = network(&golden);
    let images = network.normalise(&single(&golden["images"])).unwrap();
    let labels = labels(&golden, "labels");
    let ours = numbers(&network.logits(&images).unwrap());
    assert!(relative(&ours, &numbers(&golden["logits"])) < 1e-5);

    let gradient = network.image_gradient(&images, &labels).unwrap();
    let theirs = numbers(&golden["gradient"]);
    let error = relative(&numbers(&gradient), &theirs);
    assert!(error < 1e-5, "{error:.1e}");

    for epsilon in [4.0, 16.0] {
        let attacked = fgsm(&network, &images, &gradient, epsilon).unwrap();
        let ours = numbers(&attacked);
        let wanted = numbers(&golden[&format!("fgsm/{epsilon}")]);
        // The sign of a gradient as small as the rounding error is nobody's.
        let clear = |k: &usize| theirs[*k].abs() > 1e-5;
        let compared = (0..ours.len()).filter(clear).collect::<Vec<_>>();
        assert!(compared.len() > ours.len() * 9 / 10, "{}", compared.len());
        for k in compared {
            let (a, b) = (ours[k], wanted[k]);
            assert!((a - b).abs() < 1e-5, "ε {epsilon}, {k}: {a} and {b}");
        }
        let pixels = numbers(&network.to_pixels(&attacked).unwrap());
        assert!(pixels.iter().all(|p| (-1e-6..=1.0 + 1e-6).contains(p)));
        let clipped = pixels.iter().filter(|p| **p < 1e-6 || **p > 1.0 - 1e-6);
        assert!(clipped.count() > 100, "nothing was clipped");
    }
}

#[test]
fn heat_is_pytorchs() {
    let golden = golden();
    let network = network(&golden);
    let images = network.normalise(&single(&golden["images"])).unwrap();
    let mut compared = 0;
    for (stage, class) in [(2, 0), (2, 1), (4, 0), (4, 1)] {
        let name = format!("cam/{stage}/{class}");
        let heats = (0..4)
            .map(|k| {
                let image = images.narrow(0, k, 1).unwrap();
                ClassActivationMap::grad_cam(&network, &image, stage - 1, class).unwrap()
            })
            .collect::<Vec<_>>();
        let all = |heats: &[ClassActivationMap]| {
            let values = heats.iter().flat_map(|heat| &heat.values);
            values.map(|&v| f64::from(v)).collect::<Vec<_>>()
        };
        let error = relative(&all(&heats), &numbers(&golden[&name]));
        assert!(error < 1e-5, "{name}: {error:.1e}");
        compared += all(&heats).iter().filter(|v| **v > 0.0).count();
        if stage == 4 {
            let resized = heats.iter().map(|heat| heat.resized(16, 16));
            let ours = all(&resized.collect::<Vec<_>>());
            let error = relative(&ours, &numbers(&golden[&format!("{name}/resized")]));
            assert!(error < 1e-5, "{name} resized: {error:.1e}");
        }
    }
    assert!(compared > 50, "only {compared} places hold any heat");
}

#[test]
fn theta_is_the_integral() {
    let theirs = numbers(&golden()["rescaling/theta"]);
    for (alpha, theirs) in [0.1, 0.2, 0.4, 1.0, 3.0].into_iter().zip(theirs) {
        let ours = mean_theta(alpha);
        assert!((ours - theirs).abs() < 1e-6, "{alpha}: {ours} and {theirs}");
    }
}
