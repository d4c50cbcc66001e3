//! Tables and chart as files and text.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::chart;
use super::statistics::{MeanSd, PairedDifference};
use super::summary::Table;
use super::{Row, Summary};
use crate::{Error, Result, files};

/// Pixels of the PNG for each of the SVG.
const PNG_SCALE: f32 = 2.0;

/// Writes `compare.json`, `.csv`, `.md`, `.svg` and `.png`.
pub(super) fn write(dir: &Path, summary: &Summary) -> Result<()> {
    let json = serde_json::to_string_pretty(summary)
        .map_err(|error| Error::Internal(format!("compare.json: {error}")))?;
    let chart = chart::svg(summary);
    let picture = mixskd_chart::png(&chart, PNG_SCALE)?;
    for (name, data) in [
        ("compare.json", format!("{json}\n").into_bytes()),
        ("compare.csv", csv(summary).into_bytes()),
        ("compare.md", summary.markdown().into_bytes()),
        ("compare.png", picture),
        ("compare.svg", chart.into_bytes()),
    ] {
        files::write_atomically(&dir.join(name), &data)?;
    }
    Ok(())
}

/// What stands of the data in `compare.json`, if that is there.
pub(super) fn data_notes(dir: &Path) -> Vec<String> {
    let stored = std::fs::read(dir.join("compare.json")).unwrap_or_default();
    serde_json::from_slice(&stored)
        .map_or_else(|_| Vec::new(), |summary: Summary| summary.data_notes)
}

impl Summary {
    /// The first table as cells, head first.
    pub fn equal_epochs_table(&self) -> Vec<Vec<String>> {
        table(self, Table::EqualEpochs)
    }

    /// The second table as cells, head first; empty where it was not asked for.
    pub fn equal_time_table(&self) -> Vec<Vec<String>> {
        if self.has_equal_time() {
            table(self, Table::EqualTime)
        } else {
            Vec::new()
        }
    }

    /// Whether the second table has a row, if it be one without figures.
    fn has_equal_time(&self) -> bool {
        !self.equal_time.is_empty() || !self.failed_entries(Table::EqualTime).is_empty()
    }

    /// What is compared, in one sentence.
    pub fn subject(&self) -> String {
        let classes = match self.classes {
            0 => String::new(),
            classes => format!(" ({classes} classes)"),
        };
        format!(
            "{} at width {} on {}{classes}, batch {}, {} epoch{}, seed{} {}",
            self.model,
            self.width,
            self.data,
            self.batch,
            self.epochs,
            if self.epochs == 1 { "" } else { "s" },
            if self.seeds.len() == 1 { "" } else { "s" },
            list(&self.seeds),
        )
    }

