//! Flags that several commands have.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use mixskd_data::{DataConfig, Dataset, LabelKind, recipe};
use mixskd_train::{Observer, Precision, Report, TrainConfig, names, shell_word};

use crate::failure::{Failure, Result};

/// Which data.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// A known set, a folder, or hub:NAME [default: the set that ships with the program]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Share of each class that becomes the test set, for a folder without one
    #[arg(long, value_name = "F")]
    val_fraction: Option<f64>,
    /// Seed of the draw that --val-fraction makes, below 2^63 [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    split_seed: Option<i64>,
    /// Leave unreadable images out and count them, instead of stopping
    #[arg(long)]
    skip_unreadable: bool,
    /// CIFAR-100's labels
    #[arg(long, value_name = "fine|coarse", value_parser = ["fine", "coarse"], hide_possible_values = true)]
    labels: Option<String>,
}

/// Of `--data` where there are weights of a run.
pub(crate) const DATA_HELP: &str = "A known set, a folder, or hub:NAME [default: the data of the run that the weights lie in, else the set that ships with the program]";

impl DataArgs {
    /// The set or folder that is named.
    pub(crate) fn source(&self) -> Option<&str> {
        self.data.as_deref()
    }

    /// `config` with these flags applied.
    pub(crate) fn apply(&self, mut config: TrainConfig) -> Result<TrainConfig> {
        let flags: [(&str, Option<toml::Value>); 5] = [
            ("data.source", self.data.clone().map(Into::into)),
            ("data.val_fraction", self.val_fraction.map(Into::into)),
            ("data.seed", self.split_seed.map(Into::into)),
            (
                "data.skip_unreadable",
                self.skip_unreadable.then(|| true.into()),
            ),
            ("data.labels", self.labels.clone().map(Into::into)),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                config = config.with_value(key, value)?;
            }
        }
        Ok(config)
    }

    /// The data that `--data` names; without it, those of the run that the first of `weights` in a run lies in, with what the other flags change, and a word on
    /// that.
    ///
    /// # Errors
    /// When the data cannot be opened, or the run does not say which they are.
    pub(crate) fn open_for<'a>(
        &self,
        mut weights: impl Iterator<Item = &'a Path>,
    ) -> Result<(DataConfig, Dataset, Option<String>)> {
        let own = match self.data {
            Some(_) => None,
            None => weights.find_map(|weights| Some((weights, run_of(weights)?))),
        };
        let Some((weights, run)) = own else {
            let data = self.apply(TrainConfig::default())?.data;
            let dataset = data.open()?;
            return Ok((data, dataset, None));
        };
        let hint = "it says which data the run of these weights had: mend it, or name the data with --data";
        let run = run.map_err(|error| Failure::from(error).with_hint(hint))?;
        if let Some(name) = &run.own.data {
            let weights = weights.display();
            return Err(Failure::usage(
                format!(
                    "the run that {weights} lies in had its data, `{name}`, from the program that began it"
                ),
                "name data with --data",
            ));
        }
        let run = self.apply(run)?;
        let source = &run.data.source;
        let is_gone = recipe(source).is_none() && !Path::new(source).exists();
        let hint = "the run's config.toml names these data; say where they lie now with --data DIR";
        let dataset = run.data.open().map_err(|error| match error {
            error if is_gone => Failure::from(error).with_hint(hint),
            error => error.into(),
        })?;
        let flags = Self::of(&run.data);
        let told = match other_images(weights, &dataset) {
            Some(difference) => Some(format!(
                "{} is not as the run that {} lies in found it: {difference}; some of its test images may have been trained on",
                run.data.source,
                weights.display()
            )),
            None if flags.is_empty() => None,
            None => Some(format!(
                "the data are those of the run that {} lies in:{flags}",
                weights.display()
            )),
        };
        Ok((run.data, dataset, told))
    }

    /// The flags that ask for `config`, with a space before each; empty for the default.
    pub(crate) fn of(config: &DataConfig) -> String {
        let default = DataConfig::default();
        let mut flags = String::new();
        if config.source != default.source {
            let _ = write!(flags, " --data {}", shell_word(&config.source));
        }
        if let Some(fraction) = config.val_fraction {
            let _ = write!(flags, " --val-fraction {fraction}");
        }
        if config.seed != default.seed {
            let _ = write!(flags, " --split-seed {}", config.seed);
        }
        if config.skip_unreadable {
            flags.push_str(" --skip-unreadable");
        }
        if config.labels == LabelKind::Coarse {
            flags.push_str(" --labels coarse");
        }
        flags
    }
}

