//! Faults of folders, and what is said of them.

use super::*;

#[test]
fn classes_with_the_same_fault_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str| picture(&dir.path().join(name).join("0.png"), 8, 8);
    for name in ["train/ant", "train/bee", "val/ant", "val/cow", "val/dog"] {
        put(name);
    }
    refused(
        open(dir.path()),
        &["cow: is a class that training does not have (the same of dog)"],
    );
    for name in ["train/cow", "train/dog"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    refused(
        open(dir.path()),
        &["cow: holds no readable image (the same of dog)"],
    );
    let split = DataConfig {
        val_fraction: Some(0.5),
        ..config(&dir.path().join("val"))
    };
    refused(
        split.open(),
        &["ant: has one image only", "(the same of cow, dog)"],
    );
}

#[test]
fn a_folder_one_level_too_high_is_told() {
    let fill = |names: &[&str]| filled(names, 2);
    let split = |dir: &tempfile::TempDir| {
        let config = DataConfig {
            val_fraction: Some(0.5),
            ..config(dir.path())
        };
        config.open()
    };
    let set = [
        "pets/train/ant",
        "pets/train/bee",
        "pets/val/ant",
        "pets/val/bee",
    ];
    for more in [&[][..], &["other/a"], &["a/a", "z/z"]] {
        let dir = fill(&[&set[..], more].concat());
        refused(open(dir.path()), &["is not the set itself", "give", "pets"]);
        refused(split(&dir), &["is not the set itself"]);
    }
    // The only folder, with several classes.
    let dir = fill(&["pets/ant", "pets/bee"]);
    refused(split(&dir), &["is not the set itself"]);
    // Classes whose images lie in folders of any name are classes.
    let dir = fill(&["ant/train", "ant/old", "bee/train", "bee/old"]);
    assert_eq!(split(&dir).unwrap().classes, ["ant", "bee"]);
    // So are those that keep their own splits, even by day.
    let by_day = [
        "ant/train/mon",
        "ant/train/tue",
        "ant/val",
        "bee/train/mon",
        "bee/train/tue",
        "bee/val",
    ];
    assert_eq!(split(&fill(&by_day)).unwrap().train.len(), 6);
    // A set beside another one, which is not asked for.
    let beside = [
        "train/ant",
        "train/bee",
        "backup/train/ant",
        "backup/train/bee",
        "backup/val/ant",
    ];
    assert_eq!(split(&fill(&beside)).unwrap().classes, ["ant", "bee"]);
    let dir = fill(&["ant/train", "ant/val", "bee/train", "bee/val"]);
    assert_eq!(split(&dir).unwrap().train.len(), 4);
    // One class stays one.
    for name in ["pets/ant", "ant"] {
        refused(split(&fill(&[name])), &["has only one class"]);
    }
}
