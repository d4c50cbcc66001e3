//! What every network of the registry must do, and every module that hangs on it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use common::{check_close, images, small, values};
use mixskd_models::{
    Backbone, Branches, Discriminator, DiscriminatorHead, Frozen, HeadOutput, Mode, ModelConfig,
    ParamStore, SelfTeacher, Strictness, registry,
};

/// Smallest side at which every network's last map still has several pixels.
const SIDE: usize = 64;

fn side(config: &ModelConfig) -> usize {
    config.input.min(SIDE)
}

fn store(dtype: DType) -> ParamStore {
    ParamStore::new(3, dtype, &Device::Cpu)
}

/// Logits after one pass in training mode, so that the running statistics have moved.
fn trained_logits(config: &ModelConfig, store: &ParamStore) -> Tensor {
    let backbone = config.build(store.builder()).unwrap();
    let x = images(2, side(config), config.channels, DType::F32);
    backbone.stages(&x, Mode::Train).unwrap();
    let stages = backbone.stages(&x, Mode::Eval).unwrap();
    backbone.head(stages.last().unwrap()).unwrap()
}

#[test]
fn stages_have_the_promised_shapes() {
    for spec in registry::ALL {
        for (channels, classes, width) in [(3, 10, 0.0625), (1, 2, 0.03), (4, 1, 0.1)] {
            let config = ModelConfig {
                channels,
                width,
                ..small(spec.name, classes)
            };
            let backbone = config.build(store(DType::F32).builder()).unwrap();
            let side = side(&config);
            let x = images(2, side, channels, DType::F32);
            let stages = backbone.stages(&x, Mode::Train).unwrap();
            let cost = backbone.cost((side, side)).unwrap();
            assert_eq!(stages.len(), cost.stages.len());
            for (map, shape) in stages.iter().zip(&cost.stages) {
                assert_eq!(map.dims(), [2, shape.h, shape.w, shape.c], "{}", spec.name);
            }
            let logits = backbone.head(stages.last().unwrap()).unwrap();
            assert_eq!(logits.dims(), [2, classes], "{}", spec.name);
        }
    }
}

/// Whether what follows takes a bias away again, so that its gradient is zero but for rounding: a batch norm (VGG's convolutions,
/// the gates of HCGNet) or a softmax (the scores of an attention pool).
fn is_undone(name: &str) -> bool {
    let Some(layer) = name.strip_suffix(".bias") else {
        return false;
    };
    let before_norm = [".fc1", ".fcall", ".0", ".3"];
    layer.contains("context") || before_norm.iter().any(|end| layer.ends_with(end))
}

#[test]
fn every_parameter_of_the_whole_network_gets_a_finite_gradient() {
    for spec in registry::ALL {
        let store = store(DType::F64);
        let vb = store.builder();
        let config = small(spec.name, 4);
        let backbone = config.build(vb.pp("backbone")).unwrap();
        let last = *backbone.stage_channels().last().unwrap();
        let branches = Branches::new(backbone.as_ref(), 4, vb.pp("branches")).unwrap();
        let x = images(2, side(&config), 3, DType::F64);
        let heads = branches
            .all_outputs(backbone.as_ref(), &x, Mode::Train)
            .unwrap();
        let mut loss = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
        let mut add = |logits: &Tensor| {
            // Not the plain sum: batch norm makes that of some maps constant.
            let weight = images(2, 2, 1, DType::F64).flatten_all().unwrap();
            let weight = weight.narrow(0, 0, logits.dim(1).unwrap()).unwrap();
            let term = logits.broadcast_mul(&weight).unwrap().sqr().unwrap();
            loss = (&loss + term.sum_all().unwrap()).unwrap();
        };
        let mut maps = Vec::new();
        for (index, HeadOutput { features, logits }) in heads.into_iter().enumerate() {
            let discriminator = Discriminator::new(
                last,
                DiscriminatorHead::TwoLogits,
                vb.pp(format!("discriminators.{index}")),
            );
            add(&discriminator.unwrap().forward(&features).unwrap());
            add(&logits);
            maps.push(features);
        }
        let teacher = SelfTeacher::new(maps.len(), last, 4, vb.pp("self_teacher")).unwrap();
        add(&teacher.forward(&maps, Mode::Train).unwrap());

        let gradients = loss.backward().unwrap();
        for (name, var) in store.parameters() {
            let gradient = gradients.get(var.as_tensor());
            let gradient = values(gradient.unwrap_or_else(|| panic!("{}: {name}", spec.name)));
            assert!(
                gradient.iter().all(|v| v.is_finite()),
                "{}: {name}",
                spec.name
            );
            let says_something = gradient.iter().any(|v| *v != 0.0);
            assert!(says_something || is_undone(&name), "{}: {name}", spec.name);
        }
        for (name, var) in store.buffers() {
            assert!(
                gradients.get(var.as_tensor()).is_none(),
                "{name} is a buffer"
            );
        }
    }
}

#[test]
fn every_features_map_has_the_last_stages_shape() {
    for spec in registry::ALL {
        let store = store(DType::F32);
        let config = small(spec.name, 4);
        let backbone = config.build(store.builder().pp("backbone")).unwrap();
        let branches = Branches::new(backbone.as_ref(), 4, store.builder().pp("branches")).unwrap();
        // An odd side: replayed stages must round sizes as the backbone does.
        let x = images(2, side(&config) - 3, 3, DType::F32);
        let heads = branches
            .all_outputs(backbone.as_ref(), &x, Mode::Train)
            .unwrap();
        assert_eq!(heads.len(), backbone.stage_channels().len());
        for head in &heads {
            assert_eq!(head.features.dims(), heads.last().unwrap().features.dims());
            assert_eq!(head.logits.dims(), [2, 4]);
        }
        let side = side(&config) - 3;
        let shapes = backbone.cost((side, side)).unwrap().stages;
        assert!(branches.cost(&shapes).unwrap().macs > 0);
    }
}

