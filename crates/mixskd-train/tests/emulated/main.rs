//! Whole steps as a GPU is given them, on the processor: candle's tensors, every launch's arguments and the kernels' own text, with sums in
//! float where cuDNN and cuBLAS would make them. Against the CPU's own kernels, for every method and every network.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod lanes;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use common::{begin, config, timeless, train, weights, write_set};
use mixskd_kernels::{
    ConvWeights, ParameterUpdate, SgdConfig, StepGradients, Tape, cudnn_choices, emulate_gpu,
    recall_cudnn_choices, set_cudnn_benchmark, sgd_step, sgd_steps,
};
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{ModelConfig, ParamStore, registry};
use mixskd_train::method::{self, Method, MethodConfig, MethodInputs, TrainBatch};
use mixskd_train::{Control, Error, Observer, RunDir, StepEvent, Trainer};

const ANCHORS: usize = 4;
const CLASSES: usize = 3;

/// The switch is the whole process's.
static SWITCH: Mutex<()> = Mutex::new(());

struct Emulating;

impl Emulating {
    fn new() -> Self {
        emulate_gpu(true);
        Self
    }
}

impl Drop for Emulating {
    fn drop(&mut self) {
        emulate_gpu(false);
    }
}

fn batch(side: usize, rows: usize, dtype: DType) -> TrainBatch {
    let value = |i: usize| {
        let (image, place) = (i / (side * side * 3), i % (side * side * 3));
        ((image % CLASSES + 1) as f32 * place as f32 * 0.013 + image as f32).sin()
    };
    let values: Vec<f32> = (0..rows * side * side * 3).map(value).collect();
    let labels: Vec<u32> = (0..rows).map(|i| (i % ANCHORS % CLASSES) as u32).collect();
    let images = Tensor::from_vec(values, (rows, side, side, 3), &Device::Cpu).unwrap();
    TrainBatch {
        images: images.to_dtype(dtype).unwrap(),
        labels: Tensor::new(labels, &Device::Cpu).unwrap(),
        indices: (0..rows as u32).map(|i| i % ANCHORS as u32).collect(),
        epoch: 0,
        step: 0,
        draws: vec![],
    }
}

/// Puts a method that remembers something of each image into its second epoch: what it remembers is there.
fn remember(method: &mut dyn Method, batch: &mut TrainBatch) {
    let mut state = method.state().unwrap();
    batch.epoch = usize::from(!state.is_empty());
    for tensor in state.values_mut() {
        let values: Vec<f32> = (0..tensor.elem_count())
            .map(|i| (i as f32 * 0.7).sin())
            .collect();
        let values = Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap();
        *tensor = candle_nn::ops::softmax(&values, candle_core::D::Minus1).unwrap();
    }
    method.load_state(&state).unwrap();
}

/// What one step comes to: its terms, and all gradients; then the parameters after the update.
type Step = (BTreeMap<String, f32>, BTreeMap<String, Vec<f32>>);

fn step(network: &str, method: &str, dtype: DType) -> Step {
    step_with(network, method, &ObjectiveConfig::default(), dtype)
}

