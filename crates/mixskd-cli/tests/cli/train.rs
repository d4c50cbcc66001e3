//! `mixskd train` on a tiny folder of images, and what the files it leaves are good for.

use crate::support::{TINY, image_folder, metrics, mixskd, run, save_image};

#[test]
fn a_run_leaves_its_files_and_eval_and_predict_use_them() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let trained = run(dir.path(), &format!("{TINY} --epochs 2")).ok();
    let out = dir.path().join("runs/001-mixskd-cifar_resnet18-pets");
    for file in [
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        "report.json",
        "checkpoints",
    ] {
        assert!(out.join(file).exists(), "{file} is missing");
    }
    assert_eq!(metrics(&out).len(), 2);
    for part in [
        "backbone (the result)",
        "branch 1",
        "self-teacher",
        "chosen on the test images",
        "mixskd predict",
    ] {
        assert!(
            trained.stdout.contains(part),
            "`{part}` is missing:\n{}",
            trained.stdout
        );
    }
    // Plain lines where stderr is no terminal: one at the start, one an epoch.
    let lines = trained.stderr.lines().collect::<Vec<_>>();
    assert!(lines[0].starts_with("training: 2 epochs"), "{lines:?}");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("epoch "))
            .count(),
        2,
        "{lines:?}"
    );

    // What it says to type next works as it stands.
    let next = trained
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("next: mixskd "))
        .unwrap();
    run(dir.path(), next).ok();

    let report = std::fs::read_to_string(out.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let weights = out.join("model.safetensors").display().to_string();
    let scored = mixskd(
        dir.path(),
        ["eval", "--weights", &weights, "--data", "pets", "--json"],
    )
    .ok()
    .json();
    assert_eq!(scored["top1"], report["top1"]);
    assert_eq!(scored["top5"], report["top5"]);
    // Evaluation folds batch norms, which rounds otherwise.
    let (loss, reported) = (&scored["loss"], report["test_loss"].as_f64().unwrap());
    let difference = (loss.as_f64().unwrap() - reported).abs();
    assert!(
        difference < 1e-5 * reported.max(1.0),
        "{loss} and {reported}"
    );

    // Predict needs nothing but the weights: from an empty folder, on an image of another size.
    let empty = tempfile::tempdir().unwrap();
    save_image(&empty.path().join("a.png"), 13, 40);
    let predicted = mixskd(
        empty.path(),
        [
            "predict",
            "--weights",
            &weights,
            "--logits",
            "--json",
            "a.png",
        ],
    )
    .ok()
    .json();
    let top = predicted[0]["top"].as_array().unwrap();
    let sum: f64 = top
        .iter()
        .map(|class| class["probability"].as_f64().unwrap())
        .sum();
    assert_eq!(top.len(), 2);
    assert!((sum - 1.0).abs() < 1e-6, "{top:?}");
    assert!(["cat", "dog"].contains(&top[0]["class"].as_str().unwrap()));
    assert_eq!(predicted[0]["logits"].as_array().unwrap().len(), 2);
}

#[test]
fn a_resumed_run_gives_the_bits_of_a_straight_one() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 6);
    run(
        dir.path(),
        &format!("{TINY} --epochs 2 --out straight --threads 1"),
    )
    .ok();
    run(
        dir.path(),
        &format!("{TINY} --epochs 2 --out parted --threads 2"),
    )
    .ok();
    let straight = metrics(&dir.path().join("straight"));
    assert_eq!(
        metrics(&dir.path().join("parted")),
        straight,
        "2 threads against 1"
    );

    // As if the process had died in the second epoch, after its line of metrics and before its checkpoint.
    let parted = dir.path().join("parted");
    std::fs::remove_file(parted.join("checkpoints/epoch-0002.safetensors")).unwrap();
    std::fs::remove_file(parted.join("report.json")).unwrap();
    std::fs::remove_file(parted.join("model.safetensors")).unwrap();
    run(dir.path(), "train --resume parted").ok();
    assert_eq!(metrics(&parted), straight, "resumed against straight");
    let weights =
        |run: &str| std::fs::read(dir.path().join(run).join("model.safetensors")).unwrap();
    assert!(
        weights("parted") == weights("straight"),
        "the weights differ"
    );
}

#[test]
fn json_is_one_document_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let trained = run(
        dir.path(),
        &format!("{TINY} --epochs 1 --method ce --out r --json"),
    );
    let report = trained.ok().json();
    assert_eq!(report["method"], "ce");
    assert_eq!(report["epochs"], 1);
    assert_eq!(report["heads"].as_array().unwrap().len(), 1);
}

#[test]
fn a_dry_run_tells_everything_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let text = run(dir.path(), &format!("{TINY} --dry-run")).ok().stdout;
    for part in [
        "[optimizer]",
        "stage",
        "parameters",
        "multiply-adds",
        "memory",
        "time",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    let plan = run(dir.path(), &format!("{TINY} --dry-run --json"))
        .ok()
        .json();
    assert_eq!(plan["config"]["run"]["batch"], 4);
    assert!(
        plan["plan"]["parameters_training"].as_u64() > plan["plan"]["parameters_kept"].as_u64()
    );
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn later_settings_win() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    std::fs::write(
        dir.path().join("c.toml"),
        "[run]\nepochs = 3\nseed = 5\n[optimizer]\nlr = 0.5\n",
    )
    .unwrap();
    let flags =
        "--config c.toml --epochs 4 --objective reference-cifar --set run.seed=6 --set run.seed=7";
    let plan = run(dir.path(), &format!("{TINY} --dry-run --json {flags}"))
        .ok()
        .json();
    let config = &plan["config"];
    assert_eq!(
        (&config["run"]["epochs"], &config["run"]["seed"]),
        (&4.into(), &7.into())
    );
    assert_eq!(config["optimizer"]["lr"], 0.5);
    assert_eq!(config["objective"]["task_mix"], 0.0);
    assert_eq!(config["objective"]["discriminator"], "frozen");
}

#[test]
fn quiet_runs_tell_their_result_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let told = run(dir.path(), &format!("{TINY} --out loud")).ok();
    assert!(told.stderr.contains("epoch 1/"), "{}", told.stderr);
    for quiet in ["-q", "--quiet"] {
        let told = run(dir.path(), &format!("{TINY} {quiet} --out r{quiet}")).ok();
        assert!(told.stdout.contains("top-1"), "{}", told.stdout);
        assert_eq!(told.stderr, "");
    }
    // What is wrong is told.
    run(dir.path(), &format!("-q {TINY} --out r-q")).refused(2, "not empty", "--out");
}
