//! Whole analyses of untrained networks on small data: what is in them, whose order does not matter, what is refused.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use mixskd_analyze::{Analysis, AnalyzeConfig, Classifier, Measure, Step, analyze};
use mixskd_data::{Dataset, PackedSamples, Preset};
use mixskd_models::weights::{self, Metadata};
use mixskd_models::{ModelConfig, ParamStore};

const CLASSES: usize = 3;
const SIDE: usize = 8;

/// `images` noisy images of three classes that differ in colour, sorted by class.
fn samples(images: usize) -> Arc<PackedSamples> {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for k in 0..images {
        let label = k * CLASSES / images;
        labels.push(label as u32);
        for place in 0..SIDE * SIDE {
            for channel in 0..3 {
                let noise = (k * 31 + place * 17 + channel * 7) % 97;
                pixels.push((if channel == label { 150 } else { 20 } + noise) as u8);
            }
        }
    }
    Arc::new(PackedSamples::new((SIDE, SIDE, 3), pixels, labels, "made.bin").unwrap())
}

fn dataset() -> Dataset {
    let classes = ["red", "green", "blue"].map(String::from).to_vec();
    let mut dataset = Dataset::new("made", classes, 3, (SIDE, SIDE), samples(30), samples(21));
    dataset.uniform = true;
    dataset
}

fn network(name: &str, seed: u64, change: impl FnOnce(&mut Metadata)) -> Classifier {
    let model = ModelConfig {
        width: 0.03125,
        input: SIDE,
        ..ModelConfig::new("cifar_resnet18", CLASSES).unwrap()
    };
    let mut metadata = Metadata {
        classes: dataset().classes,
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
        ..Metadata::new(model)
    };
    change(&mut metadata);
    let store = ParamStore::new(seed, DType::F32, &Device::Cpu);
    let backbone = metadata.model.build(store.builder()).unwrap();
    Classifier::new(name, backbone, metadata, &Device::Cpu).unwrap()
}

fn pair() -> [Classifier; 2] {
    [network("a", 1, |_| ()), network("b", 2, |_| ())]
}

fn run(config: &AnalyzeConfig) -> Analysis {
    analyze(&pair(), &dataset(), config, &mut |_| ()).unwrap()
}

#[test]
fn everything_is_measured_and_adds_up() {
    let mut steps = Vec::new();
    let config = AnalyzeConfig {
        batch: 8,
        ..AnalyzeConfig::default()
    };
    let mut progress = |step: Step<'_>| steps.push((step.what, step.done, step.total));
    let analysis = analyze(&pair(), &dataset(), &config, &mut progress).unwrap();
    assert_eq!((analysis.images, analysis.test_images), (21, 21));
    assert!(steps.contains(&("test images", 21, 21)));
    assert!(steps.contains(&("mean of training images", 30, 30)));
    assert!(steps.contains(&("Grad-CAM", 8, 8)));
    for network in &analysis.networks {
        let calibration = network.calibration.as_ref().unwrap();
        assert_eq!(calibration.all.accuracy, network.top1);
        assert!((calibration.all.nll - network.loss).abs() < 1e-12);
        let scaling = calibration.scaling.as_ref().unwrap();
        assert_eq!(scaling.fitted_on + scaling.after.images, 21);
        assert!(scaling.temperature.nll_after <= scaling.temperature.nll_before);
        // One number divides all logits: the same classes come out.
        assert_eq!(scaling.before.accuracy, scaling.after.accuracy);

        let classes = network.per_class.as_ref().unwrap();
        assert_eq!(classes.iter().map(|c| c.images).sum::<usize>(), 21);
        let right = classes
            .iter()
            .map(|c| c.top1.unwrap() * c.images as f64)
            .sum::<f64>();
        assert!((right / 21.0 - network.top1).abs() < 1e-12);

        let fgsm = network.fgsm.as_ref().unwrap();
        assert_eq!((fgsm[0].epsilon, fgsm[0].top1), (0.0, network.top1));
        assert_eq!(fgsm[0].loss, network.loss);
        // A first-order step as small as this goes up the loss.
        assert!(fgsm[1].epsilon == 0.5 && fgsm[1].loss > fgsm[0].loss);

        let mixed = network.mixed.as_ref().unwrap();
        assert!(mixed.iter().all(|point| point.pairs == 20));
        let rescaling = network.rescaling.as_ref().unwrap();
        assert_eq!(rescaling.plain.accuracy, network.top1);
        assert_eq!(rescaling.mean_images, 30);
    }
    let agreement = analysis.agreement.as_ref().unwrap();
    let parts = [
        agreement.both_right.images,
        agreement.both_wrong.images,
        agreement.only_a_right,
        agreement.only_b_right,
    ];
    assert_eq!(parts.iter().sum::<usize>(), 21);
    assert_eq!(analysis.pictures.len(), 8);
}

