//! `mixskd train`: flags become a configuration, the trainer does the rest.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser, ValueHint};
use mixskd_data::recipe;
use mixskd_losses::ObjectiveConfig;
use mixskd_report::Recorder;
use mixskd_train::{
    Control, Observer, Report, RunDir, TrainConfig, Trainer, make_next_free, method, names,
    shell_word,
};
use serde_json::{Value, json};

use super::shared::{DataArgs, GpuArgs, ThreadArgs, existing_file, tell_of_data};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::signals::{self, Request};
use crate::{output, plan, style, summary};

const EXAMPLES: &str = "\
Examples:
  mixskd train                                             the shipped images, a few minutes
  mixskd train --data cifar-100-binary --model cifar_resnet18 --width 1 --epochs 205
  mixskd train --config configs/cifar100.toml --set objective.temperature=4
  mixskd train --init resnet18.pth --model resnet18 --width 1 --data pets --head-lr-factor 10
  mixskd train --resume runs/001-mixskd-cifar_resnet18-fashion-mnist-mini

Later wins: defaults, then --config, then named flags, then --set in the order given.";

/// Flags of `mixskd train`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Args {
    /// Read settings from a TOML file; keys it does not name keep their defaults
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Network, one of `mixskd models` [default: what suits the images, cifar_resnet18 or resnet18]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Width multiplier of every layer
    #[arg(long, value_name = "F")]
    width: Option<f64>,
    /// Start from these weights of the same network: fine-tuning. Ours, safetensors, or PyTorch's (.pt, .pth)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    init: Option<PathBuf>,
    /// Leave everything before the class head as --init has it
    #[arg(long)]
    freeze_backbone: bool,
    /// Times the learning rate, for the class head and whatever the method adds
    #[arg(long, value_name = "F")]
    head_lr_factor: Option<f64>,
    /// Method, one of `mixskd methods`
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// Augmentation beyond the crop and flip that suit the data, names of `mixskd methods`
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    augment: Option<Vec<String>>,
    /// Replace the whole objective by a named one of `mixskd methods`
    #[arg(long, value_name = "NAME")]
    objective: Option<String>,
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Original images per step; methods that mix put as many mixes on top
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// Peak learning rate per step at this batch
    #[arg(long, value_name = "F")]
    lr: Option<f64>,
    /// Seed of every random draw, below 2^63
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Write a checkpoint after so many steps (200) or seconds (30s), beside the one after each epoch
    #[arg(long, value_name = "STEPS|SECONDS")]
    checkpoint_every: Option<String>,
    /// When a loss or gradient is not finite: stop, or skip that step, at most run.max_skips times
    #[arg(long, value_name = "stop|skip", value_parser = ["stop", "skip"], hide_possible_values = true)]
    on_nan: Option<String>,
    #[command(flatten)]
    gpu: GpuArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Train as one of the processes that a launcher started (torchrun's variables, MPI's or Slurm's)
    #[arg(long)]
    distributed: bool,
    /// Run directory to make [default: runs/NNN-METHOD-MODEL-DATA]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Go on with the run in this directory; its own settings hold, and --data may say where the same data lie now
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = SETTINGS)]
    resume: Option<PathBuf>,
    /// Set any key of the configuration, such as optimizer.lr=0.05; may be repeated
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    set: Vec<String>,
    /// Print the settings, shapes, sizes and estimates of the run, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Try everything on two batches of training and two of evaluation, and keep nothing
    #[arg(long, conflicts_with_all = ["dry_run", "out"])]
    fast_dev_run: bool,
    /// What there is to know of the data has been told, as by a comparison whose run this is
    #[arg(long, hide = true)]
    data_told: bool,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// What a resumed run takes from its directory.
const SETTINGS: [&str; 28] = [
    "config",
    "val_fraction",
    "split_seed",
    "skip_unreadable",
    "labels",
    "model",
    "width",
    "init",
    "freeze_backbone",
    "head_lr_factor",
    "method",
    "augment",
    "objective",
    "epochs",
    "batch",
    "lr",
    "seed",
    "out",
    "set",
    "dry_run",
    "checkpoint_every",
    "on_nan",
    "precision",
    "cuda_graph",
    "cuda_branches",
    "cudnn_benchmark",
    "distributed",
    "fast_dev_run",
];