    /// How the figures are to be read, a sentence an item.
    pub fn notes(&self) -> Vec<String> {
        let pairs = self.seeds.len();
        let mut notes = vec![
            "Accuracies are the backbone's on the test images after the last epoch, as mean ± standard deviation over seeds; no epoch and no head was chosen on the test images.".to_string(),
            format!("The paired difference is to {} with the same seed, in points, as mean ± half of the 95 % interval (Student's t over n pairs). {}", self.baseline, match pairs {
                1 => "One seed gives no interval.",
                2..=4 => "With so few pairs it is wide, or narrow by chance, and assumes normal differences. It is of the seeds alone, not of the test images; no correction is made for comparing several entries.",
                _ => "It assumes normal differences, and is of the seeds alone, not of the test images; no correction is made for comparing several entries.",
            }),
            "Images/s is training alone; seconds a run are training and evaluation; memory is the largest that a run's process held.".to_string(),
        ];
        if self.is_on_gpu() {
            notes.push("GPU MB is the most of the GPU's memory that was in use after an epoch, by whomever; memory MB is the host's.".into());
        }
        if self.has_own_balanced() {
            notes.push("Classes have unequal numbers of test images: top-1 counts images, balanced accuracy counts classes (the mean of their accuracies).".into());
        }
        notes.push(match (self.has_equal_time(), self.equal_time_asked) {
            (true, _) => "At equal time, each entry has the number of epochs that comes nearest to the training time of the costliest, its schedule stretched along; steps of all were timed in turn for that (equal-time.toml), evaluation is not counted.",
            (false, true) => "Steps are equal in number, not in cost: the table at equal training time is still to come.",
            (false, false) => "Steps are equal in number, not in cost: --equal-time adds a table at equal training time.",
        }.into());
        if let Some((entry, apart)) = &self.equal_time_unsteady {
            notes.push(format!(
                "The machine was not quiet when steps were timed: the two least times of {entry} were {:.0} % apart, and epochs at equal time are known no better than that. Without equal-time.toml they are timed anew.",
                100.0 * apart
            ));
        }
        notes.extend(
            self.data_notes
                .iter()
                .map(|note| format!("Of the data: {note}")),
        );
        let seeds = |entry: &str| -> BTreeSet<u64> {
            let runs = self.runs.iter();
            let own = runs.filter(|run| run.entry == entry && run.epochs == self.epochs);
            own.map(|run| run.seed).collect()
        };
        let of_baseline = seeds(&self.baseline);
        let unlike = |row: &&Row| seeds(&row.entry) != of_baseline;
        if self.missing == 0 && self.equal_epochs.iter().any(|row| unlike(&row)) {
            notes.push("Not all entries have runs of the same seeds: means are of different ones, paired differences of those in common.".into());
        }
        let conditions = self.conditions();
        if conditions.len() > 1 {
            let told: Vec<_> = conditions
                .iter()
                .map(|(told, runs)| format!("{} on {told}", counted(*runs, "run")))
                .collect();
            notes.push(format!(
                "Images/s and seconds were not measured under the same conditions, and do not compare throughout: {}.",
                told.join("; ")
            ));
        }
        let builds = self.builds();
        if builds.len() > 1 {
            let told: Vec<_> = builds
                .iter()
                .map(|(build, runs)| match *build {
                    "" => format!("{} by one that was not recorded", counted(*runs, "run")),
                    build => format!("{} by {build}", counted(*runs, "run")),
                })
                .collect();
            notes.push(format!(
                "Runs are of different builds of mixskd, which may round otherwise, as if by another seed: {}.",
                told.join("; ")
            ));
        }
        match (self.missing, self.equal_time_missing) {
            (0, 0) => {}
            (0, left) => notes.push(format!(
                "{} at equal time {} still to do: those figures are not final.",
                counted(left, "run"),
                if left == 1 { "is" } else { "are" }
            )),
            (left, _) => notes.push(format!(
                "{} {} still to do: the figures are not final.",
                counted(left, "run"),
                if left == 1 { "is" } else { "are" }
            )),
        }
        notes
    }

    /// Tables and notes as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Comparison\n\n{}\n\n", self.subject());
        text.push_str(&markdown_table(&self.equal_epochs_table()));
        if self.has_equal_time() {
            text.push_str("\n## At equal training time\n\n");
            text.push_str(&markdown_table(&self.equal_time_table()));
        }
        text.push('\n');
        for note in self.notes() {
            let _ = writeln!(text, "- {note}");
        }
        text.push_str("\n## Entries\n\n");
        for entry in &self.entries {
            let set: Vec<_> = entry.set.iter().map(|set| format!("`{set}`")).collect();
            let with = if set.is_empty() { "" } else { " with " };
            let _ = writeln!(
                text,
                "- {}: method {}{with}{}",
                entry.name,
                entry.method,
                set.join(", ")
            );
        }
        if !self.failures.is_empty() {
            text.push_str("\n## Failed runs\n\n");
            for failure in &self.failures {
                let _ = writeln!(
                    text,
                    "- {}, seed {}, {} epochs: {}",
                    failure.entry, failure.seed, failure.epochs, failure.cause
                );
            }
        }
        text
    }
}

/// `1 run`, `2 runs`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `1, 2, 3`, and `1 to 9` for more than three that follow each other.
fn list(numbers: &[u64]) -> String {
    let follow = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    if let (true, [first, _, .., last]) = (follow && numbers.len() > 3, numbers) {
        return format!("{first} to {last}");
    }
    let words: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// Makes a row's cell of a column.
type Cell = Box<dyn Fn(&Row) -> String>;

/// Head and rows, and a row without figures for each entry all of whose runs failed: it is not to be missed for it.
fn table(summary: &Summary, which: Table) -> Vec<Vec<String>> {
    let rows = match which {
        Table::EqualEpochs => &summary.equal_epochs,
        Table::EqualTime => &summary.equal_time,
    };
    let failed = summary.failed_entries(which);
    let mut columns: Vec<(&str, Cell)> = vec![
        ("entry", Box::new(|row| row.entry.clone())),
        ("epochs", Box::new(|row| row.epochs.to_string())),
        ("runs", Box::new(|row| row.runs.to_string())),
        ("top-1 %", Box::new(|row| percent(row.top1))),
        (
            "paired difference",
            Box::new(|row| or_dash(row.gain, points)),
        ),
        ("top-5 %", Box::new(|row| percent(row.top5))),
    ];
    if summary.has_own_balanced() {
        let cell = |row: &Row| or_dash(row.balanced, percent);
        columns.push(("balanced %", Box::new(cell)));
    }
    columns.push((
        "images/s",
        Box::new(|row| format!("{:.0}", row.samples_per_s)),
    ));
    let megabytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    let cell = move |row: &Row| or_dash(row.peak_memory_bytes, megabytes);
    columns.push(("memory MB", Box::new(cell)));
    if summary.is_on_gpu() {
        let cell = move |row: &Row| or_dash(row.gpu_memory_bytes, megabytes);
        columns.push(("GPU MB", Box::new(cell)));
    }
    columns.push((
        "seconds a run",
        Box::new(|row| format!("{:.1}", row.seconds)),
    ));

    let mut cells = vec![
        columns
            .iter()
            .map(|(name, _)| (*name).to_string())
            .collect(),
    ];
    cells.extend(
        rows.iter()
            .map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()),
    );
    cells.extend(failed.into_iter().map(|(entry, epochs)| {
        let mut row = vec!["–".to_string(); columns.len()];
        row[0] = format!("{entry} (failed)");
        row[1] = epochs.to_string();
        row[2] = "0".into();
        row
    }));
    cells
}

