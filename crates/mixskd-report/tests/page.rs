//! The page of runs, as text.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use mixskd_report::{Error, REPORT_HTML, Run, page, write_page, write_page_of};
use mixskd_train::{EpochRecord, HeadScore, TrainConfig};

const TERMS: [&str; 3] = ["feature", "task_mix", "a<b>\"&"];
const HEADS: [&str; 3] = ["backbone", "branch 1", "self-teacher"];

fn record(epoch: usize) -> EpochRecord {
    let head = |name: &&str| HeadScore {
        name: (*name).into(),
        top1: 0.1 * epoch as f64,
        top5: 1.0,
        balanced: (epoch > 1).then_some(0.33),
        loss: 0.5,
    };
    EpochRecord {
        epoch,
        lr: 0.1,
        loss: 2.5 / epoch as f64,
        terms: TERMS
            .iter()
            .map(|term| ((*term).into(), 2.0))
            .collect::<BTreeMap<_, _>>(),
        train_top1: 0.5,
        top1: 0.1 * epoch as f64,
        top5: 1.0,
        test_loss: 0.5,
        heads: HEADS.iter().map(head).collect(),
        samples_per_s: 300.0,
        seconds: 12.5,
        peak_memory_bytes: None,
        gpu_memory_bytes: None,
    }
}

/// A run directory with so many finished epochs.
fn run(dir: &Path, epochs: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let config = TrainConfig::default().with("run.seed=4711").unwrap();
    std::fs::write(dir.join("config.toml"), config.to_toml().unwrap()).unwrap();
    let lines = (1..=epochs).map(|k| serde_json::to_string(&record(k)).unwrap() + "\n");
    if epochs > 0 {
        std::fs::write(dir.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    }
}

/// A whole page that loads nothing and in which no name is markup.
fn check_page(text: &str) {
    assert!(text.starts_with("<!doctype html>") && text.ends_with("</html>\n"));
    let outside = text.replace("http://www.w3.org/2000/svg", "");
    for forbidden in [
        "http://", "https://", "<script", "@import", "url(", "NaN", "a<b>",
    ] {
        assert!(!outside.contains(forbidden), "{forbidden}");
    }
    for tag in [
        "div", "table", "tr", "figure", "svg", "pre", "style", "text",
    ] {
        let opened =
            text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count();
        assert_eq!(
            opened,
            text.matches(&format!("</{tag}>")).count(),
            "<{tag}>"
        );
    }
}

#[test]
fn every_term_and_every_head_has_a_curve() {
    let dir = tempfile::tempdir().unwrap();
    // There are systems whose names hold less.
    let (name, shown) = if cfg!(windows) {
        ("my run & 'co'", "my run &amp; 'co'")
    } else {
        ("my <run> & \"co\"", "my &lt;run&gt; &amp; &quot;co&quot;")
    };
    let dir = dir.path().join(name);
    run(&dir, 4);
    write_page(&dir).unwrap();
    let text = std::fs::read_to_string(dir.join(REPORT_HTML)).unwrap();
    check_page(&text);
    for term in ["feature", "task_mix", "a&lt;b&gt;&quot;&amp;"] {
        assert!(text.contains(&format!("Term {term}, unweighted")), "{term}");
    }
    // Top-1 of three heads and of training; the loss and its terms; three heads' losses; rate, speed, seconds.
    assert_eq!(text.matches("<polyline").count(), 4 + 1 + 3 + 3 + 3);
    for what in [shown, "Seeds: 4711", "4 of 6 epochs", "[optimizer]"] {
        assert!(text.contains(what), "{what}");
    }
}

#[test]
fn of_heads_that_are_level_the_earlier_is_the_best() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), 2);
    let text = page(&[Run::read(dir.path()).unwrap()]);
    // All heads of the record are.
    assert!(text.contains(">backbone 20.0 %<"), "{text}");
}