fn step_with(network: &str, method: &str, objective: &ObjectiveConfig, dtype: DType) -> Step {
    let model = ModelConfig {
        width: 0.125,
        ..ModelConfig::new(network, CLASSES).unwrap()
    };
    let config = MethodConfig::new(method).unwrap();
    let spec = method::spec(method).unwrap();
    let store = ParamStore::new(5, DType::F32, &Device::Cpu);
    let inputs = MethodInputs {
        config: &config,
        objective,
        model: &model,
        store: &store,
        seed: 5,
        epochs: 2,
        train_images: ANCHORS,
        freeze_backbone: false,
    };
    let mut method = (spec.build)(&inputs).unwrap();
    let rows = ANCHORS * (spec.batch)(&config).unwrap().blocks();
    let mut batch = batch(if model.input > 32 { 64 } else { 16 }, rows, dtype);
    remember(method.as_mut(), &mut batch);
    let parameters = store.parameters();
    let weights = ConvWeights::new(parameters.iter().map(|(_, w)| w.as_tensor()), dtype).unwrap();
    let tape = Tape::start();
    // As the trainer does: their gradients stay as convolutions make them.
    tape.use_weights(&weights);
    let output = method.step(&batch).unwrap();
    let mut terms = BTreeMap::from([("loss".to_string(), output.loss.to_scalar().unwrap())]);
    for (name, value) in &output.parts {
        terms.insert((*name).into(), value.to_scalar().unwrap());
    }
    assert_eq!(output.logits.dtype(), DType::F32);
    let gradients = tape.backward_as_made(&output.loss).unwrap();
    let mut values = BTreeMap::new();
    let flat = |t: &Tensor| {
        let floats = t.to_dtype(DType::F32).unwrap();
        floats.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    for (name, parameter) in &parameters {
        if let Some(gradient) = gradients.get(parameter) {
            let value = if gradient.dims() == parameter.dims() {
                assert_eq!(gradient.dtype(), DType::F32, "{name}");
                flat(gradient)
            } else {
                assert_eq!(gradient.dtype(), dtype, "{name}");
                flat(&gradient.permute((0, 2, 1)).unwrap())
            };
            values.insert(format!("gradient of {name}"), value);
        }
    }
    update(&parameters, &gradients, &weights);
    // What is kept beside a parameter is that parameter.
    for (name, parameter) in &parameters {
        if let Some(turned) = weights.get(parameter) {
            let (out, taps, input) = turned.dims3().unwrap();
            let own = parameter
                .reshape((out, input, taps))
                .unwrap()
                .permute((0, 2, 1));
            let own = own.unwrap().to_dtype(dtype).unwrap();
            assert!(flat(turned) == flat(&own), "{name}");
        }
    }
    for (name, tensor) in store.tensors() {
        values.insert(name, flat(&tensor));
    }
    (terms, values)
}

/// The first update of a run, by the GPU's kernels where they are.
fn update(parameters: &[(String, Var)], gradients: &StepGradients, weights: &ConvWeights) {
    let config = SgdConfig {
        lr: 1e-3,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
    };
    let velocities: Vec<Var> = parameters
        .iter()
        .map(|(_, p)| Var::from_tensor(&p.zeros_like().unwrap()).unwrap())
        .collect();
    let updates: Vec<_> = parameters
        .iter()
        .zip(&velocities)
        .filter_map(|((_, parameter), velocity)| {
            Some(ParameterUpdate {
                parameter,
                gradient: gradients.get(parameter)?,
                velocity,
                factor: 1.0,
                turned: weights.get(parameter),
            })
        })
        .collect();
    let rate = Tensor::new(&[1e-3f32], &Device::Cpu).unwrap();
    if sgd_steps(&updates, &rate, None, config).unwrap().is_none() {
        for of in updates {
            sgd_step(of.parameter, of.gradient, of.velocity, config).unwrap();
        }
    }
}

/// `‖a − b‖ / ‖b‖`, values below a thousandth counted as that.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b).abs().max(1e-3)))
}

