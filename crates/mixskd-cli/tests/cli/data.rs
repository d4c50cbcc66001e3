//! `mixskd data preview`: its picture, what it refuses.

use crate::support::{image_folder, run};

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
}
