//! `mixskd data`: what a check finds; a preview's picture, what it refuses.

use crate::support::{TINY, image_folder, run, save_image, slashes};

#[test]
fn a_preview_is_a_picture_of_what_training_would_see() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 6);
    let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
    let line = "data preview --data pets --batch 4 --count 6";
    let told = run(dir.path(), line).ok();
    assert_eq!(told.stdout, "preview-mixskd-pets.png\n");
    let first = read("preview-mixskd-pets.png");
    let picture = image::load_from_memory(&first).unwrap().to_rgb8();
    assert!(picture.width() > 3 * 168 && picture.height() > 2 * 168);
    let told = run(
        dir.path(),
        &format!("{line} --threads 1 --out again.png --json"),
    );
    assert_eq!(told.ok().json()["picture"], "again.png");
    assert!(
        read("again.png") == first,
        "the same settings, another picture"
    );
    for other in [
        "--seed 1",
        "--method cutmix",
        "--augment cutout",
        "--set method.alpha=8",
    ] {
        run(dir.path(), &format!("{line} {other} --out other.png")).ok();
        assert!(read("other.png") != first, "{other} changes nothing");
    }
    // Nothing else is left behind.
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["again.png", "other.png", "pets", "preview-mixskd-pets.png"]
    );
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 6);
    let run = |line: &str| run(dir.path(), &format!("data preview --data pets {line}"));
    run("--method mixxup").refused(2, "called `mixxup`", "mixup");
    run("--batch 100").refused(2, "a batch of 100", "--batch 12");
    run("--set method.alpha=-1 --batch 4").refused(2, "alpha", "");
    run("--augment cutoff").refused(2, "cutoff", "cutout");
    run("--config gone.toml").refused(2, "gone.toml", "configs/");
    run("--batch 4 --out no/where.png").refused(1, "no/where.png", "path");
    run("--batch 4 --out a.jpg").refused(2, "a.jpg", ".png");
    assert_eq!(run("--count 0").status, 2);
    let bare = crate::support::run(dir.path(), "data");
    assert_eq!(bare.status, 2);
    assert!(
        bare.stderr.starts_with("error: a command is missing\n"),
        "{}",
        bare.stderr
    );
}

#[test]
fn a_check_finds_what_is_wrong_with_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 6);
    let check = |flags: &str| run(dir.path(), &format!("data check --data pets {flags}"));
    let told = check("").ok();
    for line in [
        "pets, 2 classes",
        "6 of each class",
        "all 8 × 8",
        "cannot be read: 0",
    ] {
        assert!(told.stdout.contains(line), "{}", told.stdout);
    }

    let copy = |from: &str, to: &str| std::fs::copy(folder.join(from), folder.join(to)).unwrap();
    copy("train/cat/01.png", "val/cat/09.png");
    copy("train/cat/02.png", "train/dog/20.png");
    copy("train/dog/03.png", "train/dog/21.png");
    save_image(&folder.join("train/cat/big.png"), 20, 9);
    let found = check("--json --threads 1").ok().json();
    let pair = |key: &str| {
        let pairs = found[key].as_array().unwrap();
        assert_eq!(pairs.len(), 1, "{key}: {pairs:?}");
        let end = |k: usize| pairs[0][k].as_str().unwrap().replace('\\', "/");
        [end(0), end(1)].map(|path| path.split_once("pets/").unwrap().1.to_string())
    };
    assert_eq!(pair("leaked"), ["val/cat/09.png", "train/cat/01.png"]);
    assert_eq!(
        pair("contradicting"),
        ["train/dog/20.png", "train/cat/02.png"]
    );
    assert_eq!(pair("repeated"), ["train/dog/21.png", "train/dog/03.png"]);
    assert_eq!(found["size"], serde_json::json!([[8, 8], [20, 20]]));
    assert_eq!(found["classes"][1]["train"], 8);

    // Training warns of it, too.
    let told = run(dir.path(), "train --data pets --batch 4 --dry-run").ok();
    for warning in [
        "1 test image is there for training",
        "1 training image is there as another",
    ] {
        assert!(told.stderr.contains(warning), "{}", told.stderr);
    }

    std::fs::write(folder.join("val/dog/09.png"), b"no picture").unwrap();
    let told = check("");
    assert_eq!(told.status, 1);
    assert!(told.stdout.contains("val/dog/09.png: "), "{}", told.stdout);
    for word in ["1 image cannot be read", "--skip-unreadable"] {
        assert!(told.stderr.contains(word), "{}", told.stderr);
    }
    let told = check("--skip-unreadable").ok();
    assert!(
        told.stdout.contains("left out, as they cannot be read: 1"),
        "{}",
        told.stdout
    );
}