#[test]
fn a_run_without_an_epoch_makes_a_whole_page() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), 0);
    let text = page(&[Run::read(dir.path()).unwrap()]);
    check_page(&text);
    assert!(text.contains("no epoch of 6 is finished") && !text.contains("<polyline"));
}

#[test]
fn a_run_that_failed_says_so_first() {
    let dir = tempfile::tempdir().unwrap();
    let session = serde_json::json!([{
        "version": "0", "command": "mixskd train", "started": "2026-01-01T00:00:00Z", "first_epoch": 1, "steps_before": 0, "threads": 2,
        "machine": mixskd_train::Machine::detect(), "failure": "no <space> left",
    }]);
    for (epochs, state) in [
        (0, "failed before one of 6 epochs"),
        (2, "failed after 2 of 6 epochs"),
    ] {
        run(dir.path(), epochs);
        std::fs::write(dir.path().join("run.json"), session.to_string()).unwrap();
        let text = page(&[Run::read(dir.path()).unwrap()]);
        check_page(&text);
        let told = text.find("ended with: no &lt;space&gt; left").unwrap();
        assert!(text.contains(state), "{text}");
        let first = text.find("<h2").unwrap_or(text.len());
        assert!(told < first, "it stands below the first section");
    }
}

#[test]
fn several_runs_lie_over_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a/x", "b/x", "c"].map(|name| dir.path().join(name));
    for (dir, epochs) in dirs.iter().zip([3, 0, 2]) {
        run(dir, epochs);
    }
    let out = dir.path().join("all.html");
    assert!(write_page_of(&dirs, &out).unwrap().is_empty());
    let text = std::fs::read_to_string(&out).unwrap();
    check_page(&text);
    assert_eq!(text.matches("<polyline").count(), 3 * (4 + 1 + 3 + 3 + 3));
    for name in ["1: x", "2: x", "Configuration of c"] {
        assert!(text.contains(name), "{name}");
    }
    // By images and by classes: of the first and the last run, and there is none of the one in between.
    for cell in [">balanced<", "33.0 %"] {
        assert!(text.contains(cell), "{cell}");
    }
    assert_eq!(text.matches("33.0 %").count(), 2);
    assert!(text.contains("the balanced accuracy counts classes"));
}

#[test]
fn runs_of_other_images_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["one", "two"].map(|name| dir.path().join(name));
    for dir in &dirs {
        run(dir, 2);
    }
    let out = dir.path().join("both.html");
    let change = |from: &str, to: &str| {
        let path = dirs[1].join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = text.replacen(from, to, 1);
        assert!(changed != text);
        std::fs::write(&path, changed).unwrap();
        write_page_of(&dirs, &out).unwrap()
    };
    let source = "source = \"";
    let told = change(source, "source = \"/elsewhere/");
    assert!(!told[0].contains("the same images"), "{told:?}");
    let told = change("fashion-mnist-mini\"", "other-images\"");
    assert!(told[0].contains("one is of ") && told[0].contains("two of "));
    let page = std::fs::read_to_string(&out).unwrap();
    assert!(page.contains("may not be evaluated on the same images"));
    let told = change("[data]", "[data]\nval_fraction = 0.25");
    assert!(told[0].contains("0.25 held out"), "{told:?}");
}

#[test]
fn what_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (path, cause) in [
        (dir.path().join("gone"), "no such"),
        (dir.path().into(), "config.toml"),
    ] {
        let error = write_page(&path).unwrap_err();
        assert!(matches!(error, Error::NoRun { .. }) && error.is_usage() && error.hint().is_some());
        assert!(error.to_string().contains(cause), "{error}");
    }
    run(dir.path(), 1);
    std::fs::write(dir.path().join("metrics.jsonl"), "{}\n").unwrap();
    let error = write_page(dir.path()).unwrap_err();
    assert!(
        !error.is_usage() && error.to_string().contains("line 1"),
        "{error}"
    );
}
