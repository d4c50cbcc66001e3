//! Tests of every reader: those of the table, and a file for each layout.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    reason = "tests make short texts; speed is no matter"
)]

use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use image::{DynamicImage, Rgb, RgbImage};

use super::*;
use crate::{Error, LabelKind, LoaderConfig};

mod cifar;
mod faults;
mod folder;
mod idx;

/// Writes a small data set of one reader's kind into a folder; two classes or more, training and test.
fn example(reader: &str, dir: &Path) {
    match reader {
        "cifar10" => {
            for n in 1..=5 {
                write(
                    dir,
                    &format!("data_batch_{n}.bin"),
                    &cifar(&[&[0], &[1], &[2]]),
                );
            }
            write(dir, "test_batch.bin", &cifar(&[&[2], &[0]]));
            write(
                dir,
                "batches.meta.txt",
                b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
            );
        }
        "cifar100" => {
            write(dir, "train.bin", &cifar(&[&[4, 0], &[1, 1], &[0, 2]]));
            write(dir, "test.bin", &cifar(&[&[0, 2], &[4, 0]]));
            let names = |count: usize, stem: &str| {
                (0..count)
                    .map(|n| format!("{stem}{n}\n"))
                    .collect::<String>()
            };
            write(dir, "fine_label_names.txt", names(100, "fine").as_bytes());
            write(
                dir,
                "coarse_label_names.txt",
                names(20, "coarse").as_bytes(),
            );
        }
        "idx" => {
            for (split, labels) in [("train", &[0u8, 1, 2, 1][..]), ("t10k", &[2, 0])] {
                let (images, labels) = idx(labels, 5, 4);
                write(dir, &format!("{split}-images-idx3-ubyte"), &images);
                write(dir, &format!("{split}-labels-idx1-ubyte"), &labels);
            }
        }
        "cub" => {
            write(
                dir,
                "classes.txt",
                b"1 001.Albatross\n2 002.Auk\n3 003.Bunting\n",
            );
            let (mut images, mut labels, mut split) = (String::new(), String::new(), String::new());
            for (at, class) in ["001.Albatross", "002.Auk", "003.Bunting"]
                .iter()
                .enumerate()
            {
                for n in 0..3 {
                    let id = at * 3 + n + 1;
                    picture(
                        &dir.join("images").join(class).join(format!("{n}.jpg")),
                        40,
                        30,
                    );
                    images += &format!("{id} {class}/{n}.jpg\n");
                    labels += &format!("{id} {}\n", at + 1);
                    split += &format!("{id} {}\n", u8::from(n > 0));
                }
            }
            for (name, text) in [
                ("images", images),
                ("image_class_labels", labels),
                ("train_test_split", split),
            ] {
                write(dir, &format!("{name}.txt"), text.as_bytes());
            }
        }
        "folder" => {
            for (split, count) in [("train", 3), ("val", 2)] {
                for (class, extension) in [
                    ("ant", "png"),
                    ("bee", "jpg"),
                    ("cow", "bmp"),
                    ("dog", "webp"),
                ] {
                    for n in 0..count {
                        picture(
                            &dir.join(split).join(class).join(format!("{n}.{extension}")),
                            40,
                            30,
                        );
                    }
                }
            }
        }
        // Need no folder: tested below.
        "shipped" | "hub" => {}
        other => panic!("write an example of a `{other}` source, so that the tests know it"),
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Records with the given label bytes; red is the record's number, green the row, blue the column.
fn cifar(labels: &[&[u8]]) -> Vec<u8> {
    let record = |(at, labels): (usize, &&[u8])| {
        let mut record = labels.to_vec();
        record.extend([at as u8 + 1; 1024]);
        record.extend((0..1024).map(|i| (i / 32) as u8));
        record.extend((0..1024).map(|i| (i % 32) as u8));
        record
    };
    labels.iter().enumerate().flat_map(record).collect()
}

fn idx(labels: &[u8], height: u32, width: u32) -> (Vec<u8>, Vec<u8>) {
    let count = labels.len() as u32;
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect::<Vec<_>>()
    };
    let mut images = words(&[2051, count, height, width]);
    images.extend((0..count * height * width).map(|i| i as u8));
    let mut all = words(&[2049, count]);
    all.extend(labels);
    (images, all)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn picture(path: &Path, width: u32, height: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 128]))
        .save(path)
        .unwrap();
}

