//! One whole step of every method that draws, MixSKD's ways of mixing and its switches among them, beside float64 PyTorch:
//! `golden/drawn.py` computed them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{ModelConfig, ParamStore, Strictness};
use mixskd_train::TrainConfig;
use mixskd_train::method::{self, Method, MethodInputs, TrainBatch};

/// Name of a case, its method, and its settings.
const CASES: &[(&str, &str, &[&str])] = &[
    ("mixup", "mixup", &[]),
    ("mixup-sample", "mixup", &[SAMPLE]),
    ("cutmix", "cutmix", &[]),
    ("cutmix-sample", "cutmix", &[SAMPLE]),
    ("manifold-image", "manifold-mixup", &[]),
    ("manifold-stage", "manifold-mixup", &[]),
    ("mixskd", "mixskd", &[]),
    ("sample", "mixskd", &[SAMPLE]),
    ("cut", "mixskd", &[CUT]),
    ("cut-box", "mixskd", &[CUT, BOX]),
    ("cut-box-sample", "mixskd", &[CUT, BOX, SAMPLE]),
    ("no-branches", "mixskd", &[ALONE]),
    ("no-branches-cut-box", "mixskd", &[ALONE, CUT, BOX, SAMPLE]),
    (
        "no-teacher",
        "mixskd",
        &[
            "objective.self_teacher_task=0",
            "objective.backbone_probability=0",
        ],
    ),
    (
        "no-features",
        "mixskd",
        &["objective.feature=0", "objective.adversarial=0"],
    ),
    (
        "no-adversarial",
        "mixskd",
        &[CUT, "objective.adversarial=0"],
    ),
    (
        "no-branch-probability",
        "mixskd",
        &["objective.branch_probability=0"],
    ),
    (
        "no-task",
        "mixskd",
        &[
            "objective.task_original=0",
            "objective.task_mix=0",
            "objective.self_teacher_task=0",
        ],
    ),
    (
        "features-alone",
        "mixskd",
        &[
            CUT,
            BOX,
            SAMPLE,
            "objective.task_original=0",
            "objective.task_mix=0",
            "objective.adversarial=0",
            "objective.branch_probability=0",
            "objective.self_teacher_task=0",
            "objective.backbone_probability=0",
        ],
    ),
    (
        "weights",
        "mixskd",
        &[
            "objective.task_original=0.5",
            "objective.task_mix=1.5",
            "objective.feature=0.25",
            "objective.adversarial=0.125",
            "objective.branch_probability=2",
            "objective.self_teacher_task=0.75",
            "objective.backbone_probability=3",
        ],
    ),
    (
        "reference-cifar",
        "mixskd",
        &[
            "objective.task_mix=0",
            "objective.self_teacher_task=0",
            "objective.discriminator=frozen",
        ],
    ),
];
const SAMPLE: &str = "method.lambda_per=sample";
const CUT: &str = "method.mixing=cutmix";
const BOX: &str = "method.map_mixing=box";
const ALONE: &str = "method.branches=false";

type Tensors = BTreeMap<String, Tensor>;

fn golden() -> Tensors {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/drawn.safetensors"
    );
    let golden = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    golden.into_iter().collect()
}

