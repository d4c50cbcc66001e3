//! Learning curves of one run, or of several laid over each other.

use mixskd_chart::{LineChart, Series};
use mixskd_train::EpochRecord;

use crate::Run;

/// Accuracies: of every head in one chart for a single run, a chart for each head where several runs are compared.
pub(crate) fn accuracies(runs: &[Run], names: &[String]) -> Vec<String> {
    if let [run] = runs {
        let mut series: Vec<_> = run
            .heads()
            .into_iter()
            .map(|head| curve(run, head, |record| top1(record, head)))
            .collect();
        series.push(curve(run, "training", |record| Some(record.train_top1)));
        return vec![chart(
            "Top-1 of every head on the held-out images",
            true,
            series,
        )];
    }
    let mut charts: Vec<_> = every(runs, Run::heads)
        .into_iter()
        .map(|head| {
            let title = format!("Top-1 of {head} on the held-out images");
            overlay(runs, names, &title, true, |record| top1(record, head))
        })
        .collect();
    charts.push(overlay(
        runs,
        names,
        "Top-1 while training",
        true,
        |record| Some(record.train_top1),
    ));
    charts
}

/// The loss, every term of it, and every head's loss on the held-out images.
pub(crate) fn losses(runs: &[Run], names: &[String]) -> Vec<String> {
    let mut charts = vec![overlay(runs, names, "Training loss", false, |record| {
        Some(record.loss)
    })];
    for term in every(runs, Run::terms) {
        let title = format!("Term {term}, unweighted");
        charts.push(overlay(runs, names, &title, false, |record| {
            record.terms.get(term).copied()
        }));
    }
    if let [run] = runs {
        let loss = |head: &str| curve(run, head, |record| test_loss(record, head));
        let series = run.heads().into_iter().map(loss).collect();
        charts.push(chart("Cross-entropy on the held-out images", false, series));
    } else {
        for head in every(runs, Run::heads) {
            let title = format!("Cross-entropy of {head} on the held-out images");
            charts.push(overlay(runs, names, &title, false, |record| {
                test_loss(record, head)
            }));
        }
    }
    charts
}

/// Learning rate and speed.
pub(crate) fn pace(runs: &[Run], names: &[String]) -> Vec<String> {
    vec![
        overlay(runs, names, "Learning rate", false, |r| Some(r.lr)),
        overlay(runs, names, "Training images per second", false, |r| {
            Some(r.samples_per_s)
        }),
        overlay(runs, names, "Seconds of an epoch", false, |r| {
            Some(r.seconds)
        }),
    ]
}

/// What any of the runs has, in the order of the first that has it.
fn every<'a>(runs: &'a [Run], of: impl Fn(&'a Run) -> Vec<&'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in runs.iter().flat_map(of) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

fn top1(record: &EpochRecord, head: &str) -> Option<f64> {
    let found = record.heads.iter().find(|found| found.name == head);
    found.map(|found| found.top1)
}

fn test_loss(record: &EpochRecord, head: &str) -> Option<f64> {
    let found = record.heads.iter().find(|found| found.name == head);
    found.map(|found| found.loss)
}

fn curve(run: &Run, name: &str, value: impl Fn(&EpochRecord) -> Option<f64>) -> Series {
    let point = |record: &EpochRecord| Some((record.epoch as f64, value(record)?));
    Series {
        name: name.into(),
        points: run.records.iter().filter_map(point).collect(),
    }
}

/// One curve of each run that has the value.
fn overlay(
    runs: &[Run],
    names: &[String],
    title: &str,
    percent: bool,
    value: impl Fn(&EpochRecord) -> Option<f64>,
) -> String {
    let series = runs.iter().zip(names).map(|(run, name)| {
        let mut series = curve(run, name, &value);
        // It keeps its place, so that a run looks the same in every chart.
        if series.points.is_empty() {
            series.name.push_str(": none");
        }
        series
    });
    chart(title, percent, series.collect())
}

fn chart(title: &str, percent: bool, series: Vec<Series>) -> String {
    let (title, x) = (title.into(), "epoch".into());
    LineChart {
        title,
        x,
        percent,
        series,
    }
    .svg()
}
