//! The pictures of a real run's page, and the page made anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use mixskd_report::{PREDICTIONS_CSV, REPORT_HTML, Run, preview, write_page, write_page_of};
use mixskd_train::{TrainConfig, Trainer};

fn text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(REPORT_HTML)).unwrap()
}

#[test]
fn a_page_made_anew_is_the_page_that_training_left() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let report = support::train(&dir, &["method.name=mixskd"], true);
    let page = text(&dir);
    assert_eq!(page.matches("<img ").count(), 48);
    assert_eq!(
        page.matches("src=\"data:image/png;base64,iVBOR").count(),
        48
    );
    // Originals and mixes go through the network in pairs, and each mix says of which.
    assert_eq!(page.matches("<br>mix, λ\u{a0}=\u{a0}").count(), 12);
    assert!(page.contains("Confusion matrix of the backbone") && page.contains("taken for"));

    let run = Run::read(&dir).unwrap();
    let predictions = run.predictions.unwrap();
    let right = predictions
        .answers
        .iter()
        .filter(|a| a.label == a.predicted);
    let share = right.count() as f64 / predictions.answers.len() as f64;
    assert!(
        (share - report.top1).abs() < 0.02,
        "{share} {}",
        report.top1
    );
    let loss = predictions.answers.iter().map(|a| a.loss).sum::<f64>();
    let loss = loss / predictions.answers.len() as f64;
    assert!(
        (loss - report.test_loss).abs() < 1e-5,
        "{loss} {}",
        report.test_loss
    );

    std::fs::remove_file(dir.join(REPORT_HTML)).unwrap();
    assert!(write_page(&dir).unwrap().is_empty());
    assert!(text(&dir) == page, "the page made anew differs");
}

#[test]
fn watching_a_run_changes_no_bit_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, recorded| {
        let dir = folder.path().join(name);
        support::train(&dir, &["method.name=mixup"], recorded);
        std::fs::read(dir.join("model.safetensors")).unwrap()
    };
    assert!(weights("watched", true) == weights("alone", false));
}

#[test]
fn a_run_that_nobody_watched_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    support::train(&dir, &["method.name=ce"], false);
    assert!(!dir.join(PREDICTIONS_CSV).exists());
    assert!(write_page(&dir).unwrap().is_empty());
    let page = text(&dir);
    // All test images, and not only the batches that the run took.
    assert!(page.contains("1000 held-out images of 10 classes, after epoch 1"));
    assert_eq!(page.matches("<img ").count(), 48);
    assert!(!page.contains('λ'));
}

#[test]
fn what_cannot_be_shown_is_said_and_the_rest_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    support::train(&dir, &["method.name=ce"], true);
    let config = dir.join("config.toml");
    let kept = std::fs::read_to_string(&config).unwrap();
    let gone = kept.replace("source = \"fashion-mnist-mini\"", "source = \"/gone/away\"");
    assert_ne!(gone, kept);
    std::fs::write(&config, gone).unwrap();
    let missing = write_page(&dir).unwrap();
    assert!(
        missing.len() == 1 && missing[0].contains("/gone/away"),
        "{missing:?}"
    );
    let page = text(&dir);
    assert!(page.contains("/gone/away") && page.contains("Confusion matrix of the backbone"));
    assert!(!page.contains("<img "));

    // Data that hold other images than those the network was asked about.
    std::fs::write(&config, kept).unwrap();
    let table = dir.join(PREDICTIONS_CSV);
    let lines = std::fs::read_to_string(&table).unwrap();
    std::fs::write(&table, lines + "1,5000,0,a,1,b,0.5,0.5\n").unwrap();
    let missing = write_page(&dir).unwrap();
    assert!(missing[0].contains("no longer those"), "{missing:?}");
    assert_eq!(text(&dir).matches("<img ").count(), 24);

    // Several runs share one page without pictures, with the matrix of each.
    let out = folder.path().join("both.html");
    assert!(write_page_of(&[&dir, &dir], &out).unwrap().is_empty());
    let page = std::fs::read_to_string(&out).unwrap();
    assert_eq!(page.matches("Confusion matrix of the backbone").count(), 2);
    assert!(!page.contains("<img "));
}

#[test]
fn a_preview_is_the_same_twice_and_another_for_another_seed() {
    let picture = |setting: &str| {
        let config = TrainConfig::default().with(setting).unwrap();
        preview(&Trainer::new(&config).unwrap(), 6).unwrap()
    };
    let first = picture("run.seed=0");
    assert!(first.starts_with(b"\x89PNG") && first == picture("run.seed=0"));
    assert!(first != picture("run.seed=1"));
}