fn config(dir: &Path) -> DataConfig {
    DataConfig {
        source: dir.display().to_string(),
        ..DataConfig::default()
    }
}

fn open(dir: &Path) -> Result<Dataset> {
    config(dir).open_in(Path::new("/nonexistent"))
}

/// A folder with so many pictures in each of these folders below it.
fn filled(names: &[&str], count: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        for n in 0..count {
            picture(&dir.path().join(name).join(format!("{n}.png")), 8, 8);
        }
    }
    dir
}

/// Paths as they are written everywhere but on Windows.
fn slashes(text: &str) -> String {
    text.replace('\\', "/")
}

/// Opening must fail with a message that holds every one of `parts`, and a hint.
fn refused(result: Result<Dataset>, parts: &[&str]) {
    let message = slashes(&result.expect_err("must be refused").to_string());
    for part in parts.iter().chain([&"\nhint: "]) {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn every_reader_knows_its_own_folder_and_its_images_can_be_loaded() {
    for reader in ALL {
        let dir = tempfile::tempdir().unwrap();
        example(reader.name, dir.path());
        let source = match reader.name {
            "shipped" => Source::Shipped,
            "hub" => continue,
            _ => Source::Folder {
                dir: dir.path().into(),
                recipe: None,
            },
        };
        let first = ALL
            .iter()
            .find(|reader| (reader.detect)(&source))
            .map(|reader| reader.name);
        assert_eq!(first, Some(reader.name));
        let dataset = (reader.open)(&source, &DataConfig::default())
            .unwrap()
            .checked()
            .unwrap();
        assert!(
            dataset.train.len() > dataset.test.len() && dataset.classes.len() >= 3,
            "{dataset:?}"
        );
        for samples in [&dataset.train, &dataset.test] {
            for index in [0, samples.len() - 1] {
                let image = samples.image(index).unwrap();
                assert_eq!(
                    (image.channels, image.pixels.len()),
                    (
                        dataset.channels,
                        image.height * image.width * image.channels
                    )
                );
                assert!(!dataset.uniform || (image.height, image.width) == dataset.size);
                assert!(
                    samples
                        .view(index)
                        .is_none_or(|view| view.to_image() == image)
                );
                assert!(!samples.origin(index).is_empty());
            }
        }
        let size = dataset.input_size();
        for (samples, pipeline) in [
            (&dataset.train, dataset.train_pipeline(size)),
            (&dataset.test, dataset.eval_pipeline(size)),
        ] {
            let loader = LoaderConfig {
                batch: 2,
                prefetch: 0,
                ..LoaderConfig::default()
            };
            let batch = crate::Loader::new(samples.clone(), pipeline.unwrap(), loader)
                .unwrap()
                .epoch(0)
                .next()
                .unwrap()
                .unwrap();
            assert_eq!(batch.images.dims(), [2, size, size, dataset.channels]);
        }
    }
}

#[test]
fn names_are_unique_and_every_reader_says_what_it_reads() {
    for (at, reader) in ALL.iter().enumerate() {
        assert!(
            ALL[..at].iter().all(|other| other.name != reader.name) && !reader.summary.is_empty()
        );
    }
}

#[test]
fn the_shipped_set_is_balanced() {
    let dataset = DataConfig::default().open().unwrap();
    assert_eq!(
        (dataset.name.as_str(), dataset.classes[9].as_str()),
        (SHIPPED, "Ankle boot")
    );
    assert_eq!(
        (dataset.size, dataset.channels, dataset.uniform),
        ((28, 28), 1, true)
    );
    for (samples, each) in [(&dataset.train, 600), (&dataset.test, 100)] {
        let mut counts = [0; 10];
        (0..samples.len()).for_each(|index| counts[samples.label(index) as usize] += 1);
        assert_eq!(counts, [each; 10]);
    }
}

#[test]
fn cub_follows_its_lists_and_names_a_line_that_is_wrong() {
    let check = |file: &str, text: &[u8], parts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        example("cub", dir.path());
        write(dir.path(), file, text);
        refused(open(dir.path()), parts);
    };
    let dir = tempfile::tempdir().unwrap();
    example("cub", dir.path());
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len()), (6, 3));
    assert_eq!(dataset.classes, ["001.Albatross", "002.Auk", "003.Bunting"]);
    assert!(dataset.test.origin(1).ends_with("002.Auk/0.jpg") && dataset.test.label(1) == 1);
    check(
        "image_class_labels.txt",
        b"1 1\n2\n",
        &["image_class_labels.txt: line 2 is `2`"],
    );
    check(
        "image_class_labels.txt",
        b"1 1\n",
        &["image_class_labels.txt: has no line for id"],
    );
    check(
        "classes.txt",
        b"1 001.Albatross\n",
        &["classes.txt: has no line for id"],
    );
    let all = |mark: &str| {
        (1..=9)
            .map(|id| format!("{id} {mark}\n"))
            .collect::<String>()
    };
    check(
        "train_test_split.txt",
        all("x").as_bytes(),
        &["train_test_split.txt: image", "is marked `x`"],
    );
    check(
        "train_test_split.txt",
        all("1").as_bytes(),
        &["has no test image"],
    );
}

