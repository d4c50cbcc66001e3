//! Data that move, change or are damaged while a run goes on, and folders as people have them.

use std::path::Path;

use crate::support::{TINY, image_folder, metrics, run, save_image};

fn bits(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model.safetensors")).unwrap()
}

/// Damages an image; what it was.
fn cut(path: &Path) -> Vec<u8> {
    let whole = std::fs::read(path).unwrap();
    std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
    whole
}

/// Sixteen images of a class, two epochs of eight steps.
const TRAIN: &str = "--method ce --epochs 2";

#[test]
fn a_test_image_that_cannot_be_read_costs_nothing_that_was_done_before() {
    for settings in [
        "",
        // The last group of an epoch is a short one.
        "--set optimizer.accumulate=3",
        // The average is in the network when it is met.
        "--set optimizer.ema_decay=0.9",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = image_folder(dir.path(), 16);
        let train = format!("{TINY} {TRAIN} {settings}");
        run(dir.path(), &format!("{train} --out straight")).ok();
        let path = folder.join("val/dog/03.png");
        let whole = cut(&path);
        let told = run(dir.path(), &format!("{train} --out kept"));
        told.refused(1, "dog/03.png", "--resume kept");
        assert!(
            told.stderr.contains("epoch-0000-step-000008"),
            "{settings}: {}",
            told.stderr
        );
        std::fs::write(path, whole).unwrap();
        goes_on_as(dir.path(), "kept", "straight");
    }
}

/// Asserts that `name`, resumed, becomes what `straight` is.
fn goes_on_as(dir: &Path, name: &str, straight: &str) {
    run(dir, &format!("train --resume {name}")).ok();
    assert_eq!(metrics(&dir.join(name)), metrics(&dir.join(straight)));
    assert!(bits(&dir.join(name)) == bits(&dir.join(straight)));
}

#[test]
fn a_training_image_that_cannot_be_read_leaves_a_checkpoint_of_the_updates_before() {
    for (settings, updates) in [("", 1..=7), ("--set optimizer.accumulate=3", 3..=6)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = image_folder(dir.path(), 16);
        let train = format!("{TINY} {TRAIN} {settings}");
        run(dir.path(), &format!("{train} --out straight")).ok();
        let mut kept = 0;
        // Each is in another batch; the first is read before anything is begun.
        for k in 1..16 {
            let path = folder.join(format!("train/cat/{k:02}.png"));
            let whole = cut(&path);
            let out = dir.path().join("kept");
            let _ = std::fs::remove_dir_all(&out);
            let told = run(dir.path(), &format!("{train} --out kept"));
            assert_eq!(told.status, 1, "{}", told.stderr);
            std::fs::write(&path, whole).unwrap();
            let names = std::fs::read_dir(out.join("checkpoints")).unwrap();
            for name in names.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
                let step = name.trim_start_matches("epoch-0000-step-");
                let step: usize = step.trim_end_matches(".safetensors").parse().unwrap();
                let between = settings.is_empty() || step.is_multiple_of(3);
                assert!(updates.contains(&step) && between, "{settings}: {name}");
                told.refused(1, &format!("{k:02}.png"), "--resume kept");
                kept += 1;
            }
        }
        assert!(kept > 0, "{settings}: no image of a later batch was met");
        // Whatever the last of them left.
        goes_on_as(dir.path(), "kept", "straight");
    }
}

#[test]
fn a_run_goes_on_with_the_data_that_it_began_with_wherever_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 8);
    let train = format!("{TINY} --method ce");
    run(dir.path(), &format!("{train} --epochs 2 --out straight")).ok();
    run(dir.path(), &format!("{train} --epochs 2 --out moved")).ok();
    // As if it had ended after its first epoch.
    let moved = dir.path().join("moved");
    std::fs::remove_file(moved.join("checkpoints/epoch-0002.safetensors")).unwrap();
    std::fs::rename(&folder, dir.path().join("elsewhere")).unwrap();
    run(dir.path(), "train --resume moved").refused(2, "there is no such folder", "--data");
    let elsewhere = dir.path().join("elsewhere");
    let go_on = "train --resume moved --data elsewhere";

    let refused = |cause: &str| run(dir.path(), go_on).refused(2, cause, "--data");
    save_image(&elsewhere.join("train/cat/99.png"), 8, 3);
    refused("2 classes, 17 training and 8 test images, where there were 2 classes, 16 training");
    std::fs::remove_file(elsewhere.join("train/cat/00.png")).unwrap();
    refused("as many images as before, but others");
    std::fs::rename(
        elsewhere.join("train/cat/99.png"),
        elsewhere.join("train/cat/00.png"),
    )
    .unwrap();
    for split in ["train", "val"] {
        std::fs::rename(
            elsewhere.join(split).join("dog"),
            elsewhere.join(split).join("ape"),
        )
        .unwrap();
    }
    refused("its classes have other names");
    for split in ["train", "val"] {
        std::fs::rename(
            elsewhere.join(split).join("ape"),
            elsewhere.join(split).join("dog"),
        )
        .unwrap();
    }
    save_image(&elsewhere.join("train/cat/00.png"), 8, 40);

    run(dir.path(), go_on).ok();
    assert!(bits(&moved) == bits(&dir.path().join("straight")));
    // From now on it lies there.
    let config = std::fs::read_to_string(moved.join("config.toml")).unwrap();
    assert!(config.contains("elsewhere"), "{config}");
    run(dir.path(), "train --resume moved").ok();
}

