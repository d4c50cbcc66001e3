//! `mixskd data preview`: training images as the network sees them.

use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueHint};
use mixskd_report::preview;
use mixskd_train::{DeviceKind, TrainConfig, Trainer};
use serde_json::json;

use super::super::shared::{DataArgs, ThreadArgs, existing_file, has_ending, tell_of_data};
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  mixskd data preview                                      the shipped images, mixed as `mixskd train` mixes them
  mixskd data preview --data pets --method cutmix --augment randaugment --out pets.png";

/// Flags of `mixskd data preview`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read settings from a TOML file, as `mixskd train` does
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Method, one of `mixskd methods`: whether and how it mixes
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// Augmentation beyond the crop and flip that suit the data, names of `mixskd methods`
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    augment: Option<Vec<String>>,
    /// Original images per step: partners are drawn among them
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// Seed of every random draw, below 2^63
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Set any key of the configuration, such as method.alpha=1; may be repeated
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    set: Vec<String>,
    /// Images to show
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// The picture, a PNG file; one that is there is replaced [default: preview-METHOD-DATA.png]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Writes the picture.
    pub(super) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        if let Some(out) = &self.out {
            has_ending(out, "--out", "png")?;
        }
        let config = self.config()?;
        let located = |error| match &self.config {
            Some(path) => config.in_file(path, error),
            None => error,
        };
        let trainer = Trainer::at(&config, config.distribution.first_place()).map_err(located)?;
        tell_of_data(trainer.dataset(), &mut Progress::new());
        let bytes = preview(&trainer, self.count.into())?;
        let out = self.out.clone().unwrap_or_else(|| default_out(&trainer));
        std::fs::write(&out, bytes).map_err(|error| {
            Failure::failed(
                format!("{}: cannot write: {error}", out.display()),
                Some("check that the path is right and that you may write there".into()),
            )
        })?;
        if self.json {
            return output::json(&json!({ "picture": out }));
        }
        output::line(&out.display().to_string())
    }

    /// Defaults, then the file, then named flags, then `--set`, as `mixskd train` reads them.
    fn config(&self) -> Result<TrainConfig> {
        let mut config = match &self.config {
            Some(path) => TrainConfig::from_file(existing_file(path, "recipes lie in configs/")?)?,
            None => TrainConfig::default(),
        };
        config = self.data.apply(config)?;
        let flags: [(&str, Option<toml::Value>); 4] = [
            ("method.name", self.method.clone().map(Into::into)),
            ("data.augment", self.augment.clone().map(Into::into)),
            ("run.batch", self.batch.map(Into::into)),
            ("run.seed", self.seed.map(Into::into)),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                config = config.with_value(key, value)?;
            }
        }
        for assignment in &self.set {
            config = config.with(assignment)?;
        }
        // Wherever it is to be trained: a few pictures are made anywhere.
        config.run.device = DeviceKind::Auto;
        Ok(config)
    }
}

/// `preview-METHOD-DATA.png` in the working directory.
fn default_out(trainer: &Trainer) -> PathBuf {
    let data = trainer
        .dataset()
        .name
        .replace(|c: char| !(c.is_alphanumeric() || "._-".contains(c)), "-");
    let method = trainer.config().method.name();
    PathBuf::from(format!("preview-{method}-{data}.png"))
}