#[test]
fn a_class_that_skipping_empties_is_refused() {
    for (reader, files, class) in [
        (
            "cub",
            ["images/002.Auk/1.jpg", "images/002.Auk/2.jpg"].as_slice(),
            "002.Auk",
        ),
        (
            "folder",
            &["train/bee/0.jpg", "train/bee/1.jpg", "train/bee/2.jpg"],
            "bee",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        example(reader, dir.path());
        let open = || {
            let config = DataConfig {
                skip_unreadable: true,
                ..config(dir.path())
            };
            config.open()
        };
        for (broken, file) in files.iter().enumerate() {
            assert_eq!(open().unwrap().skipped.len(), broken);
            write(dir.path(), file, b"no picture");
        }
        refused(open(), &["holds no readable", class]);
    }
}

#[test]
fn unknown_names_suggest_and_known_ones_say_how_to_fetch() {
    let open = |name: &str, root: &Path| {
        DataConfig {
            source: name.into(),
            ..DataConfig::default()
        }
        .open_in(root)
    };
    let root = tempfile::tempdir().unwrap();
    refused(
        open("cifar100", root.path()),
        &[
            "no known data set of that name",
            "did you mean `cifar-100`?",
        ],
    );
    refused(
        open("cifar-100", root.path()),
        &["cifar-100: is not in", "mixskd datasets fetch cifar-100"],
    );
    example("cifar100", &root.path().join("cifar-100/cifar-100-binary"));
    assert_eq!(open("cifar-100", root.path()).unwrap().name, "cifar-100");
    #[cfg(not(feature = "hub"))]
    refused(
        open("hub:mnist", root.path()),
        &["hub:mnist: this build has no hub support", "--features hub"],
    );
}

#[test]
fn a_fetched_set_brings_its_class_names_and_constants() {
    let root = tempfile::tempdir().unwrap();
    example("idx", &root.path().join("fashion-mnist"));
    let config = DataConfig {
        source: "fashion-mnist".into(),
        ..DataConfig::default()
    };
    let dataset = config.open_in(root.path()).unwrap();
    assert_eq!(dataset.classes, ["T-shirt/top", "Trouser", "Pullover"]);
    assert_eq!((dataset.mean, dataset.mirror), (vec![0.2860], true));
    // The same by its folder's name.
    let by_path = DataConfig {
        source: root.path().join("fashion-mnist").display().to_string(),
        ..config
    };
    assert_eq!(
        by_path
            .open_in(Path::new("/nonexistent"))
            .unwrap()
            .classes
            .len(),
        3
    );
}

#[test]
fn unknown_keys_of_the_configuration_are_refused() {
    assert!(
        toml::from_str::<DataConfig>("sourc = 'x'")
            .unwrap_err()
            .to_string()
            .contains("unknown field `sourc`")
    );
    let config: DataConfig = toml::from_str("source = 'x'\nlabels = 'coarse'").unwrap();
    assert_eq!(
        toml::from_str::<DataConfig>(&toml::to_string(&config).unwrap()).unwrap(),
        config
    );
}

#[test]
fn errors_say_what_the_system_said() {
    let error = Error::io(Path::new("/x/y"), "read")(std::io::Error::other("no more ink"));
    assert_eq!(error.to_string(), "/x/y: cannot read: no more ink");
}