fn below(golden: &Tensors, prefix: &str) -> Tensors {
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

/// The method of a case with the golden parameters, its configuration, and where its parameters live.
fn build(
    golden: &Tensors,
    case: &str,
    method: &str,
    settings: &[&str],
    dtype: DType,
) -> (Box<dyn Method>, TrainConfig, ParamStore) {
    let mut config = TrainConfig::default()
        .with(&format!("method.name={method}"))
        .unwrap();
    for setting in settings {
        config = config.with(setting).unwrap();
    }
    let store = ParamStore::new(0, dtype, &Device::Cpu);
    let model = ModelConfig {
        width: 0.03125,
        ..ModelConfig::new("cifar_resnet18", 5).unwrap()
    };
    let method = (method::spec(method).unwrap().build)(&MethodInputs {
        config: &config.method,
        objective: &config.objective,
        model: &model,
        store: &store,
        seed: 0,
        epochs: 4,
        train_images: 4,
        freeze_backbone: false,
    })
    .unwrap();
    let mut initial = below(golden, "initial/");
    initial.extend(below(golden, &format!("{case}/initial/")));
    let report = store.load(&initial, Strictness::Partial).unwrap();
    assert!(
        report.missing.is_empty() && report.mismatched.is_empty(),
        "{case}: {report}"
    );
    (method, config, store)
}

fn batch(golden: &Tensors, case: &str, dtype: DType) -> TrainBatch {
    let step = golden[&format!("{case}/step")].to_vec1::<u32>().unwrap()[0];
    TrainBatch {
        images: golden["images"].to_dtype(dtype).unwrap(),
        labels: golden["labels"].clone(),
        indices: (0..4).collect(),
        epoch: 1,
        step: step as usize,
        draws: vec![],
    }
}

fn check(
    golden: &Tensors,
    (case, method, settings): (&str, &str, &[&str]),
    dtype: DType,
    tolerance: f64,
) {
    let (mut method, _, store) = build(golden, case, method, settings, dtype);
    let own = below(golden, &format!("{case}/"));
    let batch = batch(golden, case, dtype);
    let close = |what: &str, ours: &Tensor, theirs: &Tensor| {
        let error = relative(ours, theirs);
        assert!(error < tolerance, "{case}, {what}: {error:.1e}");
    };

    // What is drawn is what the other program was told.
    let mixes = method.mixes(&batch).unwrap().unwrap();
    let partner = own["partner"].to_vec1::<u32>().unwrap();
    let lambda = own["lambda"].to_vec1::<f32>().unwrap();
    assert_eq!(
        (&mixes.partner, &mixes.lambda),
        (&partner, &lambda),
        "{case}"
    );
    close("mixed images", &mixes.images, &own["mixed"]);

    let output = method.step(&batch).unwrap();
    let mut parts = below(&own, "part/");
    if settings.contains(&"method.branches=false") {
        let none = parts.remove("branch_probability").unwrap();
        assert_eq!(none.to_vec1::<f64>().unwrap(), [0.0], "{case}");
    }
    let named: BTreeSet<_> = output.parts.iter().map(|(part, _)| *part).collect();
    assert_eq!(named, parts.keys().map(String::as_str).collect(), "{case}");
    for (part, value) in &output.parts {
        close(part, value, &parts[*part]);
    }
    close("total", &output.loss, &own["total"]);
    let gradients = output.loss.backward().unwrap();
    let parameters: BTreeMap<_, _> = store.parameters().into_iter().collect();
    let expected = below(&own, "grad/");
    assert!(expected.len() >= 3);
    for (parameter, theirs) in &expected {
        let ours = gradients.get(&parameters[parameter]);
        close(parameter, ours.unwrap(), theirs);
    }
}

#[test]
fn whole_steps_match_pytorch() {
    let golden = golden();
    for case in CASES {
        // λ and a box's shares are float32.
        check(&golden, *case, DType::F64, 1e-6);
        check(&golden, *case, DType::F32, 2e-4);
    }
    let computed = golden
        .keys()
        .filter(|name| name.ends_with("/total"))
        .count();
    assert_eq!(computed, CASES.len());
}

#[test]
fn every_method_that_mixes_has_a_case() {
    for spec in method::ALL {
        let config = TrainConfig::default()
            .with(&format!("method.name={}", spec.name))
            .unwrap();
        let draws = config.method.settings().contains_key("lambda_per");
        assert_eq!(
            draws,
            CASES.iter().any(|(_, method, _)| *method == spec.name)
        );
    }
}

/// Any terms can be left out: those that stay have their values, as long as the same images go through the network.
#[test]
fn every_subset_of_the_terms_is_an_objective() {
    let golden = golden();
    let terms: Vec<_> = ObjectiveConfig::default()
        .weights()
        .map(|(t, _)| t)
        .collect();
    for (case, branches) in [("mixskd", true), ("no-branches", false)] {
        let parts = below(&golden, &format!("{case}/part/"));
        let batch = batch(&golden, case, DType::F32);
        for subset in 1..1_u32 << terms.len() {
            let on = |at: usize| subset >> at & 1 == 1;
            let alone = (0..terms.len()).all(|at| on(at) == (terms[at] == "branch_probability"));
            if alone && !branches {
                // A sum over no branch, which is refused.
                continue;
            }
            let off = (0..terms.len()).filter(|at| !on(*at));
            let mut settings: Vec<_> = off.map(|at| format!("objective.{}=0", terms[at])).collect();
            settings.push(format!("method.branches={branches}"));
            let settings: Vec<_> = settings.iter().map(String::as_str).collect();
            let (mut method, config, _) = build(&golden, case, "mixskd", &settings, DType::F32);
            let output = method.step(&batch).unwrap();
            // Without branches there is no sum over them.
            let there = |at: &usize| branches || terms[*at] != "branch_probability";
            let kept: Vec<_> = (0..terms.len()).filter(|at| on(*at) && there(at)).collect();
            let named: Vec<_> = output.parts.iter().map(|(name, _)| *name).collect();
            assert_eq!(named, kept.iter().map(|at| terms[*at]).collect::<Vec<_>>());
            let sum = output
                .parts
                .iter()
                .map(|(_, part)| part.to_scalar::<f32>().unwrap());
            let (sum, loss) = (sum.sum::<f32>(), output.loss.to_scalar::<f32>().unwrap());
            assert!((sum - loss).abs() < 1e-4, "{settings:?}: {sum}, not {loss}");
            let mut objective = config.objective;
            if !branches {
                objective.branch_probability = 0.0;
            }
            let reads = objective.reads();
            if reads.originals() && reads.mixes() {
                for (name, part) in &output.parts {
                    let off = part.to_scalar::<f32>().unwrap() as f64;
                    let off = (off - parts[*name].to_vec1::<f64>().unwrap()[0]).abs();
                    assert!(off < 1e-4, "{settings:?}, {name}: {off:.1e}");
                }
            }
        }
    }
}