#[test]
fn the_split_that_a_run_drew_is_the_one_that_its_next_command_names() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 16);
    std::fs::rename(folder.join("train"), dir.path().join("flat")).unwrap();
    let flags = "--data flat --val-fraction 0.25 --split-seed 3";
    let train = TINY.replace("--data pets", flags);
    let trained = run(
        dir.path(),
        &format!("{train} --method ce --epochs 1 --out r"),
    )
    .ok();
    let next = trained
        .stdout
        .lines()
        .find_map(|line| line.split_once("mixskd eval "));
    let (_, next) = next.expect("the next command");
    assert!(
        next.contains("/flat --val-fraction 0.25 --split-seed 3"),
        "{next}"
    );
    let report = std::fs::read_to_string(dir.path().join("r/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let again = run(dir.path(), &format!("eval {next} --json")).ok().json();
    assert_eq!(again["top1"], report["top1"]);

    // Without flags it is the run's own data, and that they have gone is told with where it says so.
    let own = run(dir.path(), "eval --weights r/model.safetensors --json").ok();
    assert!(
        own.stderr
            .contains("the data are those of the run that r/model.safetensors lies in: --data"),
        "{}",
        own.stderr
    );
    assert_eq!(own.json()["top1"], report["top1"]);
    let flat = dir.path().join("flat");
    std::fs::rename(&flat, dir.path().join("away")).unwrap();
    let gone = run(dir.path(), "eval --weights r/model.safetensors");
    gone.refused(2, "there is no such folder", "--data DIR");
    std::fs::rename(dir.path().join("away"), &flat).unwrap();
    // Flags change what it names, and do not ask for the set that ships with the program.
    let other = run(
        dir.path(),
        "eval --weights r/model.safetensors --split-seed 4",
    )
    .ok();
    assert!(
        other.stderr.contains("held out other images"),
        "{}",
        other.stderr
    );
    // A folder that has changed since is another split.
    let first = std::fs::read_dir(flat.join("cat"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let more = flat.join("cat/zz-new.png");
    std::fs::copy(first, &more).unwrap();
    let changed = run(dir.path(), "eval --weights r/model.safetensors").ok();
    assert!(
        changed.stderr.contains("may have been trained on"),
        "{}",
        changed.stderr
    );
    std::fs::remove_file(more).unwrap();
    // What cannot be read names no data, and nothing takes their place.
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::copy(
        dir.path().join("r/model.safetensors"),
        dir.path().join("d/model.safetensors"),
    )
    .unwrap();
    std::fs::write(dir.path().join("d/config.toml"), "hello [[").unwrap();
    run(dir.path(), "eval --weights d/model.safetensors").refused(2, "config.toml:1", "--data");

    // Another draw tests images that the run was trained on, which is told; so are wrong numbers in plain words.
    let told = |flags: &str| {
        let eval = format!("eval --weights r/model.safetensors --data flat {flags}");
        run(dir.path(), &eval).ok().stderr
    };
    let other = "held out other images of this folder (--val-fraction 0.25 --split-seed 3)";
    assert!(told("--val-fraction 0.25").contains(other));
    assert!(told("--val-fraction 0.5 --split-seed 3").contains(other));
    assert!(!told("--val-fraction 0.25 --split-seed 3").contains("held out"));
    run(dir.path(), "train --epochs few").refused(2, "is no whole number of 0 or more", "--help");
    run(dir.path(), "train --set run.batch=many").refused(
        2,
        "expected a whole number of 0 or more",
        "",
    );
}

#[test]
fn folders_as_people_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 4);
    std::fs::create_dir_all(folder.join("train/cat/more")).unwrap();
    save_image(&folder.join("train/cat/more/x.png"), 8, 90);
    std::fs::write(folder.join("train/dog/readme.txt"), "dogs").unwrap();
    std::fs::create_dir_all(folder.join("train/eel")).unwrap();
    save_image(&folder.join("train/eel/one.png"), 8, 20);
    let train = run(
        dir.path(),
        &format!("{TINY} --method ce --epochs 1 --out r --set data.flip=false"),
    )
    .ok();
    for told in [
        "1 file is no image of a kind that is read",
        "readme.txt",
        "1 class has one training image alone: eel",
        "1 class has no test image, and no part in the accuracy: eel",
    ] {
        assert!(train.stderr.contains(told), "{told}: {}", train.stderr);
    }
    let large = "train --data pets --method ce --batch 4 --set run.image_size=128 --dry-run";
    // Larger images have another network by default, which is made for them.
    let told = run(dir.path(), large).ok();
    assert!(
        told.stdout.contains("name = \"resnet18\""),
        "{}",
        told.stdout
    );
    assert!(!told.stderr.contains("made for images"), "{}", told.stderr);
    let told = run(dir.path(), &format!("{large} --model cifar_resnet18"));
    let told = told.ok().stderr;
    for part in [
        "made for images of about 32 pixels and gets 128",
        "readme.txt",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Splits by other names, and a link to a picture that is not there.
    let pets = dir.path().join("pets");
    std::fs::rename(pets.join("train"), pets.join("Training")).unwrap();
    std::fs::rename(pets.join("val"), pets.join("validation")).unwrap();
    run(dir.path(), &format!("{TINY} --method ce --out names")).ok();
    std::fs::create_dir_all(pets.join("valid/cat")).unwrap();
    let two = format!("{TINY} --out two");
    run(dir.path(), &two).refused(2, "several folders that could be meant by val", "leave one");
    std::fs::remove_dir_all(pets.join("valid")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere.png", pets.join("validation/cat/gone.png")).unwrap();
        let gone = format!("{TINY} --method ce --epochs 1 --out gone");
        run(dir.path(), &gone).refused(1, "gone.png", "mixskd train --resume gone");
        run(dir.path(), &format!("{gone}-not --skip-unreadable")).ok();
        std::fs::remove_file(pets.join("validation/cat/gone.png")).unwrap();
    }
    std::fs::rename(pets.join("Training"), pets.join("train")).unwrap();
    std::fs::rename(pets.join("validation"), pets.join("val")).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    run(dir.path(), &format!("{TINY} --out file")).refused(
        2,
        "file: is a file",
        "name a directory",
    );
    let table = std::fs::read_to_string(dir.path().join("r/predictions.csv")).unwrap();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().ends_with(",loss,file"), "{table}");
    assert!(
        lines.next().unwrap().ends_with(",val/cat/00.png"),
        "{table}"
    );

    // All pictures of a folder, and a test folder that stands alone.
    let predict = run(
        dir.path(),
        "predict --weights r/model.safetensors pets/train --json",
    )
    .ok();
    assert_eq!(predict.json().as_array().unwrap().len(), 10);
    let eval = "eval --weights r/model.safetensors --images";
    let alone = run(dir.path(), &format!("{eval} pets/val --json"))
        .ok()
        .json();
    let whole = run(
        dir.path(),
        "eval --weights r/model.safetensors --data pets --json",
    )
    .ok()
    .json();
    assert_eq!(
        (&alone["images"], &alone["top1"], &alone["loss"]),
        (&8.into(), &whole["top1"], &whole["loss"])
    );
    std::fs::create_dir(folder.join("val/fox")).unwrap();
    run(dir.path(), &format!("{eval} pets/val")).refused(
        2,
        "fox: is a class that the network does not know",
        "by name",
    );
    std::fs::create_dir(dir.path().join("none")).unwrap();
    run(dir.path(), "predict --weights r/model.safetensors none").refused(
        1,
        "none: holds no picture",
        "png",
    );
    run(dir.path(), &format!("{eval} none")).refused(2, "holds no class folder", "CLASS/IMAGE");
}

#[test]
fn a_comparison_tells_what_its_runs_failed_with() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 8);
    let whole = cut(&folder.join("val/dog/03.png"));
    let train = TINY.replacen("train", "compare", 1);
    let failed = run(
        dir.path(),
        &format!("{train} --methods ce --seeds 1 --epochs 1 --out c --threads 1"),
    );
    assert_eq!(failed.status, 1, "{}", failed.stderr);
    assert!(failed.stdout.contains("ce (failed)"), "{}", failed.stdout);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("c").join(name)).unwrap();
    for name in [
        "compare.md",
        "compare.json",
        "runs/ce-seed-0/run.json",
        "runs/ce-seed-0/report.html",
    ] {
        let text = read(name).replace(r"\\", "/").replace('\\', "/");
        assert!(text.contains("dog/03.png"), "{name}: {text}");
    }
    // What it fails with before it begins anything is another thing.
    save_image(&folder.join("val/dog/04.png"), 8, 1);
    std::fs::write(folder.join("val/dog/03.png"), &whole).unwrap();
    let again = run(dir.path(), "compare --out c --resume --threads 1");
    assert!(
        again
            .stderr
            .contains("is not the data that the run began with"),
        "{}",
        again.stderr
    );
    assert!(
        !read("compare.md").contains("03.png"),
        "{}",
        read("compare.md")
    );
    std::fs::remove_file(folder.join("val/dog/04.png")).unwrap();
    run(dir.path(), "compare --out c --resume --threads 1").ok();
    assert!(!read("compare.md").contains("dog/03.png"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_plan_that_wants_more_memory_than_there_is_tries_no_step() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let plan = "train --data pets --batch 8 --set run.image_size=8000 --model resnet50 --dry-run";
    run(dir.path(), plan).refused(2, "a step takes about", "run.image_size");
}
