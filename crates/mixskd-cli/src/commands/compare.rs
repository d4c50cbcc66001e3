//! `mixskd compare`: flags become a comparison; each run is a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::{ArgAction, Parser, ValueHint};
use mixskd_report::{Session, read_sessions};
use mixskd_train::compare::{CompareConfig, Comparison, Entry, Event, RunFailure, Runner, Summary};
use mixskd_train::{TrainConfig, Trainer, make_next_free, method, shell_word};

use super::shared::{DataArgs, GpuArgs, ThreadArgs, existing_file, tell_of_data};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::signals::{self, Request};
use crate::{output, plan};

const EXAMPLES: &str = "\
Examples:
  mixskd compare --methods ce,mixup,mixskd --seeds 3 --epochs 6
  mixskd compare --methods ce,cutout --entry no-teacher=mixskd:objective.self_teacher_task=0 --out ablation
  mixskd compare --out ablation --resume";

/// Flags of `mixskd compare`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Args {
    /// What to compare: methods, or cutout, random-erasing, autoaugment, randaugment, augmix, trivialaugment, agreement, soft-labels
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    methods: Vec<String>,
    /// One more, with settings of its own; may be repeated
    #[arg(long, value_name = "NAME=METHOD:KEY=VALUE,...", action = ArgAction::Append)]
    entry: Vec<String>,
    /// How many seeds, from run.seed on [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    seeds: Option<u16>,
    /// What the others are compared with [default: the first]
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Also give each the training time that the costliest takes
    #[arg(long)]
    equal_time: bool,
    /// Directory of the comparison [default: runs/NNN-compare-MODEL]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Go on with the comparison in --out; finished runs are not repeated
    #[arg(long, requires = "out")]
    resume: bool,
    /// Read the common settings from a TOML file; keys it does not name keep their defaults
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "resume")]
    config: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Network, one of `mixskd models` [default: what suits the images, cifar_resnet18 or resnet18]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Width multiplier of every layer
    #[arg(long, value_name = "F")]
    width: Option<f64>,
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Original images per step
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// Peak learning rate per step at this batch
    #[arg(long, value_name = "F")]
    lr: Option<f64>,
    #[command(flatten)]
    gpu: GpuArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Set any common key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    set: Vec<String>,
    /// Print what each run and all of them would take, by a few steps of each entry, and write nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Compares.
    pub(crate) fn run(&self) -> Result<()> {
        // Steps are timed in this process.
        self.threads.apply()?;
        if let (Some(out), false) = (&self.out, self.resume) {
            // Before the data are looked through, which may take a while.
            Comparison::check_free(out)?;
        }
        if self.dry_run {
            return self.show_plan();
        }
        let mut comparison = match (&self.out, self.resume) {
            (Some(out), true) => self.resume(out)?,
            _ => self.create()?,
        };
        let mut runner = Processes {
            threads: self.threads.count(),
            child: Arc::default(),
        };
        runner.listen(comparison.dir())?;
        let mut seen = 0;
        let summary = comparison.run(&mut runner, &mut |event| {
            if matches!(event, Event::Finished { .. }) {
                seen += 1;
            }
            tell(event);
        })?;
        match seen {
            0 => {}
            1 => output::progress(format_args!("1 run was finished before")),
            seen => output::progress(format_args!("{seen} runs were finished before")),
        }
        if self.json {
            output::json(&summary)?;
        } else {
            output::line(&text(&summary))?;
        }
        failures(&summary)
    }

    fn create(&self) -> Result<Comparison> {
        let (config, data_notes) = self.config()?;
        let out = if let Some(out) = &self.out {
            out.clone()
        } else {
            let stem = format!("compare-{}", config.settings.model.name);
            make_next_free(Path::new("runs"), &stem)?
        };
        let mut comparison = Comparison::create(&out, &config)?;
        comparison.note_data(data_notes);
        Ok(comparison)
    }

    fn show_plan(&self) -> Result<()> {
        let (config, _) = self.config()?;
        let mut plans = Vec::new();
        for entry in &config.entries {
            let run = entry.apply(&config.settings)?;
            let place = run.distribution.first_place();
            plans.push((entry.name.clone(), Trainer::at(&run, place)?.plan()?));
        }
        plan::print_comparison(&config, &plans, self.json)
    }

    /// What a new comparison compares, and what there is to know of the data.
    fn config(&self) -> Result<(CompareConfig, Vec<String>)> {
        let base = match &self.config {
            Some(path) => TrainConfig::from_file(existing_file(path, "recipes lie in configs/")?)?,
            None => TrainConfig::default(),
        };
        let (settings, data_notes) = self.settings(base)?;
        let mut config = CompareConfig::new(
            settings,
            self.entries()?,
            usize::from(self.seeds.unwrap_or(3)),
        )?;
        config.equal_time = self.equal_time;
        if let Some(name) = &self.baseline {
            config.baseline.clone_from(name);
        }
        config.validate()?;
        self.check_objective(&config)?;
        Ok((config, data_notes))
    }

    /// Goes on, with what the flags ask for on top. Where nothing is left to train, the data need not be there.
    fn resume(&self, out: &Path) -> Result<Comparison> {
        let mut comparison = Comparison::open(out)?;
        let mut more = comparison.config().clone();
        more.settings = self.common(more.settings)?;
        if let Some(weights) = &mut more.settings.init.weights
            && let Ok(absolute) = dunce::canonicalize(&*weights)
        {
            *weights = absolute;
        }
        let first = more.settings.run.seed;
        let seeds = u64::from(self.seeds.unwrap_or(0));
        more.seeds = (first..first.saturating_add(seeds)).collect();
        more.entries = self.entries()?;
        more.equal_time = self.equal_time;
        if let Some(name) = &self.baseline {
            more.baseline.clone_from(name);
        }
        if self.data.source().is_some() {
            // The same data in another place.
            let trainer = Trainer::for_resume(&more.settings)?;
            comparison.check_data(trainer.dataset())?;
            more.settings
                .data
                .source
                .clone_from(&trainer.config().data.source);
        }
        comparison.extend(&more)?;
        if !comparison.is_done() {
            // What every run would stumble over is told once.
            let settings = &comparison.config().settings;
            let in_file = |error: &mixskd_train::Error, key: &str, hint: &str| {
                let place = format!("{}/compare.toml: {key}", out.display());
                Failure::usage(format!("{place}{}", error.cause()), hint)
            };
            let trainer = Trainer::for_resume(settings).map_err(|error| {
                if !matches!(error, mixskd_train::Error::Data(_)) {
                    return error.into();
                }
                let hint = "say where the same data lies now with --data DIR";
                in_file(&error, "data.source: ", hint)
            })?;
            let mut progress = Progress::new();
            tell_of_data(trainer.dataset(), &mut progress);
            comparison.note_data(progress.notices());
            comparison.know_data(trainer.dataset());
            comparison
                .check_weights()
                .map_err(|error| in_file(&error, "", &error.hint().unwrap_or_default()))?;
        }
        Ok(comparison)
    }

    /// Refuses a common term or weight that nothing compared would ever read.
    fn check_objective(&self, config: &CompareConfig) -> Result<()> {
        let of_objective = |set: &&String| TrainConfig::is_of_objective(set);
        let Some(set) = self.set.iter().find(of_objective) else {
            return Ok(());
        };
        for entry in &config.entries {
            if method::spec(&entry.method)?.objective {
                return Ok(());
            }
        }
        Err(Failure::usage(
            format!("--set {set}: none of what is compared has an objective to set"),
            "leave it out, or compare mixskd as well",
        ))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for name in &self.methods {
            entries.push(Entry::named(name)?);
        }
        for text in &self.entry {
            entries.push(Entry::parse(text)?);
        }
        Ok(entries)
    }

    /// `base` with the flags, resolved against the data, and what there is to know of these.
    fn settings(&self, base: TrainConfig) -> Result<(TrainConfig, Vec<String>)> {
        let config = self.common(base)?;
        let place = config.distribution.first_place();
        let in_file = |error| match &self.config {
            Some(path) => config.in_file(path, error),
            None => error,
        };
        let mut trainer = Trainer::at(&config, place).map_err(in_file)?;
        // Every run would stumble over them, and could not be given others.
        trainer.require_start().map_err(in_file)?;
        let mut progress = Progress::new();
        tell_of_data(trainer.dataset(), &mut progress);
        Ok((trainer.config().clone(), progress.notices()))
    }

    /// `base` with the named flags and `--set`.
    fn common(&self, base: TrainConfig) -> Result<TrainConfig> {
        let mut config = self.data.apply(base)?;
        let flags: [(&str, Option<toml::Value>); 5] = [
            ("model.name", self.model.clone().map(Into::into)),
            ("model.width", self.width.map(Into::into)),
            ("run.epochs", self.epochs.map(Into::into)),
            ("run.batch", self.batch.map(Into::into)),
            ("optimizer.lr", self.lr.map(Into::into)),
        ];
        for (key, value) in flags.into_iter().chain(self.gpu.settings()) {
            if let Some(value) = value {
                config = config.with_value(key, value)?;
            }
        }
        for assignment in &self.set {
            if assignment.trim_start().starts_with("method.") {
                return Err(Failure::usage(
                    format!("--set {assignment}: methods have their own settings in a comparison"),
                    "name it in an entry: --entry NAME=METHOD:KEY=VALUE",
                ));
            }
            config = config.with(assignment)?;
        }
        Ok(config)
    }
}

