//! CIFAR's binary files.

use super::*;

#[test]
fn cifar_planes_become_pixels_and_labels_are_the_right_byte() {
    let dir = tempfile::tempdir().unwrap();
    example("cifar100", dir.path());
    let fine = open(dir.path()).unwrap();
    assert_eq!((fine.train.label(0), fine.train.label(2)), (0, 2));
    let image = fine.train.image(1).unwrap();
    assert_eq!(
        image.pixels[(5 * 32 + 7) * 3..][..3],
        [2, 5, 7],
        "red 2, row 5, column 7"
    );
    let coarse = DataConfig {
        labels: LabelKind::Coarse,
        ..config(dir.path())
    }
    .open()
    .unwrap();
    assert_eq!((coarse.train.label(0), coarse.train.label(2)), (4, 0));
    assert_eq!(
        (coarse.classes.len(), coarse.classes[4].as_str()),
        (5, "coarse4")
    );
    assert!(fine.train.origin(1).ends_with("train.bin record 1"));
}

#[test]
fn a_subset_of_the_classes_is_a_smaller_set() {
    let dir = tempfile::tempdir().unwrap();
    example("cifar100", dir.path());
    assert_eq!(
        open(dir.path()).unwrap().classes,
        ["fine0", "fine1", "fine2"]
    );
}

#[test]
fn the_folder_that_the_archive_unpacks_to_is_found_inside() {
    for (reader, inner) in [
        ("cifar10", "cifar-10-batches-bin"),
        ("cifar100", "cifar-100-binary"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        example(reader, &dir.path().join(inner));
        assert_eq!(open(dir.path()).unwrap().classes.len(), 3);
    }
}

#[test]
fn damaged_cifar_files_are_refused_by_name() {
    let check = |file: &str, bytes: Vec<u8>, parts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        example("cifar100", dir.path());
        write(dir.path(), file, &bytes);
        refused(open(dir.path()), parts);
    };
    let mut short = cifar(&[&[0, 0], &[1, 1]]);
    short.truncate(5000);
    check(
        "train.bin",
        short,
        &[
            "train.bin: is 5000 bytes",
            "expected 3074 for 1 records or 6148 for 2",
            "truncated",
        ],
    );
    check("test.bin", Vec::new(), &["test.bin: is 0 bytes"]);
    check(
        "train.bin",
        cifar(&[&[0, 0], &[1, 100]]),
        &["train.bin: record 1 has label 100, but there are 100 classes"],
    );
    check(
        "test.bin",
        cifar(&[&[0, 0], &[1, 50]]),
        &[
            "test.bin record 1",
            "label 50 is out of range: training has 3 classes",
        ],
    );
    check(
        "train.bin",
        cifar(&[&[0, 0], &[0, 0]]),
        &["has only one class (fine0)"],
    );
    check(
        "fine_label_names.txt",
        b"\n".to_vec(),
        &["fine_label_names.txt: names no class"],
    );
}

#[test]
fn a_missing_cifar_test_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    example("cifar10", dir.path());
    std::fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("test_batch.bin: cannot read"), "{message}");
}
