//! Folders of pictures.

use super::*;
use crate::rng::{Purpose, stream};

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
        assert_eq!(
            test.iter()
                .filter(|file| slashes(file).contains("/ant/"))
                .count(),
            3
        );
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
fn splits_are_found_by_other_names_and_classes_are_not_taken_for_them() {
    let fill = |names: &[&str]| filled(names, 4);
    for (train, test) in [("train", "valid"), ("Train", "Val"), ("training", "TEST")] {
        let names =
            ["ant", "bee"].map(|class| [format!("{train}/{class}"), format!("{test}/{class}")]);
        let names: Vec<&str> = names.as_flattened().iter().map(String::as_str).collect();
        let dir = fill(&names);
        let dataset = open(dir.path()).unwrap();
        assert_eq!(dataset.classes, ["ant", "bee"], "{train}, {test}");
        assert_eq!((dataset.train.len(), dataset.test.len()), (8, 8));
    }
    // Trains and trainings, beside nothing to test on.
    for names in [&["Bus", "Train"][..], &["running/a", "training/b"]] {
        let dir = fill(names);
        let config = DataConfig {
            val_fraction: Some(0.25),
            ..config(dir.path())
        };
        let dataset = config.open().unwrap();
        assert_eq!(
            (dataset.classes.len(), dataset.train.len()),
            (2, 6),
            "{names:?}"
        );
    }
    let dir = fill(&["train/ant", "train/bee", "valid/ant", "validation/ant"]);
    refused(open(dir.path()), &["several folders", "leave one"]);
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
        slashes(&failures[1]).contains("bee/broken.jpg: ")
            && failures[1].contains("--skip-unreadable"),
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
        slashes(&dataset.skipped[1]).contains("bee/broken.jpg: "),
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
    declare(&mut bytes, 100_000, 100_000);
    std::fs::write(&path, bytes).unwrap();
    let error = crate::read_image(&path, 3).unwrap_err().to_string();
    assert!(
        error.contains("bomb.png: ") && error.to_lowercase().contains("limit"),
        "{error}"
    );
}

/// `bytes` of a PNG with another width and height in its header.
fn declare(bytes: &mut [u8], width: u32, height: u32) {
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
}

#[test]
fn no_more_pixels_are_believed_than_fit_into_a_gibibyte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    picture(&path, 4, 4);
    let whole = std::fs::read(&path).unwrap();
    // Each side may be; both together may not.
    for (width, height, limit) in [
        (16_384, 4097, true),
        (16_384, 4096, false),
        (1, 16_385, true),
    ] {
        let mut bytes = whole.clone();
        declare(&mut bytes, width, height);
        std::fs::write(&path, bytes).unwrap();
        let error = crate::read_image(&path, 3).unwrap_err().to_string();
        assert_eq!(error.contains("the limit is"), limit, "{error}");
    }
}

/// Found by `cargo xtask fuzz`: a few hundred bytes of JPEG that declared 65 million pixels were decoded for seconds.
#[test]
fn a_jpeg_that_declares_more_than_it_can_hold_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.jpg");
    picture(&path, 9, 7);
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = bytes
        .windows(2)
        .position(|two| two == [0xFF, 0xC0])
        .unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&7687u16.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&8457u16.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = crate::read_image(&path, 3).unwrap_err().to_string();
    assert!(
        error.contains("bomb.jpg: declares 8457×7687 pixels"),
        "{error}"
    );
    assert!(error.contains("--skip-unreadable"), "{error}");
}

