//! `mixskd compare` on a tiny folder of images.

use std::path::Path;

use crate::support::{TINY as RUN, image_folder, run};

const TINY: &str = "compare --data pets --width 0.03125 --batch 4 --epochs 1 --set schedule.warmup_epochs=0 --threads 1";

#[test]
fn a_comparison_is_written_taken_up_and_extended() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let first = run(
        dir.path(),
        &format!("{TINY} --methods ce,cutout --seeds 2 --out c --json"),
    );
    let summary = first.ok().json();
    let row = |at: usize| summary["equal_epochs"][at].clone();
    assert_eq!(
        (&row(0)["entry"], &row(1)["entry"]),
        (&"ce".into(), &"cutout".into())
    );
    assert_eq!(
        (&row(0)["runs"], &row(0)["gain"]),
        (&2.into(), &serde_json::Value::Null)
    );
    assert_eq!(row(1)["gain"]["pairs"], 2);
    let builds = summary["runs"][0]["builds"].as_str().unwrap().len();
    assert_eq!(builds, 12, "one build");
    assert!(row(1)["gain"]["half_width"].is_number());
    let out = dir.path().join("c");
    for file in [
        "compare.toml",
        "compare.json",
        "compare.csv",
        "compare.md",
        "compare.svg",
        "compare.png",
    ] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }

    // Without --resume it is refused; with it only what is missing is run.
    let again = run(dir.path(), &format!("{TINY} --methods ce --out c"));
    again.refused(2, "already exists", "--resume");
    let other = run(dir.path(), "compare --out c --resume --epochs 2");
    other.refused(2, "run.epochs = 1; 2 is asked for", "--out");
    std::fs::remove_file(out.join("runs/cutout-seed-1/report.json")).unwrap();
    // Brought from another machine, it may name its data by a relative path.
    let text = std::fs::read_to_string(out.join("compare.toml")).unwrap();
    let source = text.lines().find(|line| line.starts_with("source = "));
    let relative = text.replace(source.unwrap(), "source = \"pets\"");
    assert!(relative != text);
    std::fs::write(out.join("compare.toml"), relative).unwrap();
    let before = std::fs::metadata(out.join("runs/ce-seed-0/report.json")).unwrap();
    let more = run(
        dir.path(),
        "compare --out c --resume --threads 1 --entry soft=mixup:method.alpha=1",
    )
    .ok();
    let after = std::fs::metadata(out.join("runs/ce-seed-0/report.json")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert!(
        more.stderr.contains("3 runs were finished before"),
        "{}",
        more.stderr
    );
    for part in ["soft", "paired difference", "(n = 2)"] {
        assert!(
            more.stdout.contains(part),
            "`{part}` is missing:\n{}",
            more.stdout
        );
    }
}

#[test]
fn a_failed_run_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    run(
        dir.path(),
        &format!("{TINY} --methods ce,mixup --seeds 1 --out c"),
    )
    .ok();
    // A run directory whose settings cannot be read.
    let broken = dir.path().join("c/runs/ce-seed-0");
    std::fs::remove_file(broken.join("report.json")).unwrap();
    std::fs::write(broken.join("config.toml"), "[run]\nepochs = 'many'\n").unwrap();
    let again = run(dir.path(), "compare --out c --resume --threads 1");
    assert_eq!(again.status, 1, "{}", again.stderr);
    assert!(
        again.stderr.contains("1 run failed: ce seed 0"),
        "{}",
        again.stderr
    );
    assert!(again.stdout.contains("mixup"), "{}", again.stdout);
}

