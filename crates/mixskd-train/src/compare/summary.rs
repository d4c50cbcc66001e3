//! The result of a comparison as data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::equal_time::EqualTime;
use super::statistics::{MeanSd, PairedDifference};
use super::{CompareConfig, Done, Entry};
use crate::Report;
use crate::metrics::own_balanced;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// The same epochs for all.
    EqualEpochs,
    /// The same training time for all.
    EqualTime,
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the entry.
    pub entry: String,
    /// Its seed.
    pub seed: u64,
    /// Its epochs.
    pub epochs: usize,
    /// Its run directory.
    pub dir: PathBuf,
    /// What went wrong.
    pub cause: String,
}

/// A run that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the entry.
    pub entry: String,
    /// Its seed.
    pub seed: u64,
    /// Its epochs.
    pub epochs: usize,
    /// The backbone's top-1 after the last epoch, a fraction.
    pub top1: f64,
    /// The backbone's top-5 after the last epoch, a fraction.
    pub top5: f64,
    /// The backbone's balanced accuracy after the last epoch, a fraction; `None` where that was not recorded.
    #[serde(default)]
    pub balanced: Option<f64>,
    /// The backbone's test loss after the last epoch, in nats.
    pub test_loss: f64,
    /// Original images trained on per second, evaluation excluded.
    pub samples_per_s: f64,
    /// Seconds of training and evaluation.
    pub seconds: f64,
    /// Largest resident memory of the processes that worked on the run in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory of the GPU in use after an epoch in bytes; `None` without one.
    #[serde(default)]
    pub gpu_memory_bytes: Option<u64>,
    /// Processes that worked on it: more than 1 where it was interrupted; `None` where that was not recorded.
    pub sessions: Option<usize>,
    /// Processor, instruction set and threads that its costs belong to; `None` where that was not recorded.
    pub conditions: Option<String>,
    /// The builds of mixskd that did it, by the SHA-256 of the program's file; `None` where that was not recorded.
    #[serde(default)]
    pub builds: Option<String>,
    /// Its run directory.
    pub dir: PathBuf,
}

/// One line of a table: an entry over its seeds. Means are over the runs that are done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the entry.
    pub entry: String,
    /// Epochs of each run.
    pub epochs: usize,
    /// Runs that are done.
    pub runs: usize,
    /// The backbone's top-1 after the last epoch, a fraction.
    pub top1: MeanSd,
    /// Its paired difference to the baseline's, seed by seed; `None` for the baseline itself, and without a common seed.
    pub gain: Option<PairedDifference>,
    /// The backbone's top-5 after the last epoch, a fraction.
    pub top5: MeanSd,
    /// The backbone's balanced accuracy after the last epoch, a fraction; `None` where a run did not record it.
    #[serde(default)]
    pub balanced: Option<MeanSd>,
    /// The backbone's test loss after the last epoch, in nats.
    pub test_loss: MeanSd,
    /// Mean of original images trained on per second, evaluation excluded.
    pub samples_per_s: f64,
    /// Largest resident memory of any of the runs' processes in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Most memory of the GPU in use after an epoch of any of the runs in bytes; `None` without one.
    #[serde(default)]
    pub gpu_memory_bytes: Option<u64>,
    /// Mean seconds of a run, training and evaluation.
    pub seconds: f64,
    /// Parameters in training; the kept ones are the same for all.
    pub parameters_training: usize,
}

/// What `compare.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The comparison's directory.
    pub dir: PathBuf,
    /// Name of the data set.
    pub data: String,
    /// What there is to know of it.
    #[serde(default)]
    pub data_notes: Vec<String>,
    /// Its classes; 0 before a run is done.
    #[serde(default)]
    pub classes: usize,
    /// Name of the network.
    pub model: String,
    /// Width multiplier.
    pub width: f64,
    /// Original images per step.
    pub batch: usize,
    /// Epochs of the first table.
    pub epochs: usize,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Name of the entry that the others are compared with.
    pub baseline: String,
    /// What is compared.
    pub entries: Vec<Entry>,
    /// The first table: the same epochs for all, in the order of `entries`. Entries without a finished run are missing.
    pub equal_epochs: Vec<Row>,
    /// The second table: the same training time for all. Empty where it was not asked for.
    pub equal_time: Vec<Row>,
    /// Every finished run of both tables.
    pub runs: Vec<RunRecord>,
    /// Runs that failed.
    pub failures: Vec<Failure>,
    /// Runs of the first table that are neither done nor failed.
    pub missing: usize,
    /// The same of the second table, once the epochs of some of its runs are settled; those of entries that are yet to be timed count.
    pub equal_time_missing: usize,
    /// The entry whose steps took times that repeated worst when epochs were given out, and by how much its two least times were apart, as a share; `None` where all
    /// repeated, and without a second table.
    #[serde(default)]
    pub equal_time_unsteady: Option<(String, f64)>,
    /// The epochs of the second table by entry, where they are settled.
    #[serde(skip)]
    pub(super) equal_time_epochs: BTreeMap<String, usize>,
    /// Whether a second table is to come.
    #[serde(skip)]
    pub(super) equal_time_asked: bool,
}