/// The decoder fills what is missing with grey and says nothing.
#[test]
fn a_jpeg_that_is_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half.jpg");
    picture(&path, 64, 64);
    let whole = std::fs::read(&path).unwrap();
    for part in [whole.len() / 2, whole.len() * 9 / 10, whole.len() - 10] {
        std::fs::write(&path, &whole[..part]).unwrap();
        let error = crate::read_image(&path, 3).unwrap_err().to_string();
        assert!(error.contains("half.jpg: the JPEG is cut short"), "{error}");
    }
    // Rubbish behind the end is common, and harmless.
    std::fs::write(&path, [&whole[..], b"made by a camera"].concat()).unwrap();
    crate::read_image(&path, 3).unwrap();
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
fn images_of_folders_below_a_class_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    picture(&dir.path().join("train/ant/far/below/x.png"), 8, 8);
    picture(&dir.path().join("train/ant/far/a.png"), 8, 8);
    write(dir.path(), "train/ant/far/film.avi", b"no image of ours");
    // Thumbnails of a network drive are no images of a class, and its folder is no class.
    picture(&dir.path().join("train/@eaDir/ant.png"), 8, 8);
    picture(&dir.path().join("train/ant/@eaDir/0.png"), 8, 8);
    #[cfg(unix)]
    std::os::unix::fs::symlink(
        dir.path().join("train/ant"),
        dir.path().join("train/ant/far/round"),
    )
    .unwrap();
    let dataset = open(dir.path()).unwrap();
    let files: Vec<_> = (0..5)
        .map(|index| dataset.train.file(index).unwrap())
        .collect();
    let own = ["0.png", "1.png", "2.png", "far/a.png", "far/below/x.png"];
    assert_eq!(files, own.map(|name| format!("train/ant/{name}")));
    assert_eq!(dataset.train.len(), 14);
    let notes = slashes(&dataset.notes.join("\n"));
    let passed = if cfg!(unix) {
        "train/ant/far/film.avi, train/ant/far/round"
    } else {
        "train/ant/far/film.avi"
    };
    assert!(notes.contains(passed), "{notes}");
}

#[test]
fn small_images_that_are_not_all_of_one_size_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for split in ["train", "test"] {
        for class in ["ant", "bee"] {
            for n in 0..2 {
                picture(
                    &dir.path().join(split).join(class).join(format!("{n}.png")),
                    16,
                    16,
                );
            }
        }
    }
    assert_eq!(open(dir.path()).unwrap().notes, [""; 0]);
    picture(&dir.path().join("test/bee/1.png"), 17, 16);
    let notes = open(dir.path()).unwrap().notes;
    assert!(
        notes.len() == 1
            && notes[0].contains("16×16, but")
            && slashes(&notes[0]).contains("bee/1.png is 17×16"),
        "{notes:?}"
    );
    // A photograph among them is no slip.
    picture(&dir.path().join("test/bee/1.png"), 400, 300);
    assert_eq!(open(dir.path()).unwrap().notes, [""; 0]);
    // Nor are classes of two images, but a class of one, and one without a test image.
    std::fs::remove_dir_all(dir.path().join("test/bee")).unwrap();
    std::fs::create_dir(dir.path().join("test/bee")).unwrap();
    std::fs::remove_file(dir.path().join("train/ant/1.png")).unwrap();
    let notes = open(dir.path()).unwrap().notes;
    let told = [
        "1 class has one training image alone: ant",
        "1 class has no test image, and no part in the accuracy: bee",
    ];
    assert_eq!(notes, told);
}

#[test]
fn pictures_that_are_much_larger_than_what_is_seen_of_them_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let note = |dataset: Dataset| {
        let mut notes = dataset.notes.into_iter();
        notes.find(|note| note.contains("data shrink"))
    };
    let file = |n: usize, class: &str| dir.path().join(class).join(format!("{n}.png"));
    for class in ["train/ant", "train/bee", "val/ant", "val/bee"] {
        picture(&file(0, class), 896, 1000);
    }
    let told = note(open(dir.path()).unwrap()).unwrap();
    assert!(told.contains("about 896 × 1000 pixels"), "{told}");
    assert!(told.contains("3 times fewer"), "{told}");
    // Most are smaller, or long and thin.
    for n in 1..4 {
        picture(&file(n, "train/ant"), 300, 895);
        picture(&file(n, "train/bee"), 3000, 895);
    }
    assert_eq!(note(open(dir.path()).unwrap()), None);
}

#[test]
fn a_test_folder_beside_val_is_told_to_be_unread() {
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    assert_eq!(open(dir.path()).unwrap().notes, [""; 0]);
    picture(&dir.path().join("test/ant/0.png"), 8, 8);
    let notes = open(dir.path()).unwrap().notes;
    assert!(
        notes.len() == 1 && notes[0].contains("test is not read"),
        "{notes:?}"
    );
}