#[test]
fn the_seed_determines_the_values_whatever_is_built_first() {
    for spec in registry::ALL {
        let config = small(spec.name, 3);
        let alone = store(DType::F32);
        config.build(alone.builder().pp("backbone")).unwrap();
        let crowded = store(DType::F32);
        let vb = crowded.builder();
        SelfTeacher::new(4, 8, 3, vb.pp("self_teacher")).unwrap();
        config.build(vb.pp("backbone")).unwrap();
        let (alone, crowded) = (alone.tensors(), crowded.tensors());
        for (name, tensor) in &alone {
            assert_eq!(
                values(tensor),
                values(&crowded[name]),
                "{}: {name}",
                spec.name
            );
        }
        let other = ParamStore::new(4, DType::F32, &Device::Cpu);
        config.build(other.builder().pp("backbone")).unwrap();
        let drawn = alone.iter().find(|(_, tensor)| tensor.rank() == 4).unwrap();
        assert_ne!(values(drawn.1), values(&other.tensors()[drawn.0]));
    }
}

#[test]
fn loading_a_snapshot_brings_the_network_back() {
    for spec in registry::ALL {
        let config = small(spec.name, 3);
        let first = store(DType::F32);
        let expected = trained_logits(&config, &first);
        let second = ParamStore::blank(DType::F32, &Device::Cpu);
        let backbone = config.build(second.builder()).unwrap();
        second
            .load(&first.snapshot().unwrap(), Strictness::Exact)
            .unwrap();
        let x = images(2, side(&config), 3, DType::F32);
        let stages = backbone.stages(&x, Mode::Eval).unwrap();
        let got = backbone.head(stages.last().unwrap()).unwrap();
        assert_eq!(values(&got), values(&expected), "{}", spec.name);
    }
}

#[test]
fn float64_agrees_with_float32() {
    for spec in registry::ALL {
        let config = small(spec.name, 3);
        let logits = |dtype| {
            let backbone = config.build(store(dtype).builder()).unwrap();
            let x = images(2, side(&config), 3, dtype);
            let stages = backbone.stages(&x, Mode::Train).unwrap();
            backbone.head(stages.last().unwrap()).unwrap()
        };
        // Batch norms over two images of few pixels magnify rounding, the more so the more of them there are.
        check_close(spec.name, &logits(DType::F32), &logits(DType::F64), 5e-3);
    }
}

#[test]
fn pooled_features_are_what_the_classifier_sees() {
    for (dtype, parameters) in [
        (DType::F32, DType::F32),
        (DType::F64, DType::F64),
        (DType::BF16, DType::F32),
    ] {
        let config = small("cifar_resnet18", 3);
        let backbone = config.build(store(parameters).builder()).unwrap();
        let last = *backbone.stage_channels().last().unwrap();
        let map = images(2, 4, last, dtype);
        let head = backbone.head(&map).unwrap();
        let frozen = Frozen::new(backbone);
        let pooled = frozen.pooled(&map).unwrap();
        assert_eq!(
            (pooled.dtype(), pooled.dims()),
            (parameters, &[2, last][..])
        );
        let expected = map.to_dtype(DType::F64).unwrap().mean((1, 2)).unwrap();
        check_close("pooled", &pooled, &expected, 1e-2);
        let logits = frozen.classifier().forward(&pooled).unwrap();
        assert_eq!(values(&logits), values(&head));
    }
}

#[test]
fn shapes_are_those_of_the_network_and_cost_no_memory() {
    for spec in registry::ALL {
        let config = small(spec.name, 3);
        let store = store(DType::F32);
        config.build(store.builder()).unwrap();
        let built: BTreeMap<String, Vec<usize>> = store
            .tensors()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.dims().to_vec()))
            .collect();
        assert_eq!(config.shapes().unwrap(), built, "{}", spec.name);
        let huge = ModelConfig {
            width: 16.0,
            classes: 1_000_000,
            ..config
        };
        let shapes = huge.shapes().unwrap();
        let count: usize = shapes.values().map(|s| s.iter().product::<usize>()).sum();
        assert!(count > 1_000_000_000, "{}: {count}", spec.name);
    }
}

#[test]
fn names_are_unique() {
    for (index, spec) in registry::ALL.iter().enumerate() {
        assert!(
            registry::ALL[..index]
                .iter()
                .all(|other| other.name != spec.name)
        );
    }
}

#[test]
fn evaluation_keeps_no_graph_but_gradients_still_reach_the_input() {
    for spec in registry::ALL {
        let store = ParamStore::new(3, DType::F32, &Device::Cpu);
        let config = ModelConfig {
            width: 0.0625,
            ..ModelConfig::new(spec.name, 4).unwrap()
        };
        let backbone = config.build(store.builder()).unwrap();
        let image = Tensor::ones((1, 64, 64, 3), DType::F32, &Device::Cpu).unwrap();
        let maps = backbone.stages(&image, Mode::Eval).unwrap();
        assert!(maps.iter().all(|map| !map.track_op()), "{}", spec.name);

        let image = candle_core::Var::from_tensor(&image).unwrap();
        let logits = backbone.forward(&image, Mode::Eval).unwrap();
        let gradients = logits.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&image).is_some(), "{}", spec.name);
    }
}