#[test]
fn classes_far_from_equal_are_told_and_scored_by_class() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 10);
    for k in 1..10 {
        std::fs::remove_file(folder.join(format!("train/dog/{k:02}.png"))).unwrap();
    }
    for k in 1..4 {
        std::fs::remove_file(folder.join(format!("val/dog/{k:02}.png"))).unwrap();
    }
    let told = run(
        dir.path(),
        "train --data pets --batch 4 --epochs 1 --width 0.03125 --out r",
    )
    .ok();
    assert!(
        told.stderr.contains("classes have 1 to 10 training images"),
        "{}",
        told.stderr
    );
    let told = run(dir.path(), "eval --data pets --weights r/model.safetensors").ok();
    assert!(
        told.stdout.contains("which have 1 to 4 test images"),
        "{}",
        told.stdout
    );
    let report = run(
        dir.path(),
        "eval --data pets --weights r/model.safetensors --json",
    )
    .ok()
    .json();
    let number = |key: &str| report[key].as_f64().unwrap();
    // Of four cats and one dog: what is right of them, image by image and class by class.
    let right = (5.0 * number("top1")).round();
    let dog = (2.0 * number("balanced") - right / 4.0) / (1.0 - 0.25);
    assert!(dog.abs() < 1e-9 || (dog - 1.0).abs() < 1e-9, "{report}");
}

#[test]
fn what_there_is_to_know_of_the_data_stands_with_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let pets = image_folder(dir.path(), 4);
    std::fs::copy(pets.join("train/cat/00.png"), pets.join("val/cat/leak.png")).unwrap();
    let read = |name: &str| slashes(&std::fs::read_to_string(dir.path().join(name)).unwrap());
    let compare = format!(
        "{} --methods ce --seeds 1 --epochs 1 --threads 1 --out c",
        TINY.replacen("train", "compare", 1)
    );
    run(dir.path(), &compare).ok();
    let note = read("c/compare.md");
    let note = note
        .lines()
        .find(|line| line.starts_with("- Of the data: "));
    assert!(note.unwrap().contains("val/cat/leak.png"), "{note:?}");
    // Nothing is left to do, and the data need not be there.
    std::fs::remove_file(dir.path().join("c/compare.md")).unwrap();
    std::fs::rename(&pets, dir.path().join("elsewhere")).unwrap();
    run(dir.path(), "compare --out c --resume").ok();
    assert!(read("c/compare.md").contains("leak.png"));

    std::fs::rename(dir.path().join("elsewhere"), &pets).unwrap();
    run(
        dir.path(),
        &format!("{TINY} --method ce --epochs 1 --out r"),
    )
    .ok();
    let record: serde_json::Value = serde_json::from_str(&read("r/run.json")).unwrap();
    let notices = record[0]["notices"].to_string();
    assert!(notices.contains("leak.png"), "{record}");
    let page = read("r/report.html");
    assert!(page.contains("Told on the way: ") && page.contains("leak.png"));
}

#[test]
fn a_copy_with_smaller_pictures_is_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 6);
    let large = dir.path().join("pets/train/cat/large.png");
    save_image(&large, 80, 40);
    let shrink = |flags: &str| run(dir.path(), &format!("data shrink --data pets {flags}"));
    let told = shrink("--out small --side 32").ok();
    for line in [
        "smaller      1 with a shorter side of 32",
        "as they are  ",
        "next: mixskd train --data small",
    ] {
        assert!(told.stdout.contains(line), "{}", told.stdout);
    }
    let size = |path: &str| image::image_dimensions(dir.path().join(path)).unwrap();
    assert_eq!(size("small/train/cat/large.png"), (32, 32));
    run(dir.path(), "data check --data small").ok();
    let again = shrink("--out small --side 32 --json").ok().json();
    assert_eq!(
        (&again["scaled"], &again["out"]),
        (&0.into(), &"small".into())
    );
    shrink("--out small").refused(2, "small: is a copy of", "new folder");
    shrink("--out pets/copy").refused(2, "lies in", "beside");
    shrink("--out other --side 8").refused(2, "--side", "");
    assert_eq!(shrink("").status, 2);
    run(dir.path(), "data shrink --data cifar-100 --out c").refused(2, "is no folder", "folders");
    std::fs::write(dir.path().join("pets/train/cat/bad.jpg"), "no picture").unwrap();
    let told = shrink("--out small --side 32");
    assert_eq!(told.status, 1);
    assert!(
        told.stderr.contains("1 picture cannot be read"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("--skip-unreadable"), "{}", told.stderr);
    let told = shrink("--out small --side 32 --skip-unreadable").ok();
    assert!(
        slashes(&told.stdout).contains("pets/train/cat/bad.jpg: "),
        "{}",
        told.stdout
    );
}