#[test]
fn equal_time_leaves_the_costliest_its_epochs_and_the_other_no_fewer() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let flags = "--methods ce,mixskd --seeds 1 --out c --equal-time --json";
    let summary = run(
        dir.path(),
        &format!("{TINY} --epochs 2 {flags}").replace("--epochs 1 ", ""),
    )
    .ok()
    .json();
    let rows = summary["equal_time"].as_array().unwrap();
    let epochs = |at: usize| rows[at]["epochs"].as_u64().unwrap();
    assert_eq!(rows.len(), 2);
    // Which of them is the costliest the clock says, and on a busy machine that may be either: it keeps its epochs, the other gets no fewer.
    assert_eq!(epochs(0).min(epochs(1)), 2, "{rows:?}");
    assert_eq!(summary["equal_time_missing"], 0);
    assert!(dir.path().join("c/equal-time.toml").is_file());

    // Taken up again it has the same epochs, and so no run to do; and no data to read.
    let before = std::fs::read(dir.path().join("c/equal-time.toml")).unwrap();
    std::fs::rename(dir.path().join("pets"), dir.path().join("gone")).unwrap();
    let again = run(dir.path(), "compare --out c --resume --json").ok();
    assert_eq!(again.json()["equal_time"], summary["equal_time"]);
    assert!(!again.stderr.contains("timing"), "{}", again.stderr);
    let after = std::fs::read(dir.path().join("c/equal-time.toml")).unwrap();
    assert_eq!(before, after);

    // An entry that is added is yet to be timed: until it is, the second table is not final. Its run ends the comparison, so the files tell.
    std::fs::rename(dir.path().join("gone"), dir.path().join("pets")).unwrap();
    let one = "[milliseconds_per_image]\nce = 1.0\nnobody = 2.0\n[epochs]\nce = 2\nnobody = 2\n";
    std::fs::write(dir.path().join("c/equal-time.toml"), one).unwrap();
    run(dir.path(), "compare --out c --resume --threads 1").refused(
        2,
        "names nobody",
        "add that entry",
    );
    let told = std::fs::read_to_string(dir.path().join("c/compare.md")).unwrap();
    assert!(
        told.contains("1 run at equal time is still to do"),
        "{told}"
    );
}

#[test]
fn an_interrupted_run_keeps_the_memory_of_its_first_process() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    run(
        dir.path(),
        &format!("{TINY} --methods ce --seeds 1 --out c"),
    )
    .ok();
    let first = dir.path().join("c/runs/ce-seed-0");
    // As if the process that trained had held a petabyte; the next one has nothing left to train.
    let metrics = std::fs::read_to_string(first.join("metrics.jsonl")).unwrap();
    let (head, tail) = metrics.split_once("\"peak_memory_bytes\":").unwrap();
    let rest = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    let held = 1_000_000_000_000_000_u64;
    std::fs::write(
        first.join("metrics.jsonl"),
        format!("{head}\"peak_memory_bytes\":{held}{rest}"),
    )
    .unwrap();
    std::fs::remove_file(first.join("report.json")).unwrap();
    let again = run(dir.path(), "compare --out c --resume --threads 1 --json").ok();
    assert_eq!(again.json()["equal_epochs"][0]["peak_memory_bytes"], held);
}

#[test]
fn a_dry_run_tells_what_all_would_take_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let args = format!("{TINY} --methods ce,mixskd --seeds 2 --out c --dry-run");
    let said = run(dir.path(), &args).ok().stdout;
    for wanted in [
        "1 epoch of ",
        "mixskd",
        "4 runs, 2 entries by 2 seeds: about ",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    let plan = run(dir.path(), &format!("{args} --json --equal-time")).ok();
    let plan = plan.json();
    let seconds = |at: usize| plan["entries"][at]["plan"]["seconds_total"].as_f64();
    let (ce, mixskd) = (seconds(0).unwrap(), seconds(1).unwrap());
    let wanted = 2.0 * (ce + mixskd + ce.max(mixskd));
    let total = plan["seconds_total"].as_f64().unwrap();
    assert!((total - wanted).abs() < 1e-9 * wanted, "{plan}");
    assert_eq!(plan["entries"][1]["entry"], "mixskd");
    assert!(!dir.path().join("c").exists() && !dir.path().join("runs").exists());
}

/// Copies what a comparison's `runs` hold into another's.
fn bring(from: &Path, into: &Path, only: &[&str]) {
    for run in std::fs::read_dir(from.join("runs")).unwrap() {
        let run = run.unwrap();
        let to = into.join("runs").join(run.file_name());
        std::fs::create_dir_all(&to).unwrap();
        for file in only {
            std::fs::copy(run.path().join(file), to.join(file)).unwrap();
        }
    }
}

