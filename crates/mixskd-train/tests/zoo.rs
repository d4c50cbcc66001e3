//! Every network of the registry under the whole MixSKD objective: two updates on one batch lower the loss.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use candle_core::{DType, Device, Tensor};
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{ModelConfig, ParamStore, registry};
use mixskd_train::OptimizerConfig;
use mixskd_train::method::{self, MethodConfig, MethodInputs, TrainBatch};

const BATCH: usize = 4;
const CLASSES: usize = 3;
/// Tests the networks are dealt out to, so that they run side by side.
const TABLES: usize = 6;

/// Smooth images that differ from class to class.
fn batch(side: usize) -> TrainBatch {
    let value = |i: usize| {
        let (image, place) = (i / (side * side * 3), i % (side * side * 3));
        ((image % CLASSES + 1) as f32 * place as f32 * 0.013 + image as f32).sin()
    };
    let values: Vec<f32> = (0..BATCH * side * side * 3).map(value).collect();
    let labels: Vec<u32> = (0..BATCH).map(|i| (i % CLASSES) as u32).collect();
    TrainBatch {
        images: Tensor::from_vec(values, (BATCH, side, side, 3), &Device::Cpu).unwrap(),
        labels: Tensor::new(labels, &Device::Cpu).unwrap(),
        indices: (0..BATCH as u32).collect(),
        epoch: 0,
        step: 0,
        draws: vec![],
    }
}

fn check(name: &str) {
    let model = ModelConfig {
        width: 0.125,
        ..ModelConfig::new(name, CLASSES).unwrap()
    };
    let store = ParamStore::new(5, DType::F32, &Device::Cpu);
    let mut method = (method::spec("mixskd").unwrap().build)(&MethodInputs {
        config: &MethodConfig::default(),
        objective: &ObjectiveConfig::default(),
        model: &model,
        store: &store,
        seed: 5,
        epochs: 1,
        train_images: BATCH,
        freeze_backbone: false,
    })
    .unwrap();
    let mut optimizer = OptimizerConfig::default()
        .build(store.parameters())
        .unwrap();
    // Small images: those of 224 pixels have five halvings to go through, the others at most three.
    let batch = batch(if model.input > 32 { 64 } else { 16 });
    let mut losses = Vec::new();
    for _ in 0..3 {
        let output = method.step(&batch).unwrap();
        for (part, value) in &output.parts {
            let value: f32 = value.to_scalar().unwrap();
            assert!(value.is_finite(), "{name}: {part} is {value}");
        }
        losses.push(output.loss.to_scalar::<f32>().unwrap());
        // A small step: so few images make a rough landscape for a deep network of batch norms.
        optimizer
            .step(&output.loss.backward().unwrap(), 1e-4)
            .unwrap();
    }
    assert!(
        losses.iter().all(|loss| loss.is_finite()) && losses[2] < losses[0],
        "{name}: {losses:?}"
    );
}

fn check_table(table: usize) {
    for spec in registry::ALL.iter().skip(table).step_by(TABLES) {
        check(spec.name);
    }
}

macro_rules! tables {
    ($($test:ident $table:literal),*) => {
        $(#[test]
        fn $test() {
            check_table($table);
        })*

        #[test]
        fn no_table_is_forgotten() {
            assert_eq!([$($table),*].len(), TABLES);
        }
    };
}

tables!(first 0, second 1, third 2, fourth 3, fifth 4, sixth 5);
