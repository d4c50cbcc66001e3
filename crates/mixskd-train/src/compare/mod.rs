//! Comparisons: several methods on one network, batch, number of steps and schedule, over several seeds.
//!
//! Every run is a run directory of its own; a comparison is a directory of them with tables and a chart:
//!
//! ```text
//! compare.toml                     what is compared, and the settings common to all
//! runs/NAME-seed-S/                one run, as `mixskd train` leaves it
//! equal-time.toml                  what a training image costs each entry, and so how many epochs it gets in the costliest's time
//! equal-time/NAME-seed-S-epochs-N/ the runs of the second table
//! compare.json .csv .md .svg       the result, rewritten after each run
//! lock                             held while a process works here
//! ```
//!
//! Run directories may come from elsewhere: one that is done counts, if its settings are those of the comparison; one that is not goes
//! on. So several machines share a comparison's runs, and one of them makes the table.
//!
//! The figure compared is the backbone's accuracy after the last epoch; no epoch and no head is chosen on the test images.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use mixskd_train::TrainConfig;
//! use mixskd_train::compare::{CompareConfig, Comparison, Entry, InProcess};
//!
//! # fn main() -> mixskd_train::Result<()> {
//! let entries = vec![Entry::named("ce")?, Entry::named("mixskd")?];
//! let config = CompareConfig::new(TrainConfig::default(), entries, 3)?;
//! let mut comparison = Comparison::create(Path::new("runs/first"), &config)?;
//! let summary = comparison.run(&mut InProcess::new(&mut ()), &mut |_| ())?;
//! println!("{}", summary.markdown());
//! # Ok(())
//! # }
//! ```

mod chart;
mod config;
mod entry;
mod equal_time;
mod found;
mod output;
mod runner;
mod statistics;
mod summary;

use std::path::{Path, PathBuf};

use mixskd_data::{Dataset, Identity};

pub use config::CompareConfig;
pub use entry::{ALL, Entry, EntrySpec};
pub use runner::{InProcess, RunFailure, Runner};
pub use statistics::{CONFIDENCE, MeanSd, PairedDifference};
pub use summary::{Failure, Row, RunRecord, Summary};

use crate::run_dir::{is_occupied, lock};
use crate::{Error, Report, Result, RunDir, TrainConfig, files};
use equal_time::EqualTime;
use found::Done;

