//! `mixskd compare` on a tiny folder of images.

use crate::support::{image_folder, run};

const TINY: &str = "compare --data pets --width 0.03125 --batch 4 --epochs 1 --set schedule.warmup_epochs=0 --threads 1";

#[test]
fn a_comparison_is_written_taken_up_and_extended() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let first = run(
        dir.path(),
        &format!("{TINY} --methods ce,cutout --seeds 2 --out c --json"),
    );
    let summary = first.ok().json();
    let row = |at: usize| summary["equal_epochs"][at].clone();
    assert_eq!(
        (&row(0)["entry"], &row(1)["entry"]),
        (&"ce".into(), &"cutout".into())
    );
    assert_eq!(
        (&row(0)["runs"], &row(0)["gain"]),
        (&2.into(), &serde_json::Value::Null)
    );
    assert_eq!(row(1)["gain"]["pairs"], 2);
    assert!(row(1)["gain"]["half_width"].is_number());
    let out = dir.path().join("c");
    for file in [
        "compare.toml",
        "compare.json",
        "compare.csv",
        "compare.md",
        "compare.svg",
        "compare.png",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }

    // Without --resume it is refused; with it only what is missing is run.
    let again = run(dir.path(), &format!("{TINY} --methods ce --out c"));
    again.refused(2, "already exists", "--resume");
    let other = run(dir.path(), "compare --out c --resume --epochs 2");
    other.refused(2, "run.epochs = 1; 2 is asked for", "--out");
    std::fs::remove_file(out.join("runs/cutout-seed-1/report.json")).unwrap();
    // Brought from another machine, it may name its data by a relative path.
    let text = std::fs::read_to_string(out.join("compare.toml")).unwrap();
    let pets = std::fs::canonicalize(dir.path().join("pets")).unwrap();
    let relative = text.replace(pets.to_str().unwrap(), "pets");
    assert!(relative != text);
    std::fs::write(out.join("compare.toml"), relative).unwrap();
    let before = std::fs::metadata(out.join("runs/ce-seed-0/report.json")).unwrap();
    let more = run(
        dir.path(),
        "compare --out c --resume --threads 1 --entry soft=mixup:method.alpha=1",
    )
    .ok();
    let after = std::fs::metadata(out.join("runs/ce-seed-0/report.json")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert!(
        more.stderr.contains("3 runs were finished before"),
        "{}",
        more.stderr
    );
    for part in ["soft", "paired difference", "(n = 2)"] {
        assert!(
            more.stdout.contains(part),
            "`{part}` is missing:\n{}",
            more.stdout
        );
    }
}

#[test]
fn a_failed_run_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    run(
        dir.path(),
        &format!("{TINY} --methods ce,mixup --seeds 1 --out c"),
    )
    .ok();
    // A run directory whose settings cannot be read.
    let broken = dir.path().join("c/runs/ce-seed-0");
    std::fs::remove_file(broken.join("report.json")).unwrap();
    std::fs::write(broken.join("config.toml"), "[run]\nepochs = 'many'\n").unwrap();
    let again = run(dir.path(), "compare --out c --resume --threads 1");
    assert_eq!(again.status, 1, "{}", again.stderr);
    assert!(
        again.stderr.contains("1 runs failed: ce seed 0"),
        "{}",
        again.stderr
    );
    assert!(again.stdout.contains("mixup"), "{}", again.stdout);
}

#[test]
fn equal_time_leaves_the_costliest_its_epochs_and_the_other_no_fewer() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let flags = "--methods ce,mixskd --seeds 1 --out c --equal-time --json";
    let summary = run(
        dir.path(),
        &format!("{TINY} --epochs 2 {flags}").replace("--epochs 1 ", ""),
    )
    .ok()
    .json();
    let rows = summary["equal_time"].as_array().unwrap();
    let epochs = |at: usize| rows[at]["epochs"].as_u64().unwrap();
    assert_eq!(rows.len(), 2);
    // Which of them is the costliest the clock says, and on a busy machine that may be either: it keeps its epochs, the other gets no fewer.
    assert_eq!(epochs(0).min(epochs(1)), 2, "{rows:?}");
    assert!(dir.path().join("c/equal-time.toml").is_file());
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let check = |flags: &str, cause: &str, hint: &str| {
        run(dir.path(), &format!("{TINY} --out c {flags}")).refused(2, cause, hint);
        assert!(!dir.path().join("c").exists(), "{flags}");
    };
    check("--methods ce,mixpu", "mixpu", "`mixup`");
    check("", "nothing to compare", "--methods");
    check("--methods ce,ce", "named twice", "--entry");
    check(
        "--entry a=ce:run.epochs=3",
        "the same for all",
        "--set run.epochs=3",
    );
    check(
        "--methods ce --set method.alpha=1",
        "own settings",
        "--entry",
    );
}
