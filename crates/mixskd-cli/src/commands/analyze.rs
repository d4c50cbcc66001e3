//! `mixskd analyze`: what trained weights are worth besides their accuracy.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use mixskd_analyze::{
    ANALYSIS_HTML, ANALYSIS_JSON, Analysis, AnalyzeConfig, Classifier, Measure, Step, analyze,
    summary,
};
use mixskd_train::{Observer, make_next_free};

use super::shared::{DATA_HELP, DataArgs, ThreadArgs, other_split, tell_of_data};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::{network, output};

const EXAMPLES: &str = "\
Examples:
  mixskd analyze --weights runs/001-ce/model.safetensors --weights runs/002-mixskd/model.safetensors
  mixskd analyze --weights model.safetensors --data pets --only calibration,grad-cam --images 3,17";

/// Flags of `mixskd analyze`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, mut_arg("data", |arg| arg.help(DATA_HELP)))]
pub(crate) struct Args {
    /// Weights file that `mixskd train` or `mixskd import` wrote; given twice, the two are compared on the same images
    #[arg(long, value_name = "FILE", required = true, action = ArgAction::Append, value_hint = ValueHint::FilePath)]
    weights: Vec<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Directory for analysis.json, analysis.html, charts and pictures [default: runs/NNN-analysis-MODEL]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Measure these alone: calibration, per-class, agreement, mixed, fgsm, rescaling, grad-cam
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Take at most so many test images, drawn by the seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Seed of the images' order: who is mixed with whom, which half fits the temperature [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Images that go through the network at once [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Bins of confidence, of equal width [default: 15]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    bins: Option<u32>,
    /// Share of the images that the temperature is fitted on [default: 0.5]
    #[arg(long, value_name = "F")]
    fit_fraction: Option<f64>,
    /// Shares of the first image in the mixes [default: 0,0.1,...,1]
    #[arg(long, value_name = "F,...", value_delimiter = ',')]
    lambdas: Vec<f64>,
    /// Steps of the attack, in 1/255 of a pixel's range [default: 0,0.5,1,2,4,8]
    #[arg(long, value_name = "F,...", value_delimiter = ',')]
    epsilons: Vec<f64>,
    /// α of the mixing that test-time rescaling undoes [default: 0.4]
    #[arg(long, value_name = "F")]
    alpha: Option<f64>,
    /// Take at most so many training images for the mean image, 0 for all [default: 10000]
    #[arg(long, value_name = "N")]
    mean_images: Option<usize>,
    /// Show these test images, by index from 0 [default: those with the largest loss]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    images: Vec<usize>,
    /// How many images to show where none are named [default: 8]
    #[arg(long, value_name = "N", conflicts_with = "images")]
    worst: Option<usize>,
    /// Stage whose feature map is shown, from 1 [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cam_stage: Option<u32>,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Analyses.
    pub(crate) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        let config = self.config()?;
        let device = network::device()?;
        let networks = self.weights.iter().map(|path| network::open(path, &device));
        let networks = networks.collect::<Result<Vec<_>>>()?;
        let weights = self.weights.iter().map(PathBuf::as_path);
        let (data, dataset, told) = self.data.open_for(weights)?;
        let mut progress = Progress::new();
        let splits = self.weights.iter();
        let splits = splits.filter_map(|weights| other_split(weights, &data));
        for text in told.into_iter().chain(splits) {
            progress.notice(&text);
        }
        tell_of_data(&dataset, &mut progress);
        drop(progress);
        let out = self.directory(&networks)?;
        let bar = Bar::new();
        let analysis = analyze(&networks, &dataset, &config, &mut |step| bar.show(&step))?;
        drop(bar);
        analysis.write(&out)?;
        if self.json {
            output::json(&analysis)
        } else {
            output::line(&text(&analysis, &out))
        }
    }

    fn config(&self) -> Result<AnalyzeConfig> {
        if self.weights.len() > 2 {
            let cause = format!(
                "--weights: takes one or two files, got {}",
                self.weights.len()
            );
            return Err(Failure::usage(cause, "compare two at a time"));
        }
        let default = AnalyzeConfig::default();
        let or = |given: Option<u32>, default: usize| given.map_or(default, |n| n as usize);
        let list = |given: &Vec<f64>, default: Vec<f64>| {
            if given.is_empty() {
                default
            } else {
                given.clone()
            }
        };
        let config = AnalyzeConfig {
            measures: self.measures()?,
            batch: or(self.batch, default.batch),
            limit: or(self.limit, default.limit),
            seed: self.seed.unwrap_or(default.seed),
            bins: or(self.bins, default.bins),
            fit_fraction: self.fit_fraction.unwrap_or(default.fit_fraction),
            lambdas: list(&self.lambdas, default.lambdas),
            epsilons: list(&self.epsilons, default.epsilons),
            alpha: self.alpha.unwrap_or(default.alpha),
            mean_images: self.mean_images.unwrap_or(default.mean_images),
            images: self.images.clone(),
            worst: self.worst.unwrap_or(default.worst),
            cam_stage: or(self.cam_stage, default.cam_stage),
        };
        config.validate()?;
        Ok(config)
    }

    fn measures(&self) -> Result<Vec<Measure>> {
        if self.only.is_empty() {
            return Ok(Measure::ALL.to_vec());
        }
        let known = || Measure::ALL.map(Measure::name).join(", ");
        let measures = self.only.iter().map(|name| {
            Measure::named(name).ok_or_else(|| {
                Failure::usage(
                    format!("--only: there is no measure `{name}`"),
                    format!("there are {}", known()),
                )
            })
        });
        let measures = measures.collect::<Result<Vec<_>>>()?;
        if self.weights.len() < 2 && measures.contains(&Measure::Agreement) {
            let cause = "--only agreement: compares two networks, got one";
            return Err(Failure::usage(cause, "give --weights twice"));
        }
        Ok(measures)
    }

    /// Where the files go; one that holds something is refused before anything is computed.
    fn directory(&self, networks: &[Classifier]) -> Result<PathBuf> {
        let Some(out) = &self.out else {
            let model = networks
                .first()
                .map_or("network", |n| n.metadata.model.name.as_str());
            return Ok(make_next_free(
                Path::new("runs"),
                &format!("analysis-{model}"),
            )?);
        };
        let taken = match std::fs::read_dir(out) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => out.exists(),
        };
        if taken {
            let cause = format!(
                "{}: already exists and is not an empty directory; nothing was written",
                out.display()
            );
            return Err(Failure::usage(cause, "name another one with --out"));
        }
        Ok(out.clone())
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        if output::is_quiet() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent} %  {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self(bar)
    }

    fn show(&self, step: &Step<'_>) {
        let message = match step.network {
            "" => step.what.to_string(),
            network => format!("{network}: {}", step.what),
        };
        self.0.set_length(step.total as u64);
        self.0.set_message(message);
        self.0.set_position(step.done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn text(analysis: &Analysis, out: &Path) -> String {
    let weights = analysis.networks.iter();
    let weights = weights.map(|network| format!("{}: {}", network.name, network.weights));
    let mut rows = summary(analysis);
    // Paths would make the columns wide.
    rows.retain(|row| row.first().is_none_or(|name| name != "weights"));
    format!(
        "{}, {} of {} test images of {} classes\n{}\n\n{}\n\n{}\n{}",
        analysis.data,
        analysis.images,
        analysis.test_images,
        analysis.classes.len(),
        weights.collect::<Vec<_>>().join("\n"),
        output::table(&rows),
        out.join(ANALYSIS_HTML).display(),
        out.join(ANALYSIS_JSON).display(),
    )
}