/// What lies in a run that is brought without its weights.
const LIGHT: [&str; 3] = ["config.toml", "report.json", "run.json"];

#[test]
fn two_machines_share_the_runs_and_one_makes_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let machine = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        image_folder(&path, 4);
        path
    };
    let (a, b) = (machine("a"), machine("b"));
    let flags = format!("{TINY} --seeds 1 --out c");
    run(&a, &format!("{flags} --methods ce,mixup")).ok();
    run(&b, &format!("{flags} --methods cutmix")).ok();
    // Another seed of the first's methods, by its number.
    let late = format!("{flags} --methods ce,mixup,cutmix --set run.seed=1")
        .replace("--out c", "--out late");
    run(&b, &late).ok();
    // Pretend that the second is another kind of machine.
    let sessions = b.join("c/runs/cutmix-seed-0/run.json");
    let text = std::fs::read_to_string(&sessions).unwrap();
    let other = text.replace("\"instruction_set\": \"", "\"instruction_set\": \"other ");
    assert!(other != text);
    std::fs::write(&sessions, other).unwrap();

    // Neither the weights nor the data are there.
    let table = dir.path().join("c");
    std::fs::create_dir_all(&table).unwrap();
    std::fs::copy(a.join("c/compare.toml"), table.join("compare.toml")).unwrap();
    for from in [a.join("c"), b.join("c"), b.join("late")] {
        bring(&from, &table, &LIGHT);
    }
    std::fs::remove_dir_all(a.join("pets")).unwrap();
    let merged = run(
        dir.path(),
        "compare --out c --resume --methods cutmix --seeds 2 --json",
    )
    .ok();
    assert!(
        merged.stderr.contains("6 runs were finished before") && !merged.stderr.contains("run 1")
    );
    let summary = merged.json();
    assert_eq!(summary["equal_epochs"].as_array().unwrap().len(), 3);
    assert_eq!(summary["equal_epochs"][2]["gain"]["pairs"], 2);
    assert_eq!(
        (&summary["missing"], &summary["failures"]),
        (&0.into(), &serde_json::json!([]))
    );
    // Seed by seed, each where it lies now.
    let runs = summary["runs"].as_array().unwrap();
    let places: Vec<_> = runs.iter().map(|r| r["dir"].as_str().unwrap()).collect();
    assert_eq!(
        places[..3],
        [
            "c/runs/ce-seed-0",
            "c/runs/mixup-seed-0",
            "c/runs/cutmix-seed-0"
        ]
    );
    assert_eq!(runs[0]["sessions"], 1);
    // Its costs are another machine's.
    let page = std::fs::read_to_string(table.join("compare.md")).unwrap();
    let note = "do not compare throughout: 5 runs on ";
    assert!(
        page.contains(note) && page.contains("; 1 run on "),
        "{page}"
    );
}