/// A cell of what may not be there.
fn or_dash<T>(value: Option<T>, cell: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "–".into(), cell)
}

/// A mean and its standard deviation in percent.
fn percent(spread: MeanSd) -> String {
    let mean = 100.0 * spread.mean;
    match spread.sd {
        Some(sd) => format!("{mean:.2} ± {:.2}", 100.0 * sd),
        None => format!("{mean:.2}"),
    }
}

/// A difference in points, with its interval and the number of pairs.
fn points(gain: PairedDifference) -> String {
    // What is rounded to nothing has no sign.
    let mean = 100.0 * gain.mean;
    let mean = if mean.abs() < 0.005 { 0.0 } else { mean };
    match gain.half_width {
        Some(half) => format!("{mean:+.2} ± {:.2} (n = {})", 100.0 * half, gain.pairs),
        None => format!("{mean:+.2} (n = {})", gain.pairs),
    }
}

fn markdown_table(cells: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (at, row) in cells.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if at == 0 {
            text.push_str("|---|");
            text.push_str(&"---:|".repeat(row.len().saturating_sub(1)));
            text.push('\n');
        }
    }
    text
}

/// Every row of both tables, fractions unrounded; an empty cell where there is no value. An entry all of whose runs failed has its row, too.
fn csv(summary: &Summary) -> String {
    let mut text = "table,entry,epochs,runs,failed,top1_mean,top1_sd,gain_mean,gain_half_width_95,gain_pairs,top5_mean,top5_sd,balanced_mean,balanced_sd,test_loss_mean,test_loss_sd,samples_per_s,peak_memory_bytes,gpu_memory_bytes,seconds,parameters_training\n".to_string();
    let columns = text.split(',').count();
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let whole = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
    let tables = [
        ("equal_epochs", &summary.equal_epochs, Table::EqualEpochs),
        ("equal_time", &summary.equal_time, Table::EqualTime),
    ];
    for (name, rows, which) in tables {
        for row in rows {
            let cells = [
                name.to_string(),
                row.entry.clone(),
                row.epochs.to_string(),
                row.runs.to_string(),
                summary.failures_of(&row.entry, row.epochs).to_string(),
                row.top1.mean.to_string(),
                number(row.top1.sd),
                number(row.gain.map(|gain| gain.mean)),
                number(row.gain.and_then(|gain| gain.half_width)),
                row.gain
                    .map_or(String::new(), |gain| gain.pairs.to_string()),
                row.top5.mean.to_string(),
                number(row.top5.sd),
                number(row.balanced.map(|balanced| balanced.mean)),
                number(row.balanced.and_then(|balanced| balanced.sd)),
                row.test_loss.mean.to_string(),
                number(row.test_loss.sd),
                row.samples_per_s.to_string(),
                whole(row.peak_memory_bytes),
                whole(row.gpu_memory_bytes),
                row.seconds.to_string(),
                row.parameters_training.to_string(),
            ];
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        for (entry, epochs) in summary.failed_entries(which) {
            let failed = summary.failures_of(entry, epochs);
            let mut cells = vec![String::new(); columns];
            cells[..5].clone_from_slice(&[
                name.to_string(),
                entry.to_string(),
                epochs.to_string(),
                "0".into(),
                failed.to_string(),
            ]);
            text.push_str(&cells.join(","));
            text.push('\n');
        }
    }
    text
}
