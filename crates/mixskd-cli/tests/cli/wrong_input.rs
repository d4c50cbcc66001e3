//! Wrong input: one cause, one hint, the right exit status, nothing half-written.

use crate::support::{TINY, image_folder, run, save_image};

/// Runs the tiny training with `flags` more in a folder with the tiny data, and expects a refusal.
fn check(flags: &str, status: i32, cause: &str, hint: &str) {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    run(dir.path(), &format!("{TINY} {flags}")).refused(status, cause, hint);
    assert!(
        !dir.path().join("runs").exists(),
        "`{flags}` left a run directory"
    );
}

#[test]
fn unknown_names_are_told_with_the_nearest() {
    check(
        "--model cifar_resnet81",
        2,
        "cifar_resnet81",
        "cifar_resnet18",
    );
    check("--method mixsdk", 2, "mixsdk", "`mixskd`");
    check(
        "--objective reference-cifra",
        2,
        "reference-cifra",
        "`reference-cifar`",
    );
    check("--set optimizer.momentun=0.5", 2, "momentun", "`momentum`");
}

#[test]
fn an_objective_for_a_method_that_has_none_is_refused() {
    for flags in [
        "--method ce --objective mixskd",
        "--method ce --set objective.feature=0",
    ] {
        check(flags, 2, "`ce` has no objective", "--method mixskd");
    }
    check(
        "--method ce --set method.alpha=1",
        2,
        "ce has no setting `alpha`",
        "",
    );
}

#[test]
fn values_out_of_range_are_told_with_their_key() {
    check("--set method.alpha=0", 2, "alpha", "");
    check("--lr -1", 2, "optimizer.lr", "");
    check("--set model.width=0", 2, "model.width", "");
    check("--set objective.temperature=0", 2, "temperature", "");
    check("--set run.batch=400", 2, "400", "--batch 8");
}

#[test]
fn a_setting_that_is_no_pair_is_explained() {
    check("--set momentum", 2, "KEY=VALUE", "--set");
    check("--set =3", 2, "--set =3", "--set");
}

#[test]
fn clap_refuses_what_cannot_stand_together() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), "train --resume there --epochs 3");
    run.refused(2, "--resume", "--help");
    assert!(run.stderr.contains("--epochs"), "{}", run.stderr);
}

#[test]
fn data_that_is_not_there_is_a_wrong_path() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "train --data nowhere/at/all").refused(2, "nowhere/at/all", "");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    run(dir.path(), "train --data empty").refused(2, "empty", "");
    run(dir.path(), "train --resume empty").refused(2, "empty", "mixskd train");
}

#[test]
fn an_existing_out_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    std::fs::create_dir(dir.path().join("mine")).unwrap();
    std::fs::write(dir.path().join("mine/thesis.txt"), "four years").unwrap();
    run(dir.path(), &format!("{TINY} --out mine")).refused(2, "mine", "--out");
    assert_eq!(
        std::fs::read_dir(dir.path().join("mine")).unwrap().count(),
        1
    );
}

#[test]
fn a_corrupt_image_stops_the_run_unless_it_may_be_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 6);
    let path = folder.join("train/cat/00.png");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    run(dir.path(), &format!("{TINY} --epochs 1 --out a")).refused(
        1,
        "00.png",
        "--skip-unreadable",
    );
    let skipped = run(
        dir.path(),
        &format!("{TINY} --epochs 1 --out b --skip-unreadable"),
    )
    .ok();
    assert!(skipped.stderr.contains("skipped 1"), "{}", skipped.stderr);
}

#[test]
fn a_truncated_cifar_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let cifar = dir.path().join("cifar-100-binary");
    std::fs::create_dir(&cifar).unwrap();
    std::fs::write(cifar.join("train.bin"), vec![0u8; 3 * 3074 - 5]).unwrap();
    std::fs::write(cifar.join("test.bin"), vec![0u8; 3074]).unwrap();
    run(dir.path(), "train --data cifar-100-binary").refused(1, "train.bin", "");
}

#[test]
fn one_class_is_not_enough() {
    let dir = tempfile::tempdir().unwrap();
    for split in ["train", "val"] {
        let folder = dir.path().join("only").join(split).join("cat");
        std::fs::create_dir_all(&folder).unwrap();
        save_image(&folder.join("a.png"), 8, 1);
        save_image(&folder.join("b.png"), 8, 9);
    }
    run(dir.path(), "train --data only").refused(2, "class", "");
}