impl Args {
    /// Trains, or shows what would be trained.
    pub(crate) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        if self.dry_run {
            return self.show_plan();
        }
        if self.fast_dev_run {
            return self.try_out();
        }
        let done = match &self.resume {
            Some(dir) => resume(dir, self.data.source(), self.data_told)?,
            None => self.start()?,
        };
        // Of several processes the first speaks.
        let Some((report, data)) = done else {
            return Ok(());
        };
        if self.json {
            return output::json(&report);
        }
        output::line(&summary::text(&report, &data, style::stdout()))
    }
}

impl Args {
    /// A new run, see [`Done`].
    fn start(&self) -> Result<Option<Done>> {
        let config = self.config()?;
        let (mut trainer, ready) = prepared(&config, || {
            if let Some(out) = &self.out
                && config.distribution.place()?.is_first()
            {
                // Before the data are looked through, which may take a while.
                RunDir::check_free(out)?;
            }
            let trainer = self.trainer(&config)?;
            if !trainer.place().is_first() {
                return Ok((trainer, None));
            }
            let mut progress = Progress::new();
            tell_of_data(trainer.dataset(), &mut progress);
            let out = match &self.out {
                Some(out) => out.clone(),
                None => default_out(&trainer)?,
            };
            let run = RunDir::create(&out, trainer.config())?;
            listen(trainer.control(), Some(run.path()))?;
            Ok((trainer, Some((run, progress))))
        })?;
        let Some((run, mut progress)) = ready else {
            return follow(&mut trainer, Path::new(""));
        };
        let mut recorder = recorder(&mut progress, &trainer);
        let report = recorded(trainer.run(&run, &mut recorder), &mut recorder)?;
        Ok(Some((report, DataArgs::of(&trainer.config().data))))
    }

    /// The trainer of `config`; what is wrong with it is told with the line of `--config` that says it.
    fn trainer(&self, config: &TrainConfig) -> Result<Trainer> {
        let located = |error| match &self.config {
            Some(path) => config.in_file(path, error),
            None => error,
        };
        Ok(Trainer::new(config).map_err(located)?)
    }

    /// Two batches of everything, in a folder that goes away again.
    fn try_out(&self) -> Result<()> {
        let mut config = self.config()?;
        config.run.epochs = 1;
        config.run.max_batches = 2;
        config.schedule.warmup_epochs = config.schedule.warmup_epochs.min(1);
        let (mut trainer, ready) = prepared(&config, || {
            let trainer = self.trainer(&config)?;
            if !trainer.place().is_first() {
                return Ok((trainer, None));
            }
            // A signal that ends the process would leave the folder behind.
            listen(trainer.control(), None)?;
            let folder = tempfile::tempdir().map_err(|error| {
                Failure::failed(format!("cannot make a temporary folder: {error}"), None)
            })?;
            let run = RunDir::create(&folder.path().join("run"), trainer.config())?;
            Ok((trainer, Some((folder, run))))
        })?;
        let Some((_folder, run)) = ready else {
            return follow(&mut trainer, Path::new("")).map(|_| ());
        };
        let mut progress = Progress::new();
        tell_of_data(trainer.dataset(), &mut progress);
        let mut recorder = recorder(&mut progress, &trainer);
        let tried = trainer.run(&run, &mut recorder);
        drop(progress);
        let report = tried.map_err(nothing_kept)?;
        if self.json {
            let mut report = json!(report);
            // Gone in a moment.
            report["dir"] = Value::Null;
            report["weights"] = Value::Null;
            return output::json(&report);
        }
        output::line(&format!(
            "{} with {} on {}: two batches of training and two of evaluation went through; nothing was kept",
            report.model, report.method, report.data
        ))
    }

    fn show_plan(&self) -> Result<()> {
        if let Some(out) = &self.out {
            RunDir::check_free(out)?;
        }
        let trainer = self.trainer(&self.config()?)?;
        let mut progress = Progress::new();
        tell_of_data(trainer.dataset(), &mut progress);
        for text in trainer.start_notices() {
            progress.notice(&text);
        }
        let config = trainer.config().clone();
        plan::print(&config, &trainer.plan()?, self.json)
    }