impl Summary {
    pub(super) fn new(dir: &Path, config: &CompareConfig) -> Self {
        let settings = &config.settings;
        Self {
            dir: dir.to_path_buf(),
            data: settings.data.source.clone(),
            data_notes: Vec::new(),
            classes: 0,
            model: settings.model.name.clone(),
            width: settings.model.width,
            batch: settings.run.batch,
            epochs: settings.run.epochs,
            seeds: config.seeds.clone(),
            baseline: config.baseline.clone(),
            entries: config.entries.clone(),
            equal_epochs: Vec::new(),
            equal_time: Vec::new(),
            runs: Vec::new(),
            failures: Vec::new(),
            missing: 0,
            equal_time_missing: 0,
            equal_time_unsteady: None,
            equal_time_epochs: BTreeMap::new(),
            equal_time_asked: config.equal_time,
        }
    }

    /// The first table from its runs.
    pub(super) fn fill(&mut self, config: &CompareConfig, done: &[Done], failures: &[Failure]) {
        if let Some(run) = done.first() {
            self.data.clone_from(&run.report.data);
            self.classes = run.report.classes;
            self.model.clone_from(&run.report.model);
        }
        self.equal_epochs = rows(config, done);
        self.runs = records(config, done);
        self.failures = failures.to_vec();
        self.missing = missing(config.entries.len() * config.seeds.len(), done, failures);
    }

    /// What the second table's epochs are.
    pub(super) fn know_plan(&mut self, plan: &EqualTime) {
        self.equal_time_unsteady = plan.unsteady();
        self.equal_time_epochs = plan.epochs().into_iter().collect();
    }

    /// The second table, after the first; it has `all` runs.
    pub(super) fn fill_equal_time(
        &mut self,
        config: &CompareConfig,
        done: &[Done],
        failures: &[Failure],
        all: usize,
    ) {
        self.equal_time = rows(config, done);
        self.equal_time_missing = missing(all, done, failures);
        let first = config.settings.run.epochs;
        self.runs.retain(|run| run.epochs == first);
        self.failures.retain(|failure| failure.epochs == first);
        let runs = records(config, done).into_iter();
        self.runs.extend(runs.filter(|run| run.epochs != first));
        self.failures.extend_from_slice(failures);
    }

    /// Whether some row's balanced accuracy says another thing than its top-1.
    pub(super) fn has_own_balanced(&self) -> bool {
        let mut runs = self.runs.iter();
        runs.any(|run| own_balanced(run.top1, run.balanced).is_some())
    }

    /// Whether some run was on a GPU.
    pub(super) fn is_on_gpu(&self) -> bool {
        self.runs.iter().any(|run| run.gpu_memory_bytes.is_some())
    }

    /// Entries of a table that have no finished run, as runs of them failed: name and epochs, in the order of `entries`.
    pub(super) fn failed_entries(&self, table: Table) -> Vec<(&str, usize)> {
        let rows = match table {
            Table::EqualEpochs => &self.equal_epochs,
            Table::EqualTime => &self.equal_time,
        };
        let epochs = |entry: &str| match table {
            Table::EqualEpochs => Some(self.epochs),
            Table::EqualTime => self.equal_time_epochs.get(entry).copied(),
        };
        let names = self.entries.iter().map(|entry| entry.name.as_str());
        names
            .filter_map(|entry| Some((entry, epochs(entry)?)))
            .filter(|(entry, epochs)| self.failures_of(entry, *epochs) > 0)
            .filter(|(entry, _)| rows.iter().all(|row| row.entry != *entry))
            .collect()
    }

