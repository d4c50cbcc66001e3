//! Tables from runs.

use super::*;
use crate::TrainConfig;
use crate::compare::{found, output};
use crate::report::Best;

/// A run of the entry at `entry`, of which only what tables show is told apart.
fn done(entry: usize, seed: u64, top1: f64) -> Done {
    let best = Best {
        epoch: 1,
        head: "backbone".into(),
        top1,
        top5: 1.0,
    };
    Done {
        entry,
        report: Report {
            method: "ce".into(),
            model: "cifar_resnet18".into(),
            width: 0.25,
            data: "pets".into(),
            classes: 2,
            data_identity: None,
            start_sha256: None,
            epochs: 6,
            seed,
            top1,
            top5: 1.0,
            balanced: None,
            test_loss: 1.0 - top1,
            heads: Vec::new(),
            best_backbone: best.clone(),
            best_head: best,
            parameters_kept: 10,
            parameters_training: 12,
            seconds: 8.0 + seed as f64,
            samples_per_s: 100.0,
            peak_memory_bytes: Some(1000 + seed),
            gpu_memory_bytes: None,
            dir: PathBuf::from("d"),
            weights: PathBuf::from("w"),
        },
        sessions: Some(1),
        conditions: Some("a machine".into()),
        builds: Some("a build".into()),
    }
}

#[test]
fn runs_of_several_builds_are_told() {
    let told = |builds: [Option<&str>; 2]| {
        let all = [0, 1].map(|entry| Done {
            builds: builds[entry].map(Into::into),
            ..done(entry, 0, 0.5)
        });
        let summary = summary(&all);
        let told = summary.notes().join("\n");
        let line = told.lines().find(|line| line.contains("builds"));
        line.map(ToString::to_string)
    };
    assert_eq!(told([Some("a"), Some("a")]), None);
    assert_eq!(told([None, None]), None);
    let mixed = told([Some("a"), Some("b")]).unwrap();
    assert!(mixed.contains("1 run by a; 1 run by b"), "{mixed}");
    let partly = told([Some("a"), None]).unwrap();
    assert!(
        partly.contains("1 run by a; 1 run by one that was not recorded"),
        "{partly}"
    );
}

#[test]
fn balanced_accuracies_are_a_column_where_they_say_something() {
    let with = |balanced: [Option<f64>; 2]| {
        let mut all = [done(0, 0, 0.5), done(0, 1, 0.5)];
        for (run, balanced) in all.iter_mut().zip(balanced) {
            run.report.balanced = balanced;
        }
        summary(&all)
    };
    for level in [[None, None], [Some(0.5), Some(0.5)]] {
        let summary = with(level);
        assert!(!summary.markdown().contains("balanced"));
    }
    let unequal = with([Some(0.25), Some(0.5)]);
    let table = unequal.equal_epochs_table();
    assert_eq!((&*table[0][5], &*table[0][6]), ("top-5 %", "balanced %"));
    assert_eq!(table[1][6], "37.50 ± 17.68");
    assert!(unequal.notes().join("\n").contains("counts classes"));
    // Of a mean without all its runs nothing is said.
    assert_eq!(with([Some(0.25), None]).equal_epochs_table()[1][6], "–");
}

fn summary(done: &[Done]) -> Summary {
    let entries = ["ce", "mixup"].map(|name| Entry::named(name).unwrap());
    let config = CompareConfig::new(TrainConfig::default(), entries.to_vec(), 3).unwrap();
    let mut summary = Summary::new(Path::new("c"), &config);
    summary.fill(&config, done, &[]);
    summary
}

#[test]
fn differences_are_of_runs_with_one_seed_and_of_the_entry_from_the_baseline() {
    // The baseline lacks seed 1, and the runs are not in the order of seeds.
    let summary = summary(&[
        done(1, 2, 0.65),
        done(0, 2, 0.5),
        done(1, 0, 0.45),
        done(0, 0, 0.4),
        done(1, 1, 0.9),
    ]);
    let [ce, mixup] = &summary.equal_epochs[..] else {
        panic!("{summary:?}");
    };
    assert_eq!((ce.runs, mixup.runs, summary.missing), (2, 3, 1));
    assert_eq!(ce.gain, None);
    // 0.05 and 0.15: mean 0.1, sd 0.0707, t(1) 12.706, over the root of 2.
    let gain = mixup.gain.unwrap();
    assert_eq!(gain.pairs, 2);
    assert!((gain.mean - 0.1).abs() < 1e-12, "{gain:?}");
    assert!(
        (gain.half_width.unwrap() - 0.635_310).abs() < 1e-5,
        "{gain:?}"
    );
    assert!((mixup.top1.mean - 2.0 / 3.0).abs() < 1e-12);
    assert!((mixup.top1.sd.unwrap() - 0.225_462).abs() < 1e-6);
    assert_eq!((ce.peak_memory_bytes, ce.seconds), (Some(1002), 9.0));
    let seeds: Vec<_> = summary.runs.iter().map(|run| run.seed).collect();
    assert_eq!(seeds, [0, 0, 1, 2, 2]);
    assert_eq!(summary.runs[0].entry, "ce");
}