/// The rule stands in two crates that know nothing of each other.
#[test]
fn foreign_weights_are_given_the_resize_of_evaluation() {
    for input in [8, 32, 63, 64, 224, 299, 7168, 7169, 8192] {
        let model = ModelConfig {
            input,
            ..ModelConfig::new("resnet18", CLASSES).unwrap()
        };
        let preset = if input < 64 {
            Preset::Cifar
        } else {
            Preset::ImageNet
        };
        let shorter = preset.eval_shorter(input);
        let expected = weights::Resize::CentreCrop { shorter };
        assert_eq!(Metadata::usual(model).resize, expected, "{input}");
    }
}

#[test]
fn logits_that_are_not_finite_are_refused_with_their_row() {
    let good = network("a", 1, |_| ());
    let images = Tensor::zeros((4, SIDE, SIDE, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(good.rows(&images).unwrap().len(), 4);
    let broken = images.affine(1.0, f64::from(f32::MAX)).unwrap();
    let mixed = Tensor::cat(&[&images, &broken], 0).unwrap();
    let error = good.rows(&mixed).unwrap_err().to_string();
    assert!(
        error.starts_with("a: the logits of image 4 of a batch are not finite"),
        "{error}"
    );
}

#[test]
fn at_lambda_one_and_zero_a_mix_is_an_image() {
    // A constant order of the images: with λ = 1 the mixes are all but the last image, with λ = 0 all but the first.
    let config = AnalyzeConfig {
        measures: vec![Measure::Mixed],
        lambdas: vec![0.0, 1.0],
        batch: 5,
        ..AnalyzeConfig::default()
    };
    let analysis = run(&config);
    for network in &analysis.networks {
        let mixed = network.mixed.as_ref().unwrap();
        let total = network.loss * 21.0;
        for point in mixed {
            // The image that is left out has a loss of its own, so the sum over the others stays below the whole.
            assert!(point.loss * 20.0 < total, "{point:?}");
            assert!(point.error <= 1.0 - network.top1 + 1.0 / 20.0 + 1e-9);
        }
    }
}

#[test]
fn neither_threads_nor_the_batch_change_a_result() {
    let config = |batch| AnalyzeConfig {
        batch,
        ..AnalyzeConfig::default()
    };
    let on = |threads, batch| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let analysis = pool.build().unwrap().install(|| run(&config(batch)));
        let mut json = serde_json::to_value(&analysis).unwrap();
        json.as_object_mut().unwrap().remove("config");
        (json, analysis.pictures)
    };
    let (one, pictures) = on(1, 7);
    assert_eq!((one.clone(), pictures.clone()), on(3, 7));
    let (other, same) = on(2, 21);
    assert_eq!(pictures, same);
    let top1 = |json: &serde_json::Value| json["networks"][0]["fgsm"].clone();
    let (a, b) = (top1(&one), top1(&other));
    for (a, b) in a.as_array().unwrap().iter().zip(b.as_array().unwrap()) {
        let loss = |point: &serde_json::Value| point["loss"].as_f64().unwrap();
        assert!((loss(a) - loss(b)).abs() < 1e-3, "{a} and {b}");
    }
}

#[test]
fn the_files_are_the_result() {
    let config = AnalyzeConfig {
        images: vec![20, 3],
        cam_stage: 2,
        ..AnalyzeConfig::default()
    };
    let analysis = run(&config);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new").join("analysis");
    analysis.write(&out).unwrap();
    let json = std::fs::read(out.join("analysis.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let whole = serde_json::to_string(&analysis).unwrap();
    assert_eq!(
        json,
        serde_json::from_str::<serde_json::Value>(&whole).unwrap()
    );
    assert_eq!(json["pictures"][0]["index"], 20);
    assert_eq!(json["pictures"][0]["origin"], "made.bin record 20");
    assert_eq!(json["pictures"][0]["class"], "blue");
    for picture in &analysis.pictures {
        let mut files = vec![picture.input.file.clone()];
        for view in &picture.views {
            files.push(view.for_predicted.file.clone());
            assert_eq!(view.for_class.is_some(), view.predicted != picture.class);
            files.extend(view.for_class.as_ref().map(|file| file.file.clone()));
        }
        for file in files {
            let bytes = std::fs::read(out.join(&file)).unwrap();
            assert_eq!(bytes[..4], *b"\x89PNG", "{file}");
        }
    }
}

fn refused(networks: &[Classifier], config: &AnalyzeConfig, cause: &str, hint: &str) {
    let error = analyze(networks, &dataset(), config, &mut |_| ()).unwrap_err();
    let text = error.to_string();
    let (said, advice) = text.split_once("\nhint: ").unwrap();
    assert!(said.contains(cause), "{said}");
    assert!(advice.contains(hint), "{advice}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = AnalyzeConfig::default();
    let other_classes = network("w", 0, |metadata| {
        metadata.model.classes = 5;
        metadata.classes.clear();
    });
    refused(
        &[other_classes],
        &config,
        "w knows 5 classes, made has 3",
        "--data",
    );
    let other_names = network("w", 0, |m| m.classes.swap(0, 2));
    refused(
        &[other_names],
        &config,
        "class 0 is `blue` in w, but `red`",
        "--data",
    );
    let grey = network("w", 0, |metadata| {
        metadata.model.channels = 1;
        metadata.mean = vec![0.5];
        metadata.std = vec![0.5];
    });
    refused(&[grey], &config, "takes 1 channels", "--data");
    let images = AnalyzeConfig {
        images: vec![21],
        ..AnalyzeConfig::default()
    };
    refused(&pair(), &images, "no test image 21: made has 21", "0 to 20");
    let stage = AnalyzeConfig {
        cam_stage: 5,
        ..AnalyzeConfig::default()
    };
    refused(&pair(), &stage, "a has no stage 5", "1 to 4");
}

#[test]
fn logits_that_are_not_finite_name_their_image() {
    let broken = network("diverged", 0, |m| m.std = vec![1e-44; 3]);
    let config = AnalyzeConfig {
        measures: vec![Measure::Calibration],
        ..AnalyzeConfig::default()
    };
    refused(
        &[broken],
        &config,
        "diverged: the logits of test image",
        "diverged",
    );
}

#[test]
fn what_does_not_belong_together_is_refused_before_anything_is_measured() {
    let config = AnalyzeConfig::default();
    let mut odd = dataset();
    let labels = (0..21).map(|k| if k == 20 { 99 } else { k % 3 }).collect();
    let pixels = vec![0; 21 * SIDE * SIDE * 3];
    odd.test = Arc::new(PackedSamples::new((SIDE, SIDE, 3), pixels, labels, "odd.bin").unwrap());
    let error = analyze(&pair(), &odd, &config, &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().contains("label 99 is out of range"),
        "{error}"
    );

    // A network of three classes with the metadata of another.
    let model = ModelConfig {
        width: 0.03125,
        input: SIDE,
        ..ModelConfig::new("cifar_resnet18", CLASSES).unwrap()
    };
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let backbone = model.build(store.builder()).unwrap();
    let other = Metadata::new(ModelConfig {
        classes: 6,
        ..model
    });
    let error = Classifier::new("odd", backbone, other, &Device::Cpu)
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("odd: the network has 3 logits"),
        "{error}"
    );
}
