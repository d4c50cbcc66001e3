//! IDX files.

use super::*;

#[test]
fn idx_is_read_plain_gzipped_and_with_dots() {
    let plain = tempfile::tempdir().unwrap();
    example("idx", plain.path());
    let expected = open(plain.path()).unwrap();
    assert_eq!(
        (expected.size, expected.classes.len(), expected.mirror),
        ((5, 4), 3, false)
    );
    assert_eq!(expected.train.image(1).unwrap().pixels[..3], [20, 21, 22]);
    let other = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(plain.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("train") {
            write(other.path(), &format!("{name}.gz"), &gz(&bytes));
        } else {
            write(other.path(), &name.replace("-idx", ".idx"), &bytes);
        }
    }
    let read = open(other.path()).unwrap();
    assert_eq!(
        read.train.image(3).unwrap(),
        expected.train.image(3).unwrap()
    );
    assert_eq!((&read.mean, &read.std), (&expected.mean, &expected.std));
}

#[test]
fn constants_of_an_unknown_idx_set_are_those_of_its_training_images() {
    let dir = tempfile::tempdir().unwrap();
    example("idx", dir.path());
    let dataset = open(dir.path()).unwrap();
    // Bytes 0…79: mean 39.5, variance (80² - 1) / 12.
    assert!((dataset.mean[0] - 39.5 / 255.0).abs() < 1e-6);
    assert!((dataset.std[0] - (6399.0f32 / 12.0).sqrt() / 255.0).abs() < 1e-6);
}

#[test]
fn damaged_idx_files_are_refused_by_name() {
    let check = |file: &str, change: &dyn Fn(&mut Vec<u8>), parts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        example("idx", dir.path());
        let mut bytes = std::fs::read(dir.path().join(file)).unwrap();
        change(&mut bytes);
        write(dir.path(), file, &bytes);
        refused(open(dir.path()), parts);
    };
    let images = "train-images-idx3-ubyte";
    check(
        images,
        &|b| b.truncate(50),
        &[images, "declares 80 bytes of data and holds only 34"],
    );
    check(
        images,
        &|b| b.truncate(10),
        &[images, "its header cannot be read"],
    );
    check(images, &|b| b.push(0), &[images, "holds more"]);
    check(
        images,
        &|b| b[3] = 1,
        &[images, "begins with 0x00000801, expected 0x00000803"],
    );
    check(images, &|b| b[4] = 255, &[images, "declares"]);
    // Found by `cargo xtask fuzz`: the product of the three sizes has more than 64 bits.
    check(images, &|b| b[4..16].fill(255), &[images, "declares"]);
    check(
        "train-labels-idx1-ubyte",
        &|b| b.truncate(9),
        &["train-labels-idx1-ubyte", "holds only 1"],
    );
    check(
        "t10k-labels-idx1-ubyte",
        &|b| b[7] = 1,
        &["t10k-labels-idx1-ubyte: has 1 labels, but", "has 2 images"],
    );
    check(
        "t10k-labels-idx1-ubyte",
        &|b| b[9] = 9,
        &["record 1: label 9 is out of range: training has 3 classes"],
    );
    check(
        "train-labels-idx1-ubyte",
        &|b| b[8..].fill(0),
        &["has only one class"],
    );
}

#[test]
fn a_broken_gzip_stream_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    example("idx", dir.path());
    let name = dir.path().join("t10k-images-idx3-ubyte");
    let mut bytes = gz(&std::fs::read(&name).unwrap());
    bytes.truncate(bytes.len() - 12);
    std::fs::remove_file(&name).unwrap();
    write(dir.path(), "t10k-images-idx3-ubyte.gz", &bytes);
    refused(
        open(dir.path()),
        &["t10k-images-idx3-ubyte.gz: cannot be read to its end"],
    );
}
