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

/// Opening must fail with a message that holds every one of `parts`, and a hint.
fn refused(result: Result<Dataset>, parts: &[&str]) {
    let message = result.expect_err("must be refused").to_string();
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

#[test]
fn a_folder_splits_by_class_with_its_seed() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["ant", "bee"] {
        for n in 0..10 {
            picture(&dir.path().join(class).join(format!("{n}.png")), 8, 8);
        }
    }
    let split = |seed| {
        let config = DataConfig {
            val_fraction: Some(0.3),
            seed,
            ..config(dir.path())
        };
        let dataset = config.open().unwrap();
        let test = (0..dataset.test.len())
            .map(|index| dataset.test.origin(index))
            .collect::<Vec<_>>();
        let train = (0..dataset.train.len())
            .map(|index| dataset.train.origin(index))
            .collect::<Vec<_>>();
        assert!(train.iter().all(|file| !test.contains(file)));
        assert_eq!((train.len(), test.len()), (14, 6));
        assert_eq!(test.iter().filter(|file| file.contains("/ant/")).count(), 3);
        test
    };
    assert_eq!(split(1), split(1));
    assert_ne!(split(1), split(2));
    refused(
        open(dir.path()),
        &["has no val or test folder", "--val-fraction"],
    );
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        let config = DataConfig {
            val_fraction: Some(fraction),
            ..config(dir.path())
        };
        refused(config.open(), &["val_fraction: must lie between 0 and 1"]);
    }
}

#[test]
fn small_folders_of_one_size_are_treated_like_cifar() {
    let dir = tempfile::tempdir().unwrap();
    for split in ["train", "test"] {
        for class in ["ant", "bee"] {
            picture(&dir.path().join(split).join(class).join("0.png"), 16, 16);
            picture(&dir.path().join(split).join(class).join("1.png"), 16, 16);
        }
    }
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.uniform, dataset.size), (true, (16, 16)));
    write(dir.path(), "train/ant/0.png", b"broken");
    assert!(
        open(dir.path()).unwrap().uniform,
        "a broken file is for the loader to report"
    );
    picture(&dir.path().join("test/bee/2.png"), 17, 16);
    let dataset = open(dir.path()).unwrap();
    assert_eq!((dataset.uniform, dataset.size), (false, (224, 224)));
}

#[test]
fn grey_and_transparent_images_become_rgb() {
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    let grey = DynamicImage::new_luma8(6, 5);
    grey.save(dir.path().join("train/ant/grey.png")).unwrap();
    DynamicImage::new_rgba8(6, 5)
        .save(dir.path().join("train/ant/seen_through.png"))
        .unwrap();
    write(dir.path(), "train/ant/.hidden.png", b"not an image");
    write(dir.path(), "train/ant/notes.txt", b"not an image");
    let dataset = open(dir.path()).unwrap();
    assert_eq!(
        dataset.train.len(),
        14,
        "hidden files and notes are passed over"
    );
    for index in 0..dataset.train.len() {
        assert_eq!(dataset.train.image(index).unwrap().channels, 3);
    }
}

#[test]
fn a_corrupt_image_stops_or_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    write(
        dir.path(),
        "train/bee/broken.jpg",
        b"\xff\xd8\xff\xe0 this is no picture",
    );
    write(dir.path(), "train/ant/empty.png", b"");
    let dataset = open(dir.path()).unwrap();
    let failures: Vec<String> = (0..dataset.train.len())
        .filter_map(|index| dataset.train.image(index).err())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(failures.len(), 2);
    assert!(
        failures[1].contains("bee/broken.jpg: ") && failures[1].contains("--skip-unreadable"),
        "{failures:?}"
    );
    let dataset = DataConfig {
        skip_unreadable: true,
        ..config(dir.path())
    }
    .open()
    .unwrap();
    assert_eq!((dataset.train.len(), dataset.skipped.len()), (12, 2));
    assert!(
        dataset.skipped[1].contains("bee/broken.jpg: "),
        "{:?}",
        dataset.skipped
    );
}

#[test]
fn an_image_that_declares_too_much_is_refused_before_it_gets_memory() {
    // A PNG header of 100,000 × 100,000 pixels and nothing else.
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    let path = dir.path().join("train/ant/bomb.png");
    picture(&path, 4, 4);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16..20].copy_from_slice(&100_000u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&100_000u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = crate::read_image(&path, 3).unwrap_err().to_string();
    assert!(
        error.contains("bomb.png: ") && error.to_lowercase().contains("limit"),
        "{error}"
    );
}

#[test]
fn senseless_folders_are_refused() {
    let check = |make: &dyn Fn(&Path), change: &dyn Fn(&mut DataConfig), parts: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let mut config = config(dir.path());
        change(&mut config);
        refused(config.open_in(Path::new("/nonexistent")), parts);
    };
    check(&|_| {}, &|_| {}, &["the folder is empty"]);
    check(
        &|dir| write(dir, "notes.txt", b"?"),
        &|_| {},
        &["none of the known layouts", "CIFAR-100 binary", "IDX"],
    );
    check(
        &|dir| example("folder", dir),
        &|c| c.source.push_str("/none"),
        &["/none: there is no such folder"],
    );
    check(
        &|dir| example("folder", dir),
        &|c| c.source.push_str("/val/ant/0.png"),
        &["is a file, not a folder"],
    );
    check(
        &|dir| example("folder", dir),
        &|c| c.val_fraction = Some(0.5),
        &["val_fraction: ", "val holds test images already"],
    );
    check(
        &|dir| example("cifar10", dir),
        &|c| c.val_fraction = Some(0.5),
        &["comes with its own test set"],
    );
    check(
        &|dir| example("cifar10", dir),
        &|c| c.labels = LabelKind::Coarse,
        &["has no coarse labels"],
    );
    let empty_class = |dir: &Path| {
        example("folder", dir);
        write(dir, "train/eel/notes.txt", b"?");
    };
    check(
        &empty_class,
        &|_| {},
        &["train/eel: holds no readable image"],
    );
    let foreign_class = |dir: &Path| {
        example("folder", dir);
        picture(&dir.join("val/eel/0.png"), 8, 8);
    };
    check(
        &foreign_class,
        &|_| {},
        &["val/eel: is a class that training does not have"],
    );
    let one_class = |dir: &Path| {
        picture(&dir.join("train/ant/0.png"), 8, 8);
        picture(&dir.join("val/ant/0.png"), 8, 8);
    };
    check(&one_class, &|_| {}, &["has only one class (ant)"]);
    let lonely = |dir: &Path| {
        picture(&dir.join("ant/0.png"), 8, 8);
        picture(&dir.join("bee/0.png"), 8, 8);
    };
    check(
        &lonely,
        &|c| c.val_fraction = Some(0.5),
        &["ant: has one image only"],
    );
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
