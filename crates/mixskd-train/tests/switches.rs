//! MixSKD's terms and parts switched off one by one, and its mixing: an ablation is a list of settings.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::path::Path;

use common::{config, write_set};
use mixskd_losses::ObjectiveConfig;
use mixskd_train::{Report, RunDir, TrainConfig, Trainer};

/// The report of one epoch of `method` with `settings`, and the bytes of the network that is kept.
fn train(data: &Path, method: &str, settings: &[&str]) -> (Report, Vec<u8>) {
    let mut config = config(data, method, 1);
    for setting in settings {
        config = config.with(setting).unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(&config).unwrap();
    let run = RunDir::create(&out.path().join("run"), trainer.config()).unwrap();
    let report = trainer.run(&run, &mut ()).unwrap();
    let file = std::fs::read(run.weights()).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    let bytes = names
        .iter()
        .flat_map(|name| tensors.tensor(name).unwrap().data().to_vec())
        .collect();
    (report, bytes)
}

fn heads(report: &Report) -> Vec<&str> {
    report.heads.iter().map(|head| head.name.as_str()).collect()
}

const NO_TEACHER: [&str; 2] = [
    "objective.self_teacher_task=0",
    "objective.backbone_probability=0",
];

#[test]
fn parts_that_nothing_reads_are_not_built() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let run = |settings: &[&str]| train(dir.path(), "mixskd", settings).0;
    let whole = run(&[]);
    let all = [
        "backbone",
        "branch 1",
        "branch 2",
        "branch 3",
        "self-teacher",
    ];
    assert_eq!(heads(&whole), all);

    // Four discriminators of 16 → 128 → 2.
    let without = run(&["objective.adversarial=0"]);
    assert_eq!(heads(&without), all);
    let discriminators = 4 * (16 * 128 + 128 + 128 * 2 + 2);
    assert_eq!(
        whole.parameters_training - without.parameters_training,
        discriminators
    );
    let without = run(&NO_TEACHER);
    assert_eq!(heads(&without), all[..4]);
    // A 1×1 convolution from four maps of 16 channels to 16, and a classifier of 3 classes.
    assert_eq!(
        whole.parameters_training - without.parameters_training,
        4 * 16 * 16 + 16 * 3 + 3
    );
    let without = run(&["method.branches=false"]);
    assert_eq!(heads(&without), ["backbone", "self-teacher"]);
    let plain = run(&["method.branches=false", "objective.adversarial=0"]
        .into_iter()
        .chain(NO_TEACHER)
        .collect::<Vec<_>>());
    assert_eq!(heads(&plain), ["backbone"]);
    assert_eq!(plain.parameters_training, plain.parameters_kept);
}

#[test]
fn a_sum_over_branches_that_are_not_there_is_nothing_to_learn() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let mut config = config(dir.path(), "mixskd", 1);
    for term in [
        "task_original",
        "task_mix",
        "feature",
        "adversarial",
        "self_teacher_task",
        "backbone_probability",
    ] {
        config = config.with(&format!("objective.{term}=0")).unwrap();
    }
    let begin = |config: &TrainConfig| {
        let out = tempfile::tempdir().unwrap();
        let mut trainer = Trainer::new(config)?;
        let run = RunDir::create(&out.path().join("run"), trainer.config())?;
        trainer.run(&run, &mut ())
    };
    begin(&config).unwrap();
    let error = begin(&config.with("method.branches=false").unwrap()).unwrap_err();
    assert!(error.to_string().contains("nothing to learn"), "{error}");
}

/// With everything else switched off, what is left is another method, bit for bit.
#[test]
fn what_remains_of_mixskd_is_the_simpler_method() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let off = |kept: &str, more: &[&str]| {
        let terms = [
            "task_original",
            "task_mix",
            "feature",
            "adversarial",
            "branch_probability",
            "self_teacher_task",
            "backbone_probability",
        ];
        let zero = terms.iter().filter(|term| **term != kept);
        let mut settings: Vec<String> = zero.map(|term| format!("objective.{term}=0")).collect();
        settings.push("method.branches=false".into());
        settings.extend(more.iter().map(|setting| (*setting).to_string()));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        train(dir.path(), "mixskd", &settings).1
    };
    let other = |method: &str, settings: &[&str]| train(dir.path(), method, settings).1;
    assert_eq!(off("task_original", &[]), other("ce", &[]));
    // A sum over no branches reads no mixes.
    assert_eq!(
        off("task_original", &["objective.branch_probability=1"]),
        other("ce", &[])
    );
    assert_eq!(off("task_mix", &[]), other("mixup", &[]));
    for per in ["method.lambda_per=batch", "method.lambda_per=sample"] {
        assert_eq!(
            off("task_mix", &["method.mixing=cutmix", per]),
            other("cutmix", &["method.alpha=0.4", per])
        );
    }
    // Never cut, CutMix is cross-entropy; and so is what has no teacher's weight.
    for (method, setting) in [
        ("cutmix", "method.probability=0"),
        ("tf-kd", "method.weight=0"),
    ] {
        assert_eq!(other(method, &[setting]), other("ce", &[]), "{method}");
    }
    // Branches that learn nothing teach the backbone nothing.
    let silent = [
        "method.branch_task_weight=0",
        "method.weight=0",
        "method.feature_weight=0",
    ];
    assert_eq!(other("byot", &silent), other("ce", &[]));
    assert_ne!(other("byot", &silent[1..]), other("ce", &[]));
    assert_ne!(
        other("cutmix", &["method.probability=0.5"]),
        other("cutmix", &[])
    );
    assert_ne!(
        other("tf-kd", &["method.task_weight=0.5"]),
        other("tf-kd", &[])
    );
    // Mixed before the first stage only, manifold mixup is mixup.
    assert_eq!(
        other("manifold-mixup", &["method.alpha=0.4", "method.deepest=0"]),
        other("mixup", &[])
    );
}

#[test]
fn every_way_of_mixing_trains_and_differs() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let run = |settings: &[&str]| train(dir.path(), "mixskd", settings).1;
    let ways = [
        run(&[]),
        run(&["method.lambda_per=sample"]),
        run(&["method.mixing=cutmix"]),
        run(&["method.mixing=cutmix", "method.map_mixing=box"]),
    ];
    for (k, way) in ways.iter().enumerate() {
        assert!(ways[..k].iter().all(|other| other != way), "way {k}");
    }
    let ddgsd = |setting: &str| train(dir.path(), "ddgsd", &[setting]).1;
    assert_ne!(
        ddgsd("method.discrepancy=kernel_mmd"),
        ddgsd("method.discrepancy=scalar_means")
    );
}

#[test]
fn an_objective_without_a_term_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), 24, 6);
    let mut config = config(dir.path(), "mixskd", 1);
    for (term, _) in ObjectiveConfig::default().weights() {
        config = config.with(&format!("objective.{term}=0")).unwrap();
    }
    let Err(error) = Trainer::new(&config) else {
        panic!("accepted")
    };
    assert!(error.is_usage() && error.to_string().contains("nothing to learn"));
}