#[test]
fn a_run_brought_from_elsewhere_has_to_be_of_this_comparison() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let flags = format!("{TINY} --seeds 1");
    run(dir.path(), &format!("{flags} --methods ce --out c")).ok();
    let longer = flags.replace("--epochs 1", "--epochs 2");
    run(dir.path(), &format!("{longer} --methods mixup --out long")).ok();
    run(
        dir.path(),
        &format!("{flags} --entry focal=focal:method.gamma=3 --out other"),
    )
    .ok();
    let out = dir.path().join("c");
    bring(&dir.path().join("long"), &out, &LIGHT);
    bring(&dir.path().join("other"), &out, &LIGHT);
    // A report in another run's place, and one without its settings.
    for (to, files) in [("dks-seed-0", &LIGHT[..]), ("sad-seed-0", &LIGHT[1..])] {
        std::fs::create_dir_all(out.join("runs").join(to)).unwrap();
        for file in files {
            let from = out.join("runs/ce-seed-0").join(file);
            std::fs::copy(from, out.join("runs").join(to).join(file)).unwrap();
        }
    }
    let resumed = run(
        dir.path(),
        "compare --out c --resume --methods mixup,focal,dks,sad --threads 1 --json",
    );
    assert_eq!(resumed.status, 1, "{}", resumed.stderr);
    let summary = resumed.json();
    assert_eq!(
        summary["equal_epochs"].as_array().unwrap().len(),
        1,
        "{summary}"
    );
    let causes: Vec<_> = summary["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["cause"].as_str().unwrap())
        .collect();
    let wanted = [
        "run.epochs = 2, the comparison's is 1",
        "method.gamma = 3.0, the comparison's is 2.0",
        "method.name = \"ce\", the comparison's is \"dks\"",
        "holds no config.toml",
    ];
    assert_eq!(causes.len(), wanted.len());
    for (cause, wanted) in causes.iter().zip(wanted) {
        assert!(cause.contains(wanted), "`{cause}` lacks `{wanted}`");
    }
    // Taken away, it is done anew.
    for run in ["mixup", "focal", "dks", "sad"] {
        std::fs::remove_dir_all(out.join(format!("runs/{run}-seed-0"))).unwrap();
    }
    run(dir.path(), "compare --out c --resume --threads 1").ok();
}

#[test]
fn a_run_of_other_images_does_not_push_out_those_of_the_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let folder = image_folder(dir.path(), 4);
    let flags = format!("{TINY} --seeds 1");
    run(dir.path(), &format!("{flags} --methods ce,mixup --out c")).ok();
    // The same name, other images, and in the first place.
    let more = folder.join("train/cat/more.png");
    std::fs::copy(folder.join("train/cat/00.png"), &more).unwrap();
    run(dir.path(), &format!("{flags} --methods ce --out d")).ok();
    std::fs::remove_file(more).unwrap();
    let out = dir.path().join("c");
    std::fs::remove_dir_all(out.join("runs/ce-seed-0")).unwrap();
    bring(&dir.path().join("d"), &out, &LIGHT);
    let resumed = run(
        dir.path(),
        "compare --out c --resume --methods cutmix --threads 1 --json",
    );
    assert_eq!(resumed.status, 1, "{}", resumed.stderr);
    let summary = resumed.json();
    let failures = summary["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{summary}");
    assert_eq!(failures[0]["entry"], "ce");
    assert_eq!(summary["equal_epochs"].as_array().unwrap().len(), 2);
    // Nor where there is no other run.
    for other in ["mixup", "cutmix"] {
        std::fs::remove_dir_all(out.join(format!("runs/{other}-seed-0"))).unwrap();
    }
    let alone = run(dir.path(), "compare --out c --resume --threads 1 --json");
    assert_eq!(alone.status, 1, "{}", alone.stderr);
    let summary = alone.json();
    let cause = summary["failures"][0]["cause"].as_str().unwrap();
    assert!(
        cause.contains("other data than the comparison's"),
        "{cause}"
    );
    assert_eq!(summary["failures"].as_array().unwrap().len(), 1);
    assert_eq!(summary["equal_epochs"].as_array().unwrap().len(), 2);
}

#[test]
fn data_may_move_and_unfinished_runs_follow_it() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    run(
        dir.path(),
        &format!("{TINY} --seeds 1 --methods ce,mixup --out c"),
    )
    .ok();
    // One run stopped before its first epoch, and brought without its checkpoints.
    let broken = dir.path().join("c/runs/mixup-seed-0");
    std::fs::remove_file(broken.join("report.json")).unwrap();
    std::fs::remove_dir_all(broken.join("checkpoints")).unwrap();
    std::fs::create_dir(dir.path().join("new")).unwrap();
    std::fs::rename(dir.path().join("pets"), dir.path().join("new/animals")).unwrap();
    let resumed = run(dir.path(), "compare --out c --resume");
    let told = "compare.toml: data.source: ";
    resumed.refused(2, told, "--data DIR");
    assert!(resumed.stderr.contains("there is no such folder"));
    let other = "compare --out c --resume --data fashion-mnist-mini";
    run(dir.path(), other).refused(2, "its runs are of pets, 2 classes", "--out");
    let resumed = run(
        dir.path(),
        "compare --out c --resume --data new/animals --threads 1 --json",
    )
    .ok();
    assert_eq!(resumed.json()["equal_epochs"][1]["runs"], 1);
    // From now on it is known where the data lies.
    run(
        dir.path(),
        "compare --out c --resume --methods cutout --threads 1",
    )
    .ok();
}