/// Trains each run by `mixskd train --resume DIR`.
struct Processes {
    threads: Option<u16>,
    child: Arc<Mutex<Child>>,
}

/// The run that is going on.
#[derive(Default)]
struct Child {
    process: Option<u32>,
    /// A signal has asked for the end.
    stop: bool,
}

impl Processes {
    /// From now on the run gets the signals that this process gets, and no other run begins.
    fn listen(&self, dir: &Path) -> Result<()> {
        let child = Arc::clone(&self.child);
        let dir = shell_word(&dir.display().to_string());
        signals::watch(move |request| {
            if request == Request::Now {
                let hint = format!(
                    "go on with `mixskd compare --out {dir} --resume`: the run begins again at its newest checkpoint"
                );
                let failure =
                    Failure::stopped("stopped at once, in the middle of a step", Some(hint));
                signals::tell(move || failure.print());
            }
            let mut child = lock(&child);
            if request == Request::Stop && std::mem::replace(&mut child.stop, true) {
                // The child was asked already.
                return;
            }
            if let Some(process) = child.process {
                signals::pass_on(process, request);
            }
        })
    }

    /// Starts the process, unless the end was asked for.
    fn start(&self, command: &mut Command) -> std::result::Result<std::process::Child, RunFailure> {
        let mut child = lock(&self.child);
        if child.stop {
            return Err(interrupted());
        }
        let process = command.spawn().map_err(|error| RunFailure {
            cause: format!("cannot start a process: {error}"),
            stop: false,
        })?;
        child.process = Some(process.id());
        Ok(process)
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupted() -> RunFailure {
    RunFailure {
        cause: "was interrupted".into(),
        stop: true,
    }
}

impl Runner for Processes {
    fn seconds_per_step(&mut self, config: &TrainConfig) -> std::result::Result<f64, RunFailure> {
        if lock(&self.child).stop {
            return Err(interrupted());
        }
        Ok(Trainer::for_resume(config)?.seconds_per_step()?)
    }

    fn run(&mut self, dir: &Path) -> std::result::Result<(), RunFailure> {
        let failed = |cause: String| RunFailure { cause, stop: false };
        let program = std::env::current_exe()
            .map_err(|error| failed(format!("cannot find the program itself: {error}")))?;
        let mut command = Command::new(program);
        command.args(["train", "--data-told", "--json", "--resume"]);
        command.arg(dir);
        if let Some(threads) = self.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        if output::is_quiet() {
            command.arg("--quiet");
        }
        // The report is read from the run directory; progress goes to this process's stderr.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        signals::end_with_parent(&mut command);
        let before = read_sessions(dir).unwrap_or_default();
        let mut process = self.start(&mut command)?;
        let status = process.wait();
        let stopped = {
            let mut child = lock(&self.child);
            child.process = None;
            child.stop
        };
        let status = status.map_err(|error| failed(format!("cannot wait for it: {error}")))?;
        match status.code() {
            Some(0) => Ok(()),
            _ if stopped => Err(interrupted()),
            Some(129 | 130 | 143) => Err(interrupted()),
            Some(code) => Err(failed(recorded_failure(dir, &before).unwrap_or_else(
                || format!("ended with exit status {code}; what it said stands above"),
            ))),
            None => Err(failed(format!("was ended by the system: {status}"))),
        }
    }
}

/// What the run in `dir` says that it ended with, which had these sessions `before`.
fn recorded_failure(dir: &Path, before: &[Session]) -> Option<String> {
    let sessions = read_sessions(dir)
        .ok()
        .filter(|sessions| sessions != before)?;
    sessions.into_iter().next_back()?.failure
}

fn tell(event: &Event) {
    match event {
        Event::Started {
            number,
            of,
            entry,
            seed,
            epochs,
        } => {
            let s = if *epochs == 1 { "" } else { "s" };
            output::progress(format_args!(
                "run {number} of {of}: {entry}, seed {seed}, {epochs} epoch{s}"
            ));
        }
        Event::Finished { .. } => {}
        Event::Failed(failure) => output::say(format_args!(
            "run failed: {}, seed {}: {}; the others go on",
            failure.entry, failure.seed, failure.cause
        )),
        Event::Timing(entries) => {
            output::progress(format_args!(
                "timing a few steps of each of {entries} entries in turn, for equal time"
            ));
        }
        Event::EqualTime(plan) => {
            let plan: Vec<_> = plan
                .iter()
                .map(|(name, epochs)| format!("{name} {epochs}"))
                .collect();
            output::progress(format_args!("epochs at equal time: {}", plan.join(", ")));
        }
    }
}

/// Tables and notes for a terminal.
fn text(summary: &Summary) -> String {
    let mut parts = vec![
        summary.subject(),
        String::new(),
        output::table(&summary.equal_epochs_table()),
    ];
    if !summary.equal_time.is_empty() {
        parts.push("\nat equal training time".into());
        parts.push(output::table(&summary.equal_time_table()));
    }
    parts.push(String::new());
    parts.extend(summary.notes());
    parts.push(format!("\nwritten to {}", summary.dir.display()));
    parts.join("\n")
}

/// One failure that names every run that failed.
fn failures(summary: &Summary) -> Result<()> {
    if summary.failures.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = summary
        .failures
        .iter()
        .map(|failure| format!("{} seed {}", failure.entry, failure.seed))
        .collect();
    Err(Failure::failed(
        match names.as_slice() {
            [name] => format!("1 run failed: {name}"),
            names => format!("{} runs failed: {}", names.len(), names.join(", ")),
        },
        Some(format!(
            "mend what stands above, then try them again with `mixskd compare --out {} --resume`",
            shell_word(&summary.dir.display().to_string())
        )),
    ))
}