/// The cosine between all gradients of two steps.
fn cosine(a: &Step, b: &Step) -> f64 {
    let [mut ab, mut aa, mut bb] = [0.0; 3];
    let gradients = a.1.iter().filter(|(name, _)| name.starts_with("gradient"));
    for (name, values) in gradients {
        for (&a, &b) in values.iter().zip(&b.1[name]) {
            let (a, b) = (f64::from(a), f64::from(b));
            (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
        }
    }
    ab / (aa * bb).sqrt()
}

/// One step in every way, and that tensors are apart by `most` of their length in float: the deeper the network, the more it makes of the
/// last bit.
fn check(network: &str, method: &str, most: f64) {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let cpu = step(network, method, DType::F32);
    for dtype in [DType::F32, DType::BF16] {
        let what = format!("{network}, {method}, {dtype:?}");
        let emulating = Emulating::new();
        let gpu = step(network, method, dtype);
        drop(emulating);
        assert!(gpu.1.keys().eq(cpu.1.keys()), "{what}: other gradients");
        let term = if dtype == DType::F32 { 1e-3 } else { 0.25 };
        for (name, &value) in &cpu.0 {
            let error = (gpu.0[name] - value).abs() / value.abs().max(0.1 * cpu.0["loss"]);
            assert!(
                error < term,
                "{what}, {name}: {} against {value}",
                gpu.0[name]
            );
        }
        let finite = gpu.1.values().flatten().all(|value| value.is_finite());
        assert!(finite, "{what}: values are not finite");
        // Through twenty batch norms of four small images, PyTorch's own bfloat16 gradients are off by half their length and more;
        // through fifty, nothing is left of them.
        let least = match (dtype, network) {
            (DType::F32, _) => 0.99,
            (_, "cifar_resnet18") => 0.5,
            _ => -1.0,
        };
        let cosine = cosine(&gpu, &cpu);
        assert!(cosine > least, "{what}: the gradients' cosine is {cosine}");
        if dtype == DType::F32 {
            for (name, values) in &cpu.1 {
                let error = distance(&gpu.1[name], values);
                assert!(error < most, "{what}, {name}: {error}");
            }
        }
    }
}

#[test]
fn every_method() {
    for spec in method::ALL {
        check("cifar_resnet18", spec.name, 0.02);
    }
}

#[test]
fn every_network() {
    for spec in registry::ALL {
        check(spec.name, "mixskd", 0.2);
    }
}

/// A run of a few steps on the processor in a GPU's place, with these settings: its weights and its training losses.
fn run(settings: &[&str]) -> (BTreeMap<String, Vec<u8>>, Vec<f64>) {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 48, 10);
    let mut config = config(dir.path(), "mixskd", 2);
    for setting in settings {
        config = config.with(setting).unwrap();
    }
    let out = dir.path().join("run");
    let _emulating = Emulating::new();
    train(&config, &out);
    let losses = timeless(&out).iter().map(|record| record.loss).collect();
    (weights(&out), losses)
}

fn far(a: &[f64], b: &[f64]) -> f64 {
    let errors = a.iter().zip(b).map(|(a, b)| ((a - b) / b).abs());
    // In the total order NaN is above all numbers.
    errors.max_by(f64::total_cmp).unwrap()
}

#[test]
fn memory_that_is_filled_anew_gives_the_bits_of_memory_made_anew() {
    for method in ["mixskd", "cutmix", "byot"] {
        let method = format!("method.name={method}");
        let direct = run(&[&method, "run.cuda_graph=false"]);
        assert!(direct == run(&[&method]), "{method}");
        let averaged = ["optimizer.ema_decay=0.9", "run.cuda_graph=false"];
        let [average, in_turn] = [&averaged[..1], &averaged].map(|settings| {
            let settings = std::iter::once(method.as_str()).chain(settings.iter().copied());
            run(&settings.collect::<Vec<_>>())
        });
        assert!(average == in_turn && average.0 != direct.0, "{method}");
        // Gradients that the host looks at on their way take another path to the same update.
        let clipped = run(&[&method, "optimizer.clip_norm=1e9"]);
        assert!(far(&clipped.1, &direct.1) < 1e-5, "{method}");
    }
}

/// What convolutions take is kept beside the parameters: a trainer that has taken steps and then takes another run's checkpoint goes on with that one's.
#[test]
fn weights_beside_the_parameters_follow_what_else_changes_them() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 48, 10);
    let config = config(dir.path(), "mixskd", 2);
    let stopped = |name: &str| {
        let out = dir.path().join(name);
        let (mut trainer, run) = begin(&config, &out);
        let mut stop = StopAt(0, 2, trainer.control());
        trainer.run(&run, &mut stop).unwrap_err();
        out
    };
    let goes_on = |mut trainer: Trainer, out: &std::path::Path| {
        let (run, _) = RunDir::open(out).unwrap();
        trainer.resume(&run, &mut ()).unwrap();
        trainer.run(&run, &mut ()).unwrap();
        weights(out)
    };
    let expected = goes_on(Trainer::new(&config).unwrap(), &stopped("first"));
    let (mut done, run) = begin(&config, &dir.path().join("other"));
    done.run(&run, &mut ()).unwrap();
    assert!(expected == goes_on(done, &stopped("second")));
}

#[test]
fn batches_made_of_images_in_memory_are_those_that_are_uploaded() {
    // At another size images are scaled, which is the loader's work.
    for (size, resident) in [(32, true), (16, false)] {
        let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        write_set(dir.path(), 32, 10);
        let mut config = config(dir.path(), "mixskd", 1);
        config.run.image_size = size;
        let own = dir.path().join("own");
        train(&config, &own);
        let _emulating = Emulating::new();
        let trainer = Trainer::new(&config).unwrap();
        assert_eq!(trainer.has_resident_images(), resident);
        let other = dir.path().join("other");
        train(&config, &other);
        let losses =
            [own, other].map(|out| vec![timeless(&out)[0].loss, timeless(&out)[0].test_loss]);
        assert!(far(&losses[1], &losses[0]) < 0.02, "{losses:?}");
    }
}

