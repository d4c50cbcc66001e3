//! Comparisons: several methods on one network, batch, number of steps and schedule, over several seeds.
//!
//! Every run is a run directory of its own; a comparison is a directory of them with tables and a chart:
//!
//! ```text
//! compare.toml                     what is compared, and the settings common to all
//! runs/NAME-seed-S/                one run, as `mixskd train` leaves it
//! equal-time.toml                  how many epochs each entry gets in the time of the costliest
//! equal-time/NAME-seed-S-epochs-N/ the runs of the second table
//! compare.json .csv .md .svg       the result, rewritten after each run
//! lock                             held while a process works here
//! ```
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
mod output;
mod runner;
mod statistics;
mod summary;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub use config::CompareConfig;
pub use entry::{ALL, Entry, EntrySpec};
pub use runner::{InProcess, RunFailure, Runner};
pub use statistics::{CONFIDENCE, Gain, Spread};
pub use summary::{Failure, Row, RunRecord, Summary};

use crate::run_dir::{is_occupied, lock};
use crate::{Error, Report, Result, RunDir, files};
use equal_time::EqualTime;

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
    /// The epochs of the second table are settled: entry and epochs.
    EqualTime(&'a [(String, usize)]),
}

/// A comparison's directory, held by this process.
#[derive(Debug)]
pub struct Comparison {
    dir: PathBuf,
    config: CompareConfig,
    _lock: std::fs::File,
}

/// One run to do.
struct Task {
    entry: usize,
    seed: u64,
    epochs: usize,
    dir: PathBuf,
}

/// Runs of one table that are done, with their entry's place.
type Done = Vec<(usize, Report)>;

impl Comparison {
    /// Makes the directory and writes what is compared into it.
    ///
    /// # Errors
    /// When it exists and is not empty, or cannot be made.
    pub fn create(dir: &Path, config: &CompareConfig) -> Result<Self> {
        if is_occupied(dir) || dir.is_file() {
            return Err(Error::RunDir {
                path: dir.to_path_buf(),
                message: "already exists and is not empty; nothing was written".into(),
                hint: Some(
                    "go on with it by adding --resume, or name another directory with --out".into(),
                ),
            });
        }
        std::fs::create_dir_all(dir).map_err(Error::file(dir, "create"))?;
        let comparison = Self {
            dir: dir.to_path_buf(),
            config: config.clone(),
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
            return Err(Error::RunDir {
                path: dir.to_path_buf(),
                message: format!("is no comparison: it holds no {}", config::FILE),
                hint: Some("leave --resume out to begin one there".into()),
            });
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            config: CompareConfig::from_file(&path)?,
            _lock: lock(dir)?,
        })
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
        let tasks = self.tasks("runs", |_| self.config.settings.run.epochs, false);
        let mut summary = Summary::new(&self.dir, &self.config);
        let mut done = Done::new();
        self.do_all(&tasks, runner, observer, &mut done, |done, failures| {
            summary.fill(&self.config, done, failures);
            output::write(&self.dir, &summary)
        })?;
        if !self.config.equal_time {
            return Ok(summary);
        }
        let Some(plan) = EqualTime::settle(&self.dir, &self.config, &done)? else {
            return Ok(summary);
        };
        observer(&Event::EqualTime(&plan.epochs()));
        let first = self.config.settings.run.epochs;
        let tasks = self.tasks(
            "equal-time",
            |name| plan.epochs_of(name).unwrap_or(first),
            true,
        );
        // Entries that get the same epochs again have their runs already.
        let (again, tasks): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|task| task.epochs == first);
        let same: HashSet<(usize, u64)> =
            again.iter().map(|task| (task.entry, task.seed)).collect();
        let mut second: Done = done
            .into_iter()
            .filter(|(entry, report)| same.contains(&(*entry, report.seed)))
            .collect();
        self.do_all(&tasks, runner, observer, &mut second, |second, failures| {
            summary.fill_equal_time(&self.config, second, failures);
            output::write(&self.dir, &summary)
        })?;
        Ok(summary)
    }

    /// Every run of a table, in order.
    fn tasks(&self, folder: &str, epochs: impl Fn(&str) -> usize, name_epochs: bool) -> Vec<Task> {
        let mut tasks = Vec::new();
        for &seed in &self.config.seeds {
            for (at, entry) in self.config.entries.iter().enumerate() {
                let epochs = epochs(&entry.name);
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

    fn do_all(
        &self,
        tasks: &[Task],
        runner: &mut dyn Runner,
        observer: &mut dyn FnMut(&Event),
        done: &mut Done,
        mut write: impl FnMut(&Done, &[Failure]) -> Result<()>,
    ) -> Result<()> {
        let mut failures = Vec::new();
        for (at, task) in tasks.iter().enumerate() {
            let entry = &self.config.entries[task.entry];
            if let Some(report) = runner::finished(&task.dir) {
                observer(&Event::Finished {
                    entry: &entry.name,
                    seed: task.seed,
                });
                done.push((task.entry, report));
                continue;
            }
            observer(&Event::Started {
                number: at + 1,
                of: tasks.len(),
                entry: &entry.name,
                seed: task.seed,
                epochs: task.epochs,
            });
            match self.do_one(task, entry, runner) {
                Ok(report) => done.push((task.entry, report)),
                Err(failure) => {
                    let stop = failure.stop;
                    let failure = Failure {
                        entry: entry.name.clone(),
                        seed: task.seed,
                        epochs: task.epochs,
                        dir: task.dir.clone(),
                        cause: failure.cause,
                    };
                    if stop {
                        write(done, &failures)?;
                        return Err(Error::Interrupted {
                            dir: self.dir.clone(),
                            cause: failure.cause,
                        });
                    }
                    observer(&Event::Failed(&failure));
                    failures.push(failure);
                }
            }
            write(done, &failures)?;
        }
        write(done, &failures)
    }

    /// One run, from its beginning or from its newest checkpoint.
    fn do_one(
        &self,
        task: &Task,
        entry: &Entry,
        runner: &mut dyn Runner,
    ) -> std::result::Result<Report, RunFailure> {
        if !task.dir.join("config.toml").is_file() {
            let config = self.config.run_config(entry, task.seed, task.epochs)?;
            // Dropped at once: whoever runs it takes the lock.
            RunDir::create(&task.dir, &config)?;
        }
        runner.run(&task.dir)?;
        runner::finished(&task.dir).ok_or_else(|| RunFailure {
            cause: "ended without a report".into(),
            stop: false,
        })
    }
}