/// How a GPU computes.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuArgs {
    /// Arithmetic of feature maps and products: f32; on a GPU also tf32 or bf16
    #[arg(long, value_name = "f32|tf32|bf16")]
    pub(crate) precision: Option<Precision>,
    /// On a GPU, whether a step that is always the same work is captured as a CUDA graph [default: on]
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub(crate) cuda_graph: Option<bool>,
    /// On a GPU, whether branches run beside the backbone in a step that is captured [default: on]
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub(crate) cuda_branches: Option<bool>,
    /// On a GPU, whether cuDNN's algorithms are tried out and the fastest is taken, instead of the one that cuDNN guesses [default: off]
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    pub(crate) cudnn_benchmark: Option<bool>,
}

impl GpuArgs {
    /// What they set, by the configuration's keys.
    pub(crate) fn settings(&self) -> [(&'static str, Option<toml::Value>); 4] {
        [
            ("run.precision", self.precision.map(|p| p.name().into())),
            ("run.cuda_graph", self.cuda_graph.map(Into::into)),
            ("run.cuda_branches", self.cuda_branches.map(Into::into)),
            ("run.cudnn_benchmark", self.cudnn_benchmark.map(Into::into)),
        ]
    }
}

fn on_or_off(text: &str) -> std::result::Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("is neither on nor off".into()),
    }
}

/// How many threads compute.
#[derive(Debug, Args)]
pub(crate) struct ThreadArgs {
    /// Threads to compute with [default: all cores]; the results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ThreadArgs {
    /// The number asked for.
    pub(crate) fn count(&self) -> Option<u16> {
        self.threads
    }

    /// Makes the pool that everything computes in.
    pub(crate) fn apply(&self) -> Result<()> {
        let Some(threads) = self.threads else {
            return Ok(());
        };
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .map_err(|error| {
                Failure::failed(
                    format!("--threads {threads}: {error}"),
                    Some("ask for fewer".into()),
                )
            })
    }
}

/// Tells which images were left out, and what else there is to know of the data.
pub(crate) fn tell_of_data(dataset: &Dataset, observer: &mut dyn Observer) {
    let skipped = dataset.skipped.len();
    if skipped > 0 {
        let more = if skipped > SKIPPED_SHOWN {
            format!(
                " (the first {SKIPPED_SHOWN} here; `mixskd data check --skip-unreadable` lists all)"
            )
        } else {
            String::new()
        };
        let s = if skipped == 1 { "" } else { "s" };
        observer.notice(&format!("skipped {skipped} unreadable image{s}{more}"));
    }
    let skipped = dataset.skipped.iter().take(SKIPPED_SHOWN);
    for text in skipped.chain(&dataset.notes) {
        observer.notice(text);
    }
    match dataset.duplicates(LOOKED_THROUGH) {
        Some(found) => {
            for text in found.notes(dataset) {
                observer.notice(&text);
            }
        }
        None => observer.notice(
            "images that are there twice were not looked for, as more than 512 MiB would have to be read: `mixskd data check` does",
        ),
    }
}

/// Skipped images that are named one by one.
const SKIPPED_SHOWN: usize = 10;

/// Bytes of images that are looked through for duplicates before anything else is done: a second's work. `mixskd data check` looks through all.
const LOOKED_THROUGH: u64 = 512 << 20;