#[test]
fn the_charts_bars_reach_a_deviation_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    // Means of 0.5 and 0.6.
    let (wide, narrow) = ([0.3, 0.7], [0.55, 0.65]);
    let runs = [(0, wide), (1, narrow)]
        .map(|(entry, top1)| [done(entry, 0, top1[0]), done(entry, 1, top1[1])]);
    output::write(dir.path(), &summary(&runs.concat())).unwrap();
    let svg = std::fs::read_to_string(dir.path().join("compare.svg")).unwrap();
    // `<path d="Mx highVlowM…h10…"`: only error bars end in strokes of ten pixels.
    let ends = |line: &str| {
        let (high, low) = line.split_once('V').unwrap();
        let high: f64 = high.rsplit_once(' ').unwrap().1.parse().unwrap();
        (high, low.split_once('M').unwrap().0.parse::<f64>().unwrap())
    };
    let bars = svg.lines().filter(|line| line.contains("h10M"));
    let bars: Vec<(f64, f64)> = bars.map(ends).collect();
    let [wide, narrow] = &bars[..] else {
        panic!("{svg}");
    };
    let pixels = |bar: &(f64, f64)| bar.1 - bar.0;
    let middle = |bar: &(f64, f64)| f64::midpoint(bar.0, bar.1);
    // What a tenth takes, drawn to a tenth of a pixel; deviations of 0.2 and 0.05 times the root of 2, up and down.
    let tenth = middle(wide) - middle(narrow);
    assert!(tenth > 10.0, "{bars:?}");
    let root = std::f64::consts::SQRT_2;
    assert!((pixels(wide) / tenth - 4.0 * root).abs() < 0.1, "{bars:?}");
    assert!((pixels(narrow) / tenth - root).abs() < 0.05, "{bars:?}");
}

#[test]
fn most_runs_say_which_data_are_compared_and_pixels_where_they_are_known() {
    let run = |images: &str, pixels: Option<&str>| {
        let mut report = done(0, 0, 0.5).report;
        report.data_identity = Some(mixskd_data::Identity {
            classes: 2,
            train: 4,
            test: 2,
            names: "n".into(),
            images: images.into(),
            pixels: pixels.map(Into::into),
        });
        report
    };
    let of = |runs: &[(&str, Option<&str>)]| {
        let runs: Vec<_> = runs.iter().map(|(i, p)| run(i, *p)).collect();
        found::most_agreed(&runs)
    };
    assert_eq!(of(&[]), None);
    // A foreign run that knows its pixels does not push out the others, which do not.
    let foreign = ("other", Some("p"));
    assert_eq!(of(&[foreign, ("own", None), ("own", None)]), Some(1));
    // One that agrees with all does not stand between two sets.
    let (p, q) = (("own", Some("p")), ("own", Some("q")));
    assert_eq!(of(&[("own", None), p, q, q]), Some(2));
    assert_eq!(of(&[p, ("own", None), q]), Some(0));
}