#[test]
fn a_run_in_bfloat16_learns_as_one_in_float() {
    // Two channels, eight images a step: what rounding does to such a network is no small thing, and one seed says little.
    let errors = [0, 1, 2, 3].map(|seed| {
        let seed = format!("run.seed={seed}");
        let float = run(&[&seed]);
        let half = run(&[&seed, "run.precision=bf16"]);
        assert!(float.0 != half.0);
        far(&half.1, &float.1)
    });
    let mean = errors.iter().sum::<f64>() / 4.0;
    assert!(mean < 0.12, "{errors:?}");
}

/// Stops a run once it tells of this epoch's step.
struct StopAt(usize, usize, Control);

impl Observer for StopAt {
    fn step(&mut self, event: &StepEvent) {
        if (event.epoch, event.step) == (self.0, self.1) {
            self.2.stop();
        }
    }
}

/// A step is launched before the one before it has been read, unless something is to be done between them.
#[test]
fn a_run_that_is_cut_while_it_goes_ahead_ends_with_the_same_bits() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 72, 10);
    let config = config(dir.path(), "mixskd", 2);
    let whole = dir.path().join("whole");
    train(&config, &whole);
    // Checkpoints after every second step, of which one is the last before the run is stopped; and none but the one that stopping makes.
    for (every, at) in [("2", (1, 3)), ("epoch", (1, 4)), ("3", (0, 8))] {
        let setting = format!("run.checkpoint_every=\"{every}\"");
        let config = config.clone().with(&setting).unwrap();
        let out = dir.path().join(format!("cut-{every}"));
        let (mut trainer, run) = begin(&config, &out);
        let mut stop = StopAt(at.0, at.1, trainer.control());
        let stopped = trainer.run(&run, &mut stop).unwrap_err();
        drop((trainer, run));
        // The step itself, or the one that had been begun.
        let Error::Stopped { epoch, step, .. } = stopped else {
            panic!("{stopped}")
        };
        assert_eq!(epoch, at.0 + 1);
        assert!(step == at.1 + 1 || step == at.1 + 2, "{every}: {step}");
        if every == "2" {
            // As if it had been killed before it wrote the last.
            let (last, _) = newest_checkpoint(&out);
            std::fs::remove_file(out.join("checkpoints").join(last)).unwrap();
        }
        let (run, config) = RunDir::open(&out).unwrap();
        let mut trainer = Trainer::for_resume(&config).unwrap();
        trainer.resume(&run, &mut ()).unwrap();
        trainer.run(&run, &mut ()).unwrap();
        assert!(weights(&out) == weights(&whole), "{every}");
        assert_eq!(timeless(&out), timeless(&whole), "{every}");
    }
}

/// Has the checkpoint that is written next fail.
struct InTheWay(std::path::PathBuf);

impl Observer for InTheWay {
    fn step(&mut self, event: &StepEvent) {
        if (event.epoch, event.step) == (0, 6) {
            std::fs::rename(self.0.join("checkpoints"), self.0.join("aside")).unwrap();
            std::fs::write(self.0.join("checkpoints"), "in the way").unwrap();
        }
        // It is told of in the middle of an epoch.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// What had been begun when a run ended is no step of the run that goes on from a checkpoint with the same trainer.
#[test]
fn a_step_that_was_begun_before_an_error_is_forgotten() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 96, 10);
    let config = config(dir.path(), "mixup", 2)
        .with("run.checkpoint_every=\"4\"")
        .unwrap();
    let whole = dir.path().join("whole");
    train(&config, &whole);
    let out = dir.path().join("run");
    let (mut trainer, run) = begin(&config, &out);
    trainer.run(&run, &mut InTheWay(out.clone())).unwrap_err();
    std::fs::remove_file(out.join("checkpoints")).unwrap();
    std::fs::rename(out.join("aside"), out.join("checkpoints")).unwrap();
    trainer.resume(&run, &mut ()).unwrap();
    let mut stop = StopAt(0, 5, trainer.control());
    let stopped = trainer.run(&run, &mut stop).unwrap_err();
    assert!(
        stopped.to_string().contains("after step 7 of epoch 1"),
        "{stopped}"
    );
    let mut trainer = Trainer::new(&config).unwrap();
    trainer.resume(&run, &mut ()).unwrap();
    trainer.run(&run, &mut ()).unwrap();
    assert!(weights(&out) == weights(&whole));
    assert_eq!(timeless(&out), timeless(&whole));
}