/// What happens in a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A run begins, or goes on.
    Started {
        /// The run's number, from 1.
        number: usize,
        /// Runs in this table.
        of: usize,
        /// Name of the entry.
        entry: &'a str,
        /// Its seed.
        seed: u64,
        /// Its epochs.
        epochs: usize,
    },
    /// A run was finished before, and is not repeated.
    Finished {
        /// Name of the entry.
        entry: &'a str,
        /// Its seed.
        seed: u64,
    },
    /// A run failed; the others go on.
    Failed(&'a Failure),
    /// So many entries are timed, for the second table.
    Timing(usize),
    /// The epochs of the second table are settled: entry and epochs.
    EqualTime(&'a [(String, usize)]),
}

/// A comparison's directory, held by this process.
#[derive(Debug)]
pub struct Comparison {
    dir: PathBuf,
    config: CompareConfig,
    /// Which data the settings name, where that was said.
    data: Option<Identity>,
    /// What there is to know of them, where that was said.
    data_notes: Option<Vec<String>>,
    _lock: std::fs::File,
}

/// One run to do.
struct Task {
    entry: usize,
    seed: u64,
    epochs: usize,
    dir: PathBuf,
}

/// What the first of finished runs reports.
fn first_of(done: &[Done]) -> Option<&Report> {
    done.first().map(|run| &run.report)
}

/// Whether a run is not one to train: done, or failed in that its report cannot be read.
fn is_over(task: &Task) -> bool {
    !matches!(found::report(&task.dir), Ok(None))
}

impl Comparison {
    /// Whether a comparison can be begun in `dir`. Writes nothing.
    ///
    /// # Errors
    /// When it exists and is not empty.
    pub fn check_free(dir: &Path) -> Result<()> {
        if dir.is_file() {
            return Err(Error::RunDir {
                path: dir.to_path_buf(),
                message: "is a file, not a directory".into(),
                hint: Some("name another directory with --out".into()),
            });
        }
        // The beginnings of a run count as nothing to a run, but are something to a comparison.
        if is_occupied(dir) || dir.join("config.toml").exists() {
            let another = "name another directory with --out";
            let hint = if dir.join(config::FILE).is_file() {
                format!("go on with it by adding --resume, or {another}")
            } else if dir.join("config.toml").is_file() {
                let run = dir.display();
                format!("it holds a run: `mixskd train --resume {run}`; {another}")
            } else {
                another.into()
            };
            return Err(Error::RunDir {
                path: dir.to_path_buf(),
                message: "already exists and is not empty; nothing was written".into(),
                hint: Some(hint),
            });
        }
        Ok(())
    }

    /// Makes the directory and writes what is compared into it.
    ///
    /// # Errors
    /// As [`Self::check_free`], and when it cannot be made.
    pub fn create(dir: &Path, config: &CompareConfig) -> Result<Self> {
        Self::check_free(dir)?;
        let mut config = config.clone();
        config.know_weights()?;
        std::fs::create_dir_all(dir).map_err(Error::file(dir, "create"))?;
        let comparison = Self {
            dir: dir.to_path_buf(),
            config,
            data: None,
            data_notes: None,
            _lock: lock(dir)?,
        };
        comparison.write_config()?;
        Ok(comparison)
    }

    /// Opens the directory of an earlier comparison.
    ///
    /// # Errors
    /// When it is none, or another process works in it.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(config::FILE);
        if !path.is_file() {
            let hint = if dir.join("config.toml").is_file() {
                format!("it holds a run: `mixskd train --resume {}`", dir.display())
            } else if dir.is_file() {
                "it is a file; name the comparison's directory with --out".into()
            } else if is_occupied(dir) {
                "name the comparison's directory with --out".into()
            } else {
                "leave --resume out to begin one there".into()
            };
            return Err(Error::RunDir {
                path: dir.to_path_buf(),
                message: format!("is no comparison: it holds no {}", config::FILE),
                hint: Some(hint),
            });
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            config: CompareConfig::from_file(&path)?,
            data: None,
            data_notes: None,
            _lock: lock(dir)?,
        })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is compared.
    pub fn config(&self) -> &CompareConfig {
        &self.config
    }

    /// Compares more: entries and seeds are added to those there, the second table is asked for.
    ///
    /// # Errors
    /// When the common settings differ, or an entry of the same name is another one.
    pub fn extend(&mut self, more: &CompareConfig) -> Result<()> {
        self.config.extend(more, &self.dir)?;
        self.write_config()
    }

    fn write_config(&self) -> Result<()> {
        let text = self.config.to_toml()?;
        files::write_atomically(&self.dir.join(config::FILE), text.as_bytes())
    }

    /// Says which data the comparison's settings name: finished runs of others do not count, however many they are.
    pub fn know_data(&mut self, dataset: &Dataset) {
        self.data = Some(dataset.identity());
    }

    /// Says what there is to know of the data beside the figures: it stands with them. Without it, what stood there stays.
    pub fn note_data(&mut self, notes: Vec<String>) {
        self.data_notes = Some(notes);
    }

    /// The finished run that others have to agree with in data and starting weights: see [`found::most_agreed`]. Runs of other data than those that are [known](Self::know_data) have no say.
    fn reference(&self, tasks: &[Task]) -> Option<Report> {
        let all = self.first_table();
        let reports = all.iter().chain(tasks);
        let reports = reports.filter_map(|task| found::report(&task.dir).ok()?);
        let reports = reports.filter(|report| self.check_known(report).is_ok());
        let mut reports: Vec<_> = reports.collect();
        let best = found::most_agreed(&reports)?;
        Some(reports.swap_remove(best))
    }

    /// Refuses a run of other data than those that are known.
    fn check_known(&self, report: &Report) -> Result<()> {
        match &self.data {
            Some(data) => found::of_data(report, data),
            None => Ok(()),
        }
    }

    /// Refuses data other than those that the runs here are of, as most that are done say. A folder may have got another name since.
    ///
    /// # Errors
    /// Says how they differ.
    pub fn check_data(&self, dataset: &Dataset) -> Result<()> {
        let Some(report) = self.reference(&[]) else {
            return Ok(());
        };
        let difference = if let Some(identity) = &report.data_identity {
            identity.difference(&dataset.identity())
        } else {
            // Earlier versions noted no more than these.
            let (data, classes) = (&dataset.name, dataset.classes.len());
            let is_same = &report.data == data && report.classes == classes;
            (!is_same).then(|| format!("{classes} classes"))
        };
        match difference {
            None => Ok(()),
            Some(difference) => Err(Error::Config {
                place: self.dir.display().to_string(),
                message: format!(
                    "its runs are of {}, {} classes; {} is another set: {difference}",
                    report.data, report.classes, dataset.name
                ),
                hint: Some(
                    "name the same data, or begin another comparison with another --out".into(),
                ),
            }),
        }
    }

    /// Refuses starting weights that are missing or not those that the comparison was begun with, where a run is left that has not begun.
    ///
    /// # Errors
    /// As said.
    pub fn check_weights(&self) -> Result<()> {
        match &self.config.settings.init.weights {
            Some(weights) if self.has_runs_to_begin() => self.config.check_weights(weights),
            _ => Ok(()),
        }
    }

    fn has_runs_to_begin(&self) -> bool {
        !self.holds_for_all(|task| is_over(task) || RunDir::of_first(&task.dir).has_checkpoint())
    }

    /// Whether nothing is left to train.
    pub fn is_done(&self) -> bool {
        self.holds_for_all(is_over)
    }

    /// Whether `holds` is true of every run of the tables asked for; false while the second has entries yet to be timed.
    fn holds_for_all(&self, holds: impl Fn(&Task) -> bool) -> bool {
        let first = self.first_table().iter().all(&holds);
        if !first || !self.config.equal_time {
            return first;
        }
        let entries = self.config.entries.iter();
        let names: Vec<&str> = entries.map(|entry| entry.name.as_str()).collect();
        // What cannot be read is told when it is needed.
        let plan = EqualTime::stored(&self.dir).ok().flatten();
        plan.is_some_and(|plan| plan.knows(&names) && self.second_table(&plan).iter().all(&holds))
    }

    /// Does every run that is not done yet, all entries of one seed before the next seed, and writes tables and chart after
    /// each. A run that fails is told and passed over.
    ///
    /// # Errors
    /// When a file of the comparison itself cannot be read or written, or the runner says that all has to stop.
    pub fn run(
        &mut self,
        runner: &mut dyn Runner,
        observer: &mut dyn FnMut(&Event),
    ) -> Result<Summary> {
        let mut summary = Summary::new(&self.dir, &self.config);
        summary.data_notes =
            (self.data_notes.clone()).unwrap_or_else(|| output::data_notes(&self.dir));
        let mut done = Vec::new();
        let tasks = self.first_table();
        // Either table's, those of entries that are yet to be timed, too.
        let all = tasks.len();
        // What is there of the second table stays in the files while the first is added to.
        let early = match EqualTime::stored(&self.dir)? {
            Some(plan) if self.config.equal_time => Some(plan),
            _ => None,
        };
        self.do_all(&tasks, runner, observer, &mut done, |done, failures| {
            summary.fill(&self.config, done, failures);
            if let Some(plan) = &early {
                let tasks = self.second_table(plan);
                let mut second = self.shared(plan, done);
                let there = tasks
                    .iter()
                    .filter_map(|task| self.look(task, first_of(done)).ok()?);
                second.extend(there);
                summary.fill_equal_time(&self.config, &second, &[], all);
                summary.know_plan(plan);
            }
            output::write(&self.dir, &summary)
        })?;
        if !self.config.equal_time || done.is_empty() {
            return Ok(summary);
        }
        let plan = self.settle(&done, runner, observer)?;
        observer(&Event::EqualTime(&plan.epochs()));
        let tasks = self.second_table(&plan);
        let mut second = self.shared(&plan, &done);
        self.do_all(&tasks, runner, observer, &mut second, |second, failures| {
            summary.fill_equal_time(&self.config, second, failures, all);
            summary.know_plan(&plan);
            output::write(&self.dir, &summary)
        })?;
        Ok(summary)
    }

    /// The runs of the first table that are of the second, too: of entries that get the same epochs again.
    fn shared(&self, plan: &EqualTime, done: &[Done]) -> Vec<Done> {
        let first = self.config.settings.run.epochs;
        let same = |run: &&Done| plan.epochs_of(self.name(run.entry)) == Some(first);
        done.iter().filter(same).cloned().collect()
    }

    fn name(&self, entry: usize) -> &str {
        &self.config.entries[entry].name
    }

    /// How many epochs of each entry of `done` take the same time.
    fn settle(
        &self,
        done: &[Done],
        runner: &mut dyn Runner,
        observer: &mut dyn FnMut(&Event),
    ) -> Result<EqualTime> {
        let run = &self.config.settings.run;
        let there = |at: &usize| done.iter().any(|run| run.entry == *at);
        let entries: Vec<usize> = (0..self.config.entries.len()).filter(there).collect();
        let names: Vec<&str> = entries.iter().map(|&at| self.name(at)).collect();
        if !EqualTime::stored(&self.dir)?.is_some_and(|plan| plan.knows(&names)) {
            observer(&Event::Timing(names.len()));
        }
        EqualTime::settle(&self.dir, run.epochs, &names, &mut |name| {
            let Some(entry) = self.config.entry(name) else {
                return Err(Error::Config {
                    place: self.dir.join(equal_time::FILE).display().to_string(),
                    message: format!("names {name}, which is not compared"),
                    hint: Some(
                        "add that entry, or take the file away: the entries are then timed anew"
                            .into(),
                    ),
                });
            };
            let config = self.config.run_config(entry, run.seed, run.epochs)?;
            let step = runner.seconds_per_step(&config).map_err(|failure| {
                if failure.stop {
                    return self.interrupted(failure.cause);
                }
                Error::Config {
                    place: format!("the time of {name}"),
                    message: failure.cause,
                    hint: Some(format!(
                        "try again with `mixskd compare --out {0} --resume`; the table of equal epochs is in {0}/compare.md",
                        self.dir.display()
                    )),
                }
            })?;
            Ok(1e3 * step / run.batch as f64)
        })
    }

    fn interrupted(&self, cause: String) -> Error {
        Error::Interrupted {
            dir: self.dir.clone(),
            cause,
        }
    }

    fn first_table(&self) -> Vec<Task> {
        self.tasks("runs", |_| Some(self.config.settings.run.epochs), false)
    }

    /// The runs at equal time that are not runs of the first table, too.
    fn second_table(&self, plan: &EqualTime) -> Vec<Task> {
        let first = self.config.settings.run.epochs;
        let others = |name: &str| plan.epochs_of(name).filter(|epochs| *epochs != first);
        self.tasks("equal-time", others, true)
    }

    /// Every run of a table, in order; none of an entry without `epochs`.
    fn tasks(
        &self,
        folder: &str,
        epochs: impl Fn(&str) -> Option<usize>,
        name_epochs: bool,
    ) -> Vec<Task> {
        let mut tasks = Vec::new();
        for &seed in &self.config.seeds {
            for (at, entry) in self.config.entries.iter().enumerate() {
                let Some(epochs) = epochs(&entry.name) else {
                    continue;
                };
                let mut name = format!("{}-seed-{seed}", entry.name);
                if name_epochs {
                    name = format!("{name}-epochs-{epochs}");
                }
                tasks.push(Task {
                    entry: at,
                    seed,
                    epochs,
                    dir: self.dir.join(folder).join(name),
                });
            }
        }
        tasks
    }

    /// Collects the runs of `tasks` that are done, and does the others.
    fn do_all(
        &self,
        tasks: &[Task],
        runner: &mut dyn Runner,
        observer: &mut dyn FnMut(&Event),
        done: &mut Vec<Done>,
        mut write: impl FnMut(&[Done], &[Failure]) -> Result<()>,
    ) -> Result<()> {
        let mut failures = Vec::new();
        let mut left = Vec::new();
        let reference = self.reference(tasks);
        for (at, task) in tasks.iter().enumerate() {
            match self.look(task, reference.as_ref()) {
                Ok(Some(run)) => {
                    observer(&Event::Finished {
                        entry: self.name(task.entry),
                        seed: task.seed,
                    });
                    done.push(run);
                }
                Ok(None) => left.push((at, task)),
                Err(error) => {
                    let failure = self.failure(task, error.cause());
                    observer(&Event::Failed(&failure));
                    failures.push(failure);
                }
            }
        }
        write(done, &failures)?;
        for (at, task) in left {
            observer(&Event::Started {
                number: at + 1,
                of: tasks.len(),
                entry: self.name(task.entry),
                seed: task.seed,
                epochs: task.epochs,
            });
            match self.do_one(task, runner, first_of(done)) {
                Ok(run) => done.push(run),
                Err(failure) if failure.stop => return Err(self.interrupted(failure.cause)),
                Err(failure) => {
                    let failure = self.failure(task, failure.cause);
                    observer(&Event::Failed(&failure));
                    failures.push(failure);
                }
            }
            write(done, &failures)?;
        }
        Ok(())
    }

    fn failure(&self, task: &Task, cause: String) -> Failure {
        Failure {
            entry: self.name(task.entry).into(),
            seed: task.seed,
            epochs: task.epochs,
            dir: task.dir.clone(),
            cause,
        }
    }

    /// The configuration of a run.
    fn expected(&self, task: &Task) -> Result<TrainConfig> {
        let entry = &self.config.entries[task.entry];
        self.config.run_config(entry, task.seed, task.epochs)
    }

    /// The run, where it is done; it has to be of the same data as `other`.
    fn look(&self, task: &Task, other: Option<&Report>) -> Result<Option<Done>> {
        let start = self.config.weights_sha256.as_deref();
        let run = found::done(task.entry, &task.dir, &self.expected(task)?, start)?;
        if let Some(run) = &run {
            self.check_known(&run.report)?;
        }
        if let (Some(run), Some(other)) = (&run, other) {
            found::same_beginning(&run.report, other)?;
        }
        Ok(run)
    }

    /// One run, from its beginning or from its newest checkpoint.
    fn do_one(
        &self,
        task: &Task,
        runner: &mut dyn Runner,
        other: Option<&Report>,
    ) -> std::result::Result<Done, RunFailure> {
        let config = self.expected(task)?;
        if task.dir.join("config.toml").is_file() {
            found::at_home(&task.dir, &config)?;
        } else {
            // Dropped at once: whoever runs it takes the lock.
            RunDir::create(&task.dir, &config)?;
        }
        runner.run(&task.dir)?;
        self.look(task, other)?.ok_or_else(|| RunFailure {
            cause: "ended without a report".into(),
            stop: false,
        })
    }
}
