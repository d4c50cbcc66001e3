//! `mixskd export`: trained weights as a file that other programs run.

use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::{Parser, ValueEnum, ValueHint};
use mixskd_models::onnx::OnnxConfig;
use mixskd_models::weights::{self, Metadata};
use serde::Serialize;
use serde_json::Value;

use super::shared::{existing_file, has_ending, not_onto_itself};
use crate::failure::{Failure, Result};
use crate::output;

/// Flags of `mixskd export`.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Args {
    /// Weights file that `mixskd train` or `mixskd import` wrote
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    weights: PathBuf,
    /// What to write
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Onnx)]
    format: Format,
    /// File to write; one of that name is replaced
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Version of ONNX's operators, 17 to 22
    #[arg(long, value_name = "N", default_value_t = 17, value_parser = clap::value_parser!(i64).range(17..=22))]
    opset: i64,
    /// Keep batch norms as operations of their own
    #[arg(long)]
    no_fold: bool,
    /// End in class probabilities instead of logits
    #[arg(long)]
    softmax: bool,
    /// Take pixels in 0…1 and normalise inside
    #[arg(long)]
    normalize: bool,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// What can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// The Open Neural Network Exchange's format
    Onnx,
    /// safetensors under timm's names, which for some networks are not torchvision's
    Timm,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    format: Format,
    bytes: usize,
    model: String,
    input: [Value; 4],
    output: &'static str,
}

impl Args {
    /// Writes the file.
    pub(crate) fn run(&self) -> Result<()> {
        let path = existing_file(
            &self.weights,
            "`mixskd train` writes model.safetensors into its run directory",
        )?;
        let ending = match self.format {
            Format::Onnx => "onnx",
            Format::Timm => "safetensors",
        };
        not_onto_itself(&self.output, path)?;
        has_ending(&self.output, "-o", ending)?;
        if self.format == Format::Timm {
            return self.timm(path);
        }
        let (backbone, metadata) = weights::build_from_file(path, &Device::Cpu)?;
        let config = OnnxConfig {
            opset: self.opset,
            fold: !self.no_fold,
            softmax: self.softmax,
            normalize: self.normalize,
        };
        let bytes = weights::export_onnx(&self.output, backbone.as_ref(), &metadata, &config)?;
        self.print(bytes, &metadata)
    }

    /// Weights alone.
    fn timm(&self, path: &Path) -> Result<()> {
        if self.softmax || self.normalize || self.no_fold {
            return Err(Failure::usage(
                "--format timm: a file of weights has no operations to add or leave out",
                "leave --softmax, --normalize and --no-fold out",
            ));
        }
        let (tensors, metadata) = weights::load(path)?;
        let known = weights::TIMM_NETWORKS;
        if !known.contains(&metadata.model.name.as_str()) {
            return Err(Failure::usage(
                format!(
                    "--format timm: timm has no such network as {}",
                    metadata.model.name
                ),
                format!("timm has {}", known.join(", ")),
            ));
        }
        weights::save_timm(&self.output, &tensors, &metadata)?;
        let bytes = std::fs::metadata(&self.output).map_or(0, |file| file.len() as usize);
        self.print(bytes, &metadata)
    }

    fn print(&self, bytes: usize, metadata: &Metadata) -> Result<()> {
        let side = Value::from(metadata.model.input);
        let exported = Exported {
            file: self.output.clone(),
            format: self.format,
            bytes,
            model: metadata.model.name.clone(),
            input: [
                "batch".into(),
                metadata.model.channels.into(),
                side.clone(),
                side,
            ],
            output: if self.softmax {
                "probabilities"
            } else {
                "logits"
            },
        };
        if self.json {
            output::json(&exported)
        } else {
            output::line(&exported.text(self.normalize))
        }
    }
}

impl Exported {
    fn text(&self, normalize: bool) -> String {
        let pixels = if normalize {
            "pixels in 0…1"
        } else {
            "normalised pixels"
        };
        let rows = [
            ("file", self.file.display().to_string()),
            ("size", format!("{:.1} MB", self.bytes as f64 / 1e6)),
            ("model", self.model.clone()),
            (
                "input",
                format!(
                    "image [batch, {}, {}, {}], {pixels}",
                    self.input[1], self.input[2], self.input[3]
                ),
            ),
            ("output", self.output.to_string()),
        ];
        output::columns(&rows)
    }
}