/// The step that is told of is the one that was not finite, and not one that was begun after it.
#[test]
fn what_is_not_finite_is_told_of_its_own_step() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 160, 10);
    let told = |graph: bool| {
        let config = config(dir.path(), "mixskd", 1)
            .with("optimizer.lr=40")
            .and_then(|config| config.with(&format!("run.cuda_graph={graph}")));
        let mut trainer = Trainer::new(&config.unwrap()).unwrap();
        let out = dir.path().join(format!("graph-{graph}"));
        let run = RunDir::create(&out, trainer.config()).unwrap();
        trainer.run(&run, &mut ()).unwrap_err().to_string()
    };
    let [ahead, in_turn] = [true, false].map(told);
    assert!(ahead.contains("epoch 1, step"), "{ahead}");
    assert_eq!(ahead, in_turn);
}

#[test]
fn a_run_goes_on_with_the_algorithms_it_chose() {
    let _turn = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    let _emulating = Emulating::new();
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 48, 10);
    let config = config(dir.path(), "mixskd", 2)
        .with("run.cudnn_benchmark=true")
        .unwrap();
    let out = dir.path().join("run");
    let (mut trainer, run) = begin(&config, &out);
    let mut stop = StopAt(0, 2, trainer.control());
    trainer.run(&run, &mut stop).unwrap_err();
    let chosen = cudnn_choices(&Device::Cpu).unwrap().unwrap();
    drop((trainer, run));
    let checkpoint = newest_checkpoint(&out);
    let goes_on = |prepare: &dyn Fn()| {
        // As a new process would begin.
        set_cudnn_benchmark(&Device::Cpu, false).unwrap();
        let (run, config) = RunDir::open(&out).unwrap();
        let mut trainer = Trainer::for_resume(&config).unwrap();
        trainer.resume(&run, &mut ()).unwrap();
        let taken_up = cudnn_choices(&Device::Cpu).unwrap().unwrap();
        prepare();
        trainer.run(&run, &mut ()).unwrap();
        (taken_up, weights(&out))
    };
    let from_checkpoint = |prepare: &dyn Fn()| {
        for file in ["metrics.jsonl", "report.json", "model.safetensors"] {
            let _ = std::fs::remove_file(out.join(file));
        }
        std::fs::remove_dir_all(out.join("checkpoints")).unwrap();
        std::fs::create_dir(out.join("checkpoints")).unwrap();
        std::fs::write(out.join("checkpoints").join(&checkpoint.0), &checkpoint.1).unwrap();
        goes_on(prepare)
    };
    let first = from_checkpoint(&|| ());
    assert_eq!(first.0, chosen);
    assert!(first.1 == from_checkpoint(&|| ()).1);
    // Were they chosen anew, the weights would be others.
    let anew = || {
        set_cudnn_benchmark(&Device::Cpu, false).unwrap();
        set_cudnn_benchmark(&Device::Cpu, true).unwrap();
    };
    assert!(first.1 != from_checkpoint(&anew).1);
    // Another GPU's are passed over.
    let other = chosen.replace("the processor", "another");
    assert!(!recall_cudnn_choices(&Device::Cpu, &other).unwrap());
    set_cudnn_benchmark(&Device::Cpu, false).unwrap();
}

/// Name and contents of the newest checkpoint.
fn newest_checkpoint(out: &std::path::Path) -> (std::ffi::OsString, Vec<u8>) {
    let entries = std::fs::read_dir(out.join("checkpoints")).unwrap();
    let newest = entries
        .map(|entry| entry.unwrap())
        .max_by_key(std::fs::DirEntry::file_name);
    let newest = newest.unwrap();
    (newest.file_name(), std::fs::read(newest.path()).unwrap())
}