#[test]
fn starting_weights_may_move_but_not_become_others() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image_folder(dir.path(), 4);
    let begin = |out: &str, more: &str| {
        run(
            dir.path(),
            &format!("{TINY} --seeds 1 --methods ce --out {out} {more}"),
        )
        .ok();
    };
    begin("first", "");
    std::fs::copy(
        at("first/runs/ce-seed-0/model.safetensors"),
        at("start.safetensors"),
    )
    .unwrap();
    begin("c", "--set init.weights=start.safetensors");
    std::fs::rename(at("start.safetensors"), at("moved.safetensors")).unwrap();
    // A run that has begun needs them no longer; one that has not says where to name them.
    let more = "compare --out c --resume --threads 1";
    run(dir.path(), more).ok();
    run(dir.path(), &format!("{more} --methods mixup")).refused(
        2,
        "compare.toml: init.weights",
        "--set init.weights=FILE",
    );
    // Others in their place would not compare, wherever the first ones are, and leave nothing behind.
    let before = std::fs::read(at("c/compare.toml")).unwrap();
    begin("second", "--set run.seed=1");
    std::fs::copy(
        at("second/runs/ce-seed-1/model.safetensors"),
        at("other.safetensors"),
    )
    .unwrap();
    let named = |file: &str| format!("{more} --set init.weights={file}");
    let not_it = "is not the file that the comparison was begun with";
    run(dir.path(), &named("other.safetensors")).refused(2, not_it, "the same weights");
    run(dir.path(), &named("gone.safetensors")).refused(2, "is no file", "the same weights");
    assert_eq!(std::fs::read(at("c/compare.toml")).unwrap(), before);
    std::fs::copy(at("other.safetensors"), at("start.safetensors")).unwrap();
    run(dir.path(), more).refused(2, not_it, "the same weights");
    let moved = run(
        dir.path(),
        &format!("{} --json", named("moved.safetensors")),
    )
    .ok();
    assert_eq!(moved.json()["equal_epochs"][1]["runs"], 1);
    run(dir.path(), &named("other.safetensors")).refused(2, not_it, "the same weights");

    // A run that was brought here and began elsewhere is not counted.
    let failed = |wanted: &str| {
        let told = run(
            dir.path(),
            &format!("{} --json", named("moved.safetensors")),
        );
        let failures = told.json()["failures"].to_string();
        assert!(told.status == 1 && failures.contains(wanted), "{failures}");
    };
    let own = at("c/runs/ce-seed-0");
    let report = std::fs::read_to_string(own.join("report.json")).unwrap();
    let (head, tail) = report.split_once("\"start_sha256\": \"").unwrap();
    let foreign = format!("{head}\"start_sha256\": \"0{}", &tail[1..]);
    std::fs::write(own.join("report.json"), foreign).unwrap();
    failed("began with other weights");
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(at("first/runs/ce-seed-0"), &own).unwrap();
    failed("init.weights = nothing");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    let check = |flags: &str, cause: &str, hint: &str| {
        run(dir.path(), &format!("{TINY} --out c {flags}")).refused(2, cause, hint);
        assert!(!dir.path().join("c").exists(), "{flags}");
    };
    check("--methods ce,mixpu", "mixpu", "`mixup`");
    check(
        "--entry a=mixpu",
        "--entry a=mixpu: there is no method",
        "`mixup`",
    );
    check(
        "--methods ce --set init.weights=nowhere.safetensors",
        "nowhere.safetensors: there is no such file",
        ".safetensors",
    );
    check("", "nothing to compare", "--methods");
    check(
        "--methods ce --entry box=mixskd:method.map_mixing=box",
        "mixup cuts none",
        "method.mixing=cutmix",
    );
    check(
        "--entry a=ce:objective.feature=0",
        "`ce` has no objective to set",
        "mixskd",
    );
    check("--methods ce,ce", "named twice", "--entry");
    check(
        "--entry a=ce:run.epochs=3",
        "the same for all",
        "--set run.epochs=3",
    );
    check("--methods ce --entry CE=mixup", "named twice", "--entry");
    check(
        "--methods ce --seeds 2 --set run.seed=9223372036854775807",
        "below 2^63",
        "",
    );
    check(
        "--methods ce --set method.alpha=1",
        "own settings",
        "--entry",
    );
    check(
        "--methods ce,mixup --set objective.temperature=4",
        "none of what is compared has an objective",
        "mixskd",
    );
    // What a comparison's file says may come from elsewhere.
    let flags = "--methods ce,mixup --seeds 1 --out d";
    run(dir.path(), &format!("{TINY} {flags}")).ok();
    let file = dir.path().join("d/compare.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let edits = [
        (
            "name = \"mixup\"",
            "name = \"../../evil\"",
            "cannot be an entry's name",
        ),
        ("seeds = [0]", "seeds = [0, 0]", "0 is named twice"),
        ("baseline = ", "baseline = = ", "compare.toml:2"),
    ];
    for (from, to, cause) in edits {
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        run(dir.path(), "compare --out d --resume").refused(2, cause, "");
    }
    std::fs::write(&file, &text).unwrap();
    let report = dir.path().join("d/runs/mixup-seed-0/report.json");
    let told = std::fs::read_to_string(&report).unwrap();
    let top1 = told.find("\"top1\":").unwrap();
    std::fs::write(
        &report,
        told[..top1].to_string() + "\"top1\": 7.5, \"was\":" + &told[top1 + 7..],
    )
    .unwrap();
    let odd = run(dir.path(), "compare --out d --resume");
    assert!(odd.stderr.contains("top1 = 7.5"), "{}", odd.stderr);
    // A damaged report is of a finished run, which has no checkpoint to go on from if it was brought: nothing is trained over it.
    let mixup = report.parent().unwrap();
    std::fs::write(&report, &told[..top1]).unwrap();
    std::fs::remove_dir_all(mixup.join("checkpoints")).unwrap();
    let metrics = std::fs::read(mixup.join("metrics.jsonl")).unwrap();
    let cut = run(dir.path(), "compare --out d --resume");
    assert_eq!(cut.status, 1, "{}", cut.stderr);
    assert!(
        cut.stderr.contains("report.json: cannot be read"),
        "{}",
        cut.stderr
    );
    assert!(std::fs::read(mixup.join("metrics.jsonl")).unwrap() == metrics);
    // Neither a comparison nor empty: neither begun nor gone on with.
    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::fs::write(dir.path().join("other/notes.txt"), "").unwrap();
    let begun = run(dir.path(), &format!("{TINY} --methods ce --out other"));
    begun.refused(2, "is not empty", "name another directory");
    let resumed = run(dir.path(), "compare --out other --resume");
    resumed.refused(2, "is no comparison", "name the comparison's directory");
    // A file is no directory.
    std::fs::write(dir.path().join("f"), "").unwrap();
    run(dir.path(), &format!("{TINY} --methods ce --out f")).refused(2, "is a file", "--out");
    run(dir.path(), "compare --out f --resume").refused(2, "is no comparison", "it is a file");
    // A run is no comparison, finished or just begun.
    run(dir.path(), &format!("{RUN} --method ce --epochs 1 --out r")).ok();
    let how = "mixskd train --resume r";
    run(dir.path(), "compare --out r --resume").refused(2, "is no comparison", how);
    for entry in std::fs::read_dir(dir.path().join("r")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("config.toml") {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::remove_dir_all(dir.path().join("r/checkpoints")).unwrap();
    run(dir.path(), &format!("{TINY} --methods ce --out r")).refused(2, "is not empty", "--out");
}