#[test]
fn pictures_are_turned_upright() {
    use image::ImageEncoder;
    use image::codecs::png::PngEncoder;

    let dir = tempfile::tempdir().unwrap();
    // Two pixels high, three wide; their red says which is which.
    let pixels: Vec<u8> = (0..6u8).flat_map(|k| [k, 0, 0]).collect();
    let written = |orientation: u8| {
        let path = dir.path().join(format!("{orientation}.png"));
        let mut encoder = PngEncoder::new(std::fs::File::create(&path).unwrap());
        // TIFF's header, and a directory of one entry: tag 0x0112, type 3, one value.
        let exif = [
            0x4D,
            0x4D,
            0,
            42,
            0,
            0,
            0,
            8,
            0,
            1,
            0x01,
            0x12,
            0,
            3,
            0,
            0,
            0,
            1,
            0,
            orientation,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        encoder
            .write_image(&pixels, 3, 2, image::ExtendedColorType::Rgb8)
            .unwrap();
        path
    };
    for (orientation, height, reds) in [
        (1, 2, [0, 1, 2, 3, 4, 5]),
        (3, 2, [5, 4, 3, 2, 1, 0]),
        // A camera on its side: what was the left column, from below, is the first row.
        (6, 3, [3, 0, 4, 1, 5, 2]),
        (8, 3, [2, 5, 1, 4, 0, 3]),
        // No such orientation.
        (99, 2, [0, 1, 2, 3, 4, 5]),
    ] {
        let path = written(orientation);
        let image = crate::read_image(&path, 3).unwrap();
        let seen: Vec<u8> = image.pixels.chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(
            (image.height, seen.as_slice()),
            (height, &reds[..]),
            "{orientation}"
        );
        assert_eq!(
            crate::decode::read_size(&path).unwrap(),
            (height, 6 / height),
            "{orientation}"
        );
    }
}

#[test]
fn what_is_no_picture_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, told) in [
        (
            "a.jpg",
            &b"<html>not found</html>"[..],
            "a.jpg: is no picture of a known kind",
        ),
        ("b.jpg", b"", "b.jpg: the file is empty"),
    ] {
        write(dir.path(), name, bytes);
        let error = crate::read_image(&dir.path().join(name), 3)
            .unwrap_err()
            .to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_set_is_the_same_wherever_it_lies_and_another_with_other_images() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    example("folder", here.path());
    example("folder", there.path());
    let identity = |dir: &tempfile::TempDir| open(dir.path()).unwrap().identity();
    let began = identity(&here);
    assert_eq!(began.difference(&identity(&there)), None);
    let file = |name: &str| there.path().join(name);
    std::fs::rename(file("train/ant/0.png"), file("train/bee/0.png")).unwrap();
    let told = began.difference(&identity(&there)).unwrap();
    assert!(told.contains("as many images as before"), "{told}");
    std::fs::remove_file(file("train/bee/0.png")).unwrap();
    let told = began.difference(&identity(&there)).unwrap();
    assert_eq!(
        told,
        "4 classes, 11 training and 8 test images, where there were 4 classes, 12 training and 8 test images"
    );
}

#[test]
fn mirroring_suits_the_data_unless_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    for (flip, mirror) in [(None, true), (Some(false), false), (Some(true), true)] {
        let config = DataConfig {
            flip,
            ..config(dir.path())
        };
        assert_eq!(config.open().unwrap().mirror, mirror);
    }
}

#[test]
fn without_crop_and_flip_training_images_are_prepared_as_for_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    example("folder", dir.path());
    let whole = DataConfig {
        crop: false,
        ..config(dir.path())
    };
    let mirrored = whole.open().unwrap().train_pipeline(6).unwrap();
    assert!(format!("{mirrored:?}").contains("Flip"));
    for crop in [true, false] {
        let config = DataConfig {
            crop,
            flip: Some(false),
            ..config(dir.path())
        };
        let dataset = config.open().unwrap();
        let image = dataset.train.image(0).unwrap();
        let pipeline = dataset.train_pipeline(6).unwrap();
        let plain = dataset.eval_pipeline(6).unwrap().tensor(&image).unwrap();
        let plain = plain.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let is_plain = |epoch: u64| {
            let rng = &mut stream(0, epoch, 0, Purpose::Augment);
            let mut out = vec![0.0; plain.len()];
            pipeline.apply(image.view(), (6, 6), rng, &mut out).unwrap();
            out == plain
        };
        let same = (0..8).filter(|epoch| is_plain(*epoch)).count();
        assert_eq!(same == 8, !crop, "{same} of 8");
    }
}