    /// Defaults, then the file, then named flags, then `--set`.
    fn config(&self) -> Result<TrainConfig> {
        let mut config = match &self.config {
            Some(path) => TrainConfig::from_file(existing_file(path, "recipes lie in configs/")?)?,
            None => TrainConfig::default(),
        };
        config = self.data.apply(config)?;
        if let Some(name) = &self.objective {
            config.objective = ObjectiveConfig::preset(name)?;
        }
        let init = self.init.as_ref();
        let flags: [(&str, Option<toml::Value>); 14] = [
            ("model.name", self.model.clone().map(Into::into)),
            ("model.width", self.width.map(Into::into)),
            (
                "init.weights",
                init.map(|path| path.display().to_string().into()),
            ),
            (
                "init.freeze_backbone",
                self.freeze_backbone.then_some(true.into()),
            ),
            ("init.head_lr_factor", self.head_lr_factor.map(Into::into)),
            ("method.name", self.method.clone().map(Into::into)),
            ("data.augment", self.augment.clone().map(Into::into)),
            ("run.epochs", self.epochs.map(Into::into)),
            ("run.batch", self.batch.map(Into::into)),
            ("optimizer.lr", self.lr.map(Into::into)),
            ("run.seed", self.seed.map(Into::into)),
            (
                "run.checkpoint_every",
                self.checkpoint_every.clone().map(Into::into),
            ),
            ("run.on_nan", self.on_nan.clone().map(Into::into)),
            (
                "distribution.enabled",
                self.distributed.then_some(true.into()),
            ),
        ];
        for (key, value) in flags.into_iter().chain(self.gpu.settings()) {
            if let Some(value) = value {
                config = config.with_value(key, value)?;
            }
        }
        for assignment in &self.set {
            config = config.with(assignment)?;
        }
        self.check_objective(&config)?;
        Ok(config)
    }
}

impl Args {
    /// Refuses terms and weights that were asked for and that the method would never read.
    fn check_objective(&self, config: &TrainConfig) -> Result<()> {
        let method = config.method.name();
        if method::spec(method)?.objective {
            return Ok(());
        }
        let of_objective = |text: &&String| TrainConfig::is_of_objective(text);
        let set = self.set.iter().find(of_objective);
        let asked = match (&self.objective, set) {
            (Some(name), _) => format!("--objective {name}"),
            (None, Some(assignment)) => format!("--set {assignment}"),
            (None, None) => return Ok(()),
        };
        let readers: Vec<_> = method::ALL
            .iter()
            .filter(|spec| spec.objective)
            .map(|spec| format!("--method {}", spec.name))
            .collect();
        Err(Failure::usage(
            format!("{asked}: the method `{method}` has no objective to set"),
            format!("leave it out, or choose {}", readers.join(" or ")),
        ))
    }
}

/// The report, and the data flags for the next command.
type Done = (Report, String);

/// Goes on with the run in `dir`, whose data may lie in another place now, see [`Done`].
fn resume(dir: &Path, source: Option<&str>, data_told: bool) -> Result<Option<Done>> {
    let (run, mut config) = match RunDir::open_together(dir) {
        Ok(opened) => opened,
        // Another process may hold it; what it says of the others can be read all the same.
        Err(error) => {
            let noted = TrainConfig::from_file(&dir.join(names::CONFIG_TOML));
            return prepared(&noted.unwrap_or_default(), || Err(error.into()));
        }
    };
    if let Some(source) = source {
        config.data.source = source.into();
    }
    let is_gone = recipe(&config.data.source).is_none() && !Path::new(&config.data.source).exists();
    let (mut trainer, progress) = prepared(&config, || {
        let mut trainer = Trainer::for_resume(&config).map_err(|error| match error {
            error @ mixskd_train::Error::Data(_) if is_gone && source.is_none() => {
                let hint = "say where the same data lie now with --data DIR";
                Failure::usage(error.cause(), hint)
            }
            error => error.into(),
        })?;
        if !trainer.place().is_first() {
            return Ok((trainer, None));
        }
        let mut progress = Progress::new();
        if !data_told {
            tell_of_data(trainer.dataset(), &mut progress);
        }
        trainer.resume(&run, &mut progress)?;
        if source.is_some() {
            let mut moved = config.clone();
            moved.data.source.clone_from(&trainer.config().data.source);
            run.set_config(&moved)?;
        }
        listen(trainer.control(), Some(dir))?;
        Ok((trainer, Some(progress)))
    })?;
    let Some(mut progress) = progress else {
        return follow(&mut trainer, dir);
    };
    let mut recorder = recorder(&mut progress, &trainer);
    let report = recorded(trainer.run(&run, &mut recorder), &mut recorder)?;
    Ok(Some((report, DataArgs::of(&trainer.config().data))))
}