#[test]
fn an_entry_that_failed_has_its_row_and_a_gpu_its_column() {
    let entries = ["ce", "mixup"].map(|name| Entry::named(name).unwrap());
    let config = CompareConfig::new(TrainConfig::default(), entries.to_vec(), 3).unwrap();
    let epochs = 6;
    let failure = |seed| Failure {
        entry: "mixup".into(),
        seed,
        epochs,
        dir: PathBuf::from("d"),
        cause: "no memory".into(),
    };
    let mut run = done(0, 0, 0.5);
    let mut filled = |gpu| {
        run.report.gpu_memory_bytes = gpu;
        let mut summary = Summary::new(Path::new("c"), &config);
        summary.epochs = epochs;
        summary.fill(
            &config,
            std::slice::from_ref(&run),
            &[failure(0), failure(1)],
        );
        summary
    };
    let summary = filled(None);
    assert_eq!(
        summary.equal_epochs_table()[2][..3],
        ["mixup (failed)", "6", "0"]
    );
    let dir = tempfile::tempdir().unwrap();
    output::write(dir.path(), &summary).unwrap();
    let csv = std::fs::read_to_string(dir.path().join("compare.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows[0][4], "failed");
    assert_eq!(rows[1][..5], ["equal_epochs", "ce", "6", "1", "0"]);
    assert_eq!(rows[2][..6], ["equal_epochs", "mixup", "6", "0", "2", ""]);
    assert_eq!(rows[2].len(), rows[0].len());
    let svg = std::fs::read_to_string(dir.path().join("compare.svg")).unwrap();
    assert!(svg.contains("; failed: mixup"), "{svg}");
    assert!(!summary.markdown().contains("GPU MB"));

    // Only of its second table is it said that an entry failed there.
    let mut second = summary.clone();
    second.failures = vec![Failure {
        epochs: 3,
        ..failure(0)
    }];
    assert!(second.equal_time_table().is_empty());
    second.equal_time_epochs = [("ce".to_string(), 6), ("mixup".to_string(), 3)].into();
    let table = second.equal_time_table();
    assert_eq!(table[1][..3], ["mixup (failed)", "3", "0"]);
    assert_eq!(second.equal_epochs_table().len(), 2);
    assert!(second.markdown().contains("## At equal training time"));
    output::write(dir.path(), &second).unwrap();
    let csv = std::fs::read_to_string(dir.path().join("compare.csv")).unwrap();
    assert!(csv.contains("\nequal_time,mixup,3,0,1,,"), "{csv}");
    let svg = std::fs::read_to_string(dir.path().join("compare.svg")).unwrap();
    assert!(svg.contains("; 1 failed at equal time"), "{svg}");
    // With the epochs of the first table, too.
    second.failures = vec![failure(0)];
    second.equal_time_epochs = [("mixup".to_string(), 6)].into();
    assert_eq!(second.equal_time_table()[1][1], "6");

    let on_gpu = filled(Some(2_000_000));
    let table = on_gpu.equal_epochs_table();
    assert_eq!((&*table[0][7], &*table[1][7]), ("memory MB", "0"));
    assert_eq!((&*table[0][8], &*table[1][8]), ("GPU MB", "2"));
    assert!(on_gpu.markdown().contains("in use after an epoch"));
}

#[test]
fn files_hold_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let summary = summary(&[done(0, 0, 0.5), done(0, 1, 0.75), done(1, 0, 0.25)]);
    output::write(dir.path(), &summary).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let csv = read("compare.csv");
    let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let cell = |row: usize, name: &str| {
        let column = rows[0].iter().position(|head| *head == name).unwrap();
        rows[row][column]
    };
    assert_eq!((cell(1, "entry"), cell(1, "top1_mean")), ("ce", "0.625"));
    assert_eq!(
        (cell(1, "gain_mean"), cell(1, "peak_memory_bytes")),
        ("", "1001")
    );
    assert_eq!(
        (cell(2, "gain_mean"), cell(2, "gain_pairs")),
        ("-0.25", "1")
    );
    assert_eq!(
        (cell(2, "gain_half_width_95"), cell(2, "top1_sd")),
        ("", "")
    );
    assert_eq!(cell(2, "seconds"), "8");
    let page = read("compare.md");
    assert!(page.contains("--equal-time adds a table"), "{page}");
    let asked = Summary {
        equal_time_asked: true,
        ..summary.clone()
    };
    assert!(asked.markdown().contains("is still to come"));
    for part in [
        "| 62.50 ± 17.68 |",
        "| -25.00 (n = 1) |",
        "on pets (2 classes)",
    ] {
        assert!(page.contains(part), "`{part}` is missing:\n{page}");
    }
    assert_eq!(
        serde_json::from_str::<Summary>(&read("compare.json")).unwrap(),
        summary
    );
    let svg = read("compare.svg");
    assert!(svg.starts_with("<svg"));
    for name in ["ce", "mixup"] {
        assert!(svg.contains(&format!(">{name}<")), "{svg}");
    }
    assert!(
        std::fs::read(dir.path().join("compare.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );
}