    /// How many runs of an entry with these epochs failed.
    pub(super) fn failures_of(&self, entry: &str, epochs: usize) -> usize {
        let failures = self.failures.iter();
        failures
            .filter(|failure| failure.entry == entry && failure.epochs == epochs)
            .count()
    }

    /// Every set of conditions that costs were measured under, with the number of runs; those that were not recorded are left out.
    pub(super) fn conditions(&self) -> Vec<(&str, usize)> {
        counts(self.runs.iter().filter_map(|run| run.conditions.as_deref()))
    }

    /// Every build that did runs, with their number; those of which it was not recorded stand under an empty name.
    pub(super) fn builds(&self) -> Vec<(&str, usize)> {
        counts(
            self.runs
                .iter()
                .map(|run| run.builds.as_deref().unwrap_or_default()),
        )
    }
}

/// How often each is there, in the order of their first.
fn counts<'a>(all: impl Iterator<Item = &'a str>) -> Vec<(&'a str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for one in all {
        match counts.iter_mut().find(|(known, _)| *known == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((one, 1)),
        }
    }
    counts
}

/// Of `all` runs of a table those that are neither done nor failed.
fn missing(all: usize, done: &[Done], failures: &[Failure]) -> usize {
    all.saturating_sub(done.len() + failures.len())
}

fn rows(config: &CompareConfig, done: &[Done]) -> Vec<Row> {
    let of = |name: &str| -> Vec<&Report> {
        let at = config.entries.iter().position(|entry| entry.name == name);
        let own = done.iter().filter(|run| Some(run.entry) == at);
        own.map(|run| &run.report).collect()
    };
    let baseline = of(&config.baseline);
    let row = |entry: &Entry| -> Option<Row> {
        let reports = of(&entry.name);
        let first = reports.first()?;
        let values = |value: fn(&Report) -> f64| -> Vec<f64> {
            reports.iter().map(|report| value(report)).collect()
        };
        let mean = |value| MeanSd::of(&values(value)).map_or(f64::NAN, |spread| spread.mean);
        let differences: Vec<f64> = reports
            .iter()
            .filter_map(|report| {
                let pair = baseline.iter().find(|other| other.seed == report.seed)?;
                Some(report.top1 - pair.top1)
            })
            .collect();
        Some(Row {
            entry: entry.name.clone(),
            epochs: first.epochs,
            runs: reports.len(),
            top1: MeanSd::of(&values(|report| report.top1))?,
            gain: (entry.name != config.baseline)
                .then(|| PairedDifference::of(&differences))
                .flatten(),
            top5: MeanSd::of(&values(|report| report.top5))?,
            balanced: (reports.iter().map(|report| report.balanced))
                .collect::<Option<Vec<f64>>>()
                .and_then(|values| MeanSd::of(&values)),
            test_loss: MeanSd::of(&values(|report| report.test_loss))?,
            samples_per_s: mean(|report| report.samples_per_s),
            peak_memory_bytes: reports.iter().filter_map(|r| r.peak_memory_bytes).max(),
            gpu_memory_bytes: reports.iter().filter_map(|r| r.gpu_memory_bytes).max(),
            seconds: mean(|report| report.seconds),
            parameters_training: first.parameters_training,
        })
    };
    config.entries.iter().filter_map(row).collect()
}

/// Seed by seed, in the order of the entries.
fn records(config: &CompareConfig, done: &[Done]) -> Vec<RunRecord> {
    let record = |run: &&Done| RunRecord {
        entry: config.entries[run.entry].name.clone(),
        seed: run.report.seed,
        epochs: run.report.epochs,
        top1: run.report.top1,
        top5: run.report.top5,
        balanced: run.report.balanced,
        test_loss: run.report.test_loss,
        samples_per_s: run.report.samples_per_s,
        seconds: run.report.seconds,
        peak_memory_bytes: run.report.peak_memory_bytes,
        gpu_memory_bytes: run.report.gpu_memory_bytes,
        sessions: run.sessions,
        conditions: run.conditions.clone(),
        builds: run.builds.clone(),
        dir: run.report.dir.clone(),
    };
    let seed = |run: &Done| config.seeds.iter().position(|s| *s == run.report.seed);
    let mut done: Vec<&Done> = done.iter().collect();
    done.sort_by_key(|run| (seed(run), run.entry));
    done.iter().map(record).collect()
}

#[cfg(test)]
mod tests;