#[test]
fn a_wrong_config_file_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "[run]\nepochs = 3\nbach = 4\n").unwrap();
    run(dir.path(), "train --config c.toml").refused(2, "c.toml:3", "`batch`");
    std::fs::write(dir.path().join("d.toml"), "[optimizer]\nmomentum = 7\n").unwrap();
    run(dir.path(), "train --config d.toml").refused(2, "d.toml:2: optimizer.momentum", "");
    run(dir.path(), "train --config missing.toml").refused(2, "missing.toml", "");
    std::fs::write(dir.path().join("f.toml"), "# ".repeat(600_000)).unwrap();
    run(dir.path(), "train --config f.toml").refused(2, "f.toml: is larger than 1 MiB", "");
    // Ranges that other crates know are told the same way, by every command that reads the file.
    for (text, place) in [
        ("[objective]\nfeature = -1\n", "e.toml:2: objective.feature"),
        ("[data]\nval_fraction = 7\n", "e.toml:2: data.val_fraction"),
    ] {
        std::fs::write(dir.path().join("e.toml"), text).unwrap();
        run(dir.path(), "train --config e.toml").refused(2, place, "");
        run(dir.path(), "compare --methods ce --config e.toml").refused(2, place, "");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_no_end_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "train --config /dev/zero",
        "eval --weights /dev/zero",
        "predict --weights /dev/zero a.png",
        "import /dev/zero --model resnet18 -o a.safetensors",
    ] {
        run(dir.path(), line).refused(2, "/dev/zero: is a device", "");
    }
}

#[test]
fn weights_that_are_none_or_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    std::fs::write(dir.path().join("w.safetensors"), b"not weights").unwrap();
    run(dir.path(), "eval --weights w.safetensors").refused(1, "w.safetensors", "");
    run(dir.path(), "predict --weights gone.safetensors a.png").refused(2, "gone.safetensors", "");

    run(
        dir.path(),
        &format!("{TINY} --method ce --epochs 1 --out r"),
    )
    .ok();
    let weights = "--weights r/model.safetensors";
    run(
        dir.path(),
        &format!("eval {weights} --data fashion-mnist-mini"),
    )
    .refused(2, "class", "--data");
    run(
        dir.path(),
        &format!("predict {weights} --topk 3 pets/val/cat/00.png"),
    )
    .refused(2, "2 classes", "--topk 2");

    // No flag is advised that the command does not have.
    std::fs::write(dir.path().join("text.png"), "no picture").unwrap();
    let unread = run(dir.path(), &format!("predict {weights} text.png"));
    unread.refused(1, "text.png", "PNG");
    assert!(!unread.stderr.contains("--skip"), "{}", unread.stderr);
    run(
        dir.path(),
        &format!("analyze {weights} --data pets --only agreement"),
    )
    .refused(2, "agreement", "--weights twice");

    // Images that cannot be read are named; the others are still classified.
    std::fs::create_dir(dir.path().join("bare")).unwrap();
    let mixed = run(
        dir.path(),
        &format!("predict {weights} gone.png pets/val/cat bare"),
    );
    assert_eq!(mixed.status, 1);
    assert!(
        mixed.stdout.contains("pets/val/cat/00.png"),
        "{}",
        mixed.stdout
    );
    for name in ["gone.png", "bare"] {
        assert!(
            mixed.stderr.contains(name),
            "`{name}` is not named:\n{}",
            mixed.stderr
        );
    }
    let mixed = format!("predict {weights} gone.png pets/val/cat/00.png bare");
    let listed = run(dir.path(), &format!("{mixed} --json"));
    assert_eq!(listed.status, 1);
    let listed = listed.json();
    let error = |at: usize| listed[at]["error"].as_str().unwrap_or("").to_string();
    assert!(error(0).contains("gone.png") && error(2).contains("no picture"));
    assert!(listed[1]["top"].is_array() && listed[1]["error"].is_null());
    let table = run(dir.path(), &format!("{mixed} --csv --topk 2"));
    assert_eq!(table.status, 1);
    let rows: Vec<Vec<&str>> = table
        .stdout
        .lines()
        .map(|line| line.splitn(6, ',').collect())
        .collect();
    assert_eq!(rows[0].join(" "), "file rank label class probability error");
    let firsts: Vec<_> = rows[1..].iter().map(|row| (row[0], row[1])).collect();
    let cat = "pets/val/cat/00.png";
    assert_eq!(
        firsts,
        [("gone.png", ""), (cat, "1"), (cat, "2"), ("bare", "")]
    );
    assert!(rows[1][5].contains("gone.png"), "{:?}", rows[1]);
    let sum = |at: usize| rows[at][4].parse::<f64>().unwrap();
    assert!((sum(2) + sum(3) - 1.0).abs() < 1e-6);
}