/// What `prepare` makes. Where it fails, the other processes of a distributed run are told, since this one will not meet them.
fn prepared<T>(config: &TrainConfig, prepare: impl FnOnce() -> Result<T>) -> Result<T> {
    prepare().inspect_err(|failure| {
        if config.distribution.enabled {
            // Those may be waited for for a while.
            failure.print();
            config.distribution.decline(failure.cause());
        }
    })
}

/// `ended`, once the run's directory says what it failed with. Who was asked to stop has not failed.
fn recorded(
    ended: mixskd_train::Result<Report>,
    recorder: &mut Recorder,
) -> mixskd_train::Result<Report> {
    use mixskd_train::Error::{Gone, Stopped, Stopping};

    if let Err(error) = &ended
        && !matches!(error, Stopped { .. } | Stopping | Gone { .. })
    {
        recorder.failed(&error.cause());
    }
    ended
}

/// Trains as any process but the first of a distributed run, whose directory it leaves to that one. It has nothing to say but what goes wrong.
fn follow(trainer: &mut Trainer, dir: &Path) -> Result<Option<Done>> {
    let control = trainer.control();
    signals::watch(move |request| match request {
        Request::Stop => control.stop(),
        Request::Now => (),
        Request::Checkpoint => control.checkpoint(),
    })?;
    let rank = trainer.place().rank;
    match trainer.run(&RunDir::of_first(dir), &mut ()) {
        Ok(_) => Ok(None),
        Err(error) => Err(Failure::from(error).of_rank(rank)),
    }
}

/// What is said of a try that failed: its folder is gone, and so is every file that an error may name.
fn nothing_kept(error: mixskd_train::Error) -> Failure {
    use mixskd_train::Error::{NotFinite, Stopped};

    match error {
        Stopped { .. } => Failure::stopped("stopped; nothing was kept", None),
        NotFinite {
            term,
            layer,
            value,
            epoch,
            step,
            checkpoint: _,
        } => NotFinite {
            term,
            layer,
            value,
            epoch,
            step,
            checkpoint: None,
        }
        .into(),
        other => other.into(),
    }
}

/// From now on signals stop the run or ask for a checkpoint. `dir` is where it can go on from.
fn listen(control: Control, dir: Option<&Path>) -> Result<()> {
    let dir = dir.map(|dir| shell_word(&dir.display().to_string()));
    signals::watch(move |request| match request {
        Request::Stop => {
            control.stop();
            signals::tell(|| {
                output::say(format_args!(
                    "stopping after this step; the same signal again stops at once"
                ));
            });
        }
        Request::Now => {
            let hint = dir.as_ref().map(|dir| {
                format!("go on from the newest checkpoint with `mixskd train --resume {dir}`")
            });
            signals::tell(move || {
                Failure::stopped("stopped at once, in the middle of a step", hint).print();
            });
        }
        Request::Checkpoint => control.checkpoint(),
    })
}

/// Watches a run of `trainer` before `progress`, and keeps what that has told.
fn recorder<'a>(progress: &'a mut Progress, trainer: &Trainer) -> Recorder<'a> {
    let told = progress.notices();
    Recorder::new(progress, &command_line())
        .after(told)
        .with_pictures(trainer)
}

/// What was typed, as a shell would take it again.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| shell_word(&word));
    let words: Vec<_> = std::iter::once("mixskd".to_string()).chain(words).collect();
    words.join(" ")
}

/// Makes `runs/NNN-METHOD-MODEL-DATA`.
fn default_out(trainer: &Trainer) -> Result<PathBuf> {
    let config = trainer.config();
    let data = trainer
        .dataset()
        .name
        .replace(|c: char| !(c.is_alphanumeric() || "._-".contains(c)), "-");
    let stem = format!("{}-{}-{data}", config.method.name(), config.model.name);
    Ok(make_next_free(Path::new("runs"), &stem)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_resumed_run_takes_no_setting_from_the_command_line() {
        let elsewhere = [
            "data",
            "data_told",
            "resume",
            "threads",
            "json",
            "help",
            "version",
        ];
        for argument in Args::command().get_arguments() {
            let id = argument.get_id().as_str();
            assert_ne!(SETTINGS.contains(&id), elsewhere.contains(&id), "--{id}");
        }
    }
}