/// The settings of the run that `weights` lie in, where they lie in one.
fn run_of(weights: &Path) -> Option<mixskd_train::Result<TrainConfig>> {
    let config = weights.parent()?.join(names::CONFIG_TOML);
    config.exists().then(|| TrainConfig::from_file(&config))
}

/// How `dataset` differs from what the run that `weights` lie in has been trained and tested on; `None` where it does not, or nobody knows.
fn other_images(weights: &Path, dataset: &Dataset) -> Option<String> {
    let report = std::fs::read(weights.parent()?.join(names::REPORT_JSON)).ok()?;
    let report: Report = serde_json::from_slice(&report).ok()?;
    report.data_identity?.difference(&dataset.identity())
}

/// A word where the run that `weights` lie in held out other images of the same folder than `data` asks for.
pub(crate) fn other_split(weights: &Path, data: &DataConfig) -> Option<String> {
    let own = run_of(weights)?.ok()?.data;
    let fraction = own.val_fraction?;
    let place = |source: &str| Path::new(source).canonicalize().ok();
    let same = place(&own.source)? == place(&data.source)?;
    (same && (Some(fraction), own.seed) != (data.val_fraction, data.seed)).then(|| {
        format!(
            "{} is of a run that held out other images of this folder (--val-fraction {fraction} --split-seed {}): it was trained on some of those that it is tested on",
            weights.display(),
            own.seed
        )
    })
}

/// A file named on the command line, or a usage error.
pub(crate) fn existing_file<'a>(path: &'a Path, hint: &str) -> Result<&'a Path> {
    let what = match path {
        path if path.is_dir() => "is a folder, not a file",
        path if !path.exists() => "there is no such file",
        path if is_device(path) => "is a device, not a file",
        path => return Ok(path),
    };
    Err(Failure::usage(format!("{}: {what}", path.display()), hint))
}

/// Refuses a name whose ending says that it is another kind of file than `ending`.
pub(crate) fn has_ending(output: &Path, flag: &str, ending: &str) -> Result<()> {
    const KINDS: [&str; 16] = [
        "bin",
        "bmp",
        "csv",
        "gif",
        "html",
        "jpeg",
        "jpg",
        "json",
        "jsonl",
        "onnx",
        "png",
        "pt",
        "pth",
        "safetensors",
        "svg",
        "toml",
    ];
    let is_another = |own: &OsStr| {
        let is = |kind: &str| own.eq_ignore_ascii_case(kind);
        !is(ending) && KINDS.iter().any(|kind| is(kind))
    };
    match output.extension() {
        Some(own) if is_another(own) => Err(Failure::usage(
            format!(
                "{flag} {}: what is written is a .{ending} file",
                output.display()
            ),
            format!("let its name end in .{ending}"),
        )),
        _ => Ok(()),
    }
}

/// Refuses an output that would take the place of the file it is made from.
pub(crate) fn not_onto_itself(output: &Path, source: &Path) -> Result<()> {
    let same = match (output.canonicalize(), source.canonicalize()) {
        (Ok(output), Ok(source)) => output == source,
        _ => false,
    };
    if !same {
        return Ok(());
    }
    let cause = format!("-o {}: is the file that is read", output.display());
    Err(Failure::usage(cause, "name another file to write"))
}

/// Whether `path` is a device, which may have no end.
#[cfg(unix)]
fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.metadata().is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_char_device() || kind.is_block_device()
    })
}

#[cfg(not(unix))]
fn is_device(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_back_from_a_configuration() {
        assert_eq!(DataArgs::of(&DataConfig::default()), "");
        let config = DataConfig {
            source: "my pets".into(),
            labels: LabelKind::Coarse,
            val_fraction: Some(0.25),
            skip_unreadable: true,
            seed: 3,
            ..DataConfig::default()
        };
        let flags = format!(
            " --data {} --val-fraction 0.25 --split-seed 3 --skip-unreadable --labels coarse",
            shell_word("my pets")
        );
        assert_eq!(DataArgs::of(&config), flags);
    }
}
