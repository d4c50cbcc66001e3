//! `mixskd import`: weights of other programs as a file that this one reads.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use clap::{Parser, ValueHint};
use mixskd_models::weights::{self, ImportReport, Metadata, StateDict};
use mixskd_models::{ModelConfig, ParamStore, Strictness};
use mixskd_train::{names, verify_checkpoint};
use serde_json::json;

use super::shared::{existing_file, has_ending, not_onto_itself};
use crate::failure::{Failure, Result};
use crate::output;

/// Flags of `mixskd import`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// safetensors, a checkpoint of a run, or a state dict that PyTorch saved (.pt, .pth), with torchvision's or timm's names
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Network the weights belong to, one of `mixskd models` [default: what the file says, or the run of a checkpoint]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// File to write; one of that name is replaced
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Number of classes [default: that of the file's class head]; another number drops the head
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    classes: Option<u32>,
    /// Text file with the name of one class on each line, in logit order
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    class_names: Option<PathBuf>,
    /// Width multiplier of every layer [default: what the file says, or 1]
    #[arg(long, value_name = "F")]
    width: Option<f64>,
    /// Channels of the image [default: what the file says, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    channels: Option<u16>,
    /// Side of the input in pixels [default: what the file says, or what suits the network]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    input: Option<u16>,
    /// Mean of each channel of pixels in 0…1 [default: ImageNet's, CIFAR-100's for a network of small images]
    #[arg(long, value_name = "F,F,F", value_delimiter = ',')]
    mean: Vec<f32>,
    /// Standard deviation of each channel [default: as for --mean]
    #[arg(long, value_name = "F,F,F", value_delimiter = ',')]
    std: Vec<f32>,
    /// No ReLU after the stem's batch norm, as in the released MixSKD code's CIFAR networks
    #[arg(long)]
    no_stem_relu: bool,
    /// Take what fits, and leave the rest at its initial values
    #[arg(long)]
    partial: bool,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Reads, fits, writes.
    pub(crate) fn run(&self) -> Result<()> {
        let path = existing_file(&self.file, "a .pth, .pt or .safetensors file")?;
        if let Some(name) = &self.model {
            ModelConfig::new(name, 1)?;
        }
        let wrong = |flag: &str, value: &f32, wanted: &str| {
            let cause = format!("{flag}: must be {wanted}, got {value}");
            Err(Failure::usage(
                cause,
                "one for each channel, of pixels in 0…1; those of pixels in 0…255 divided by 255",
            ))
        };
        if let Some(mean) = self.mean.iter().find(|mean| !(0.0..=1.0).contains(*mean)) {
            return wrong("--mean", mean, "from 0 to 1");
        }
        if let Some(std) = self
            .std
            .iter()
            .find(|std| !(**std > 0.0 && std.is_finite()))
        {
            return wrong("--std", std, "finite and above 0");
        }
        let names = self.class_names.as_deref().map(class_names).transpose()?;
        not_onto_itself(&self.output, path)?;
        has_ending(&self.output, "-o", "safetensors")?;
        let state = StateDict::read(path)?;
        let own = if state.is_checkpoint() {
            verify_checkpoint(path)?;
            of_run(path)?
        } else {
            state.metadata().cloned()
        };
        let mut model = self.model(path, own.as_ref())?;
        let asked = self.classes.map(|classes| classes as usize);
        let named = names.as_ref().map(Vec::len);
        let Some(classes) = asked.or(state.classes(&model)?).or(named) else {
            let cause = format!("{}: it has no class head of {}", path.display(), model.name);
            return Err(Failure::usage(cause, "say how many classes with --classes"));
        };
        model.classes = classes;
        if let (Some(names), Some(file)) = (&names, &self.class_names)
            && names.len() != classes
        {
            let cause = format!(
                "--class-names {}: {} names for {classes} classes",
                file.display(),
                names.len()
            );
            return Err(Failure::usage(
                cause,
                "one name a line, in the order of the network's outputs",
            ));
        }
        let metadata = self.metadata(&model, names, own.as_ref());

        let strictness = if self.partial {
            Strictness::Partial
        } else {
            Strictness::Exact
        };
        state.check(&model, strictness)?;
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        model.build(store.builder())?;
        let report = state.load_into(&store, "", &model, strictness)?;
        weights::save(&self.output, &store.tensors(), &metadata)?;
        self.print(&report, &metadata)
    }

    /// The network, but for its classes: what the flags say, then what the file says, then what is usual.
    fn model(&self, path: &Path, own: Option<&Metadata>) -> Result<ModelConfig> {
        let own = own.map(|own| own.model.clone());
        let mut model = match (&self.model, own) {
            (None, None) => {
                return Err(Failure::usage(
                    format!("{}: does not say which network it is of", path.display()),
                    "say so with --model NAME, one of `mixskd models`",
                ));
            }
            (Some(name), Some(own)) if own.name == *name => own,
            (Some(name), _) => ModelConfig::new(name, 1)?,
            (None, Some(own)) => own,
        };
        if let Some(width) = self.width {
            model.width = width;
        }
        if let Some(channels) = self.channels {
            model.channels = channels.into();
        }
        if let Some(input) = self.input {
            model.input = input.into();
        }
        model.stem_relu &= !self.no_stem_relu;
        Ok(model)
    }

    /// What the flags say, then what the file says, then what is usual.
    fn metadata(
        &self,
        model: &ModelConfig,
        names: Option<Vec<String>>,
        own: Option<&Metadata>,
    ) -> Metadata {
        let usual = Metadata::usual(model.clone());
        let own = own.filter(|own| own.model.channels == model.channels);
        let given = |flag: &[f32], own: Option<&Vec<f32>>, usual: &[f32]| match (flag, own) {
            ([], Some(own)) => own.clone(),
            ([], None) => usual.to_vec(),
            (flag, _) => flag.to_vec(),
        };
        let classes = names.or_else(|| own.map(|own| own.classes.clone()));
        Metadata {
            mean: given(&self.mean, own.map(|own| &own.mean), &usual.mean),
            std: given(&self.std, own.map(|own| &own.std), &usual.std),
            classes: classes
                .filter(|classes| classes.len() == model.classes || self.class_names.is_some())
                .unwrap_or_default(),
            resize: match own {
                Some(own) if own.model.input == model.input => own.resize,
                _ => usual.resize,
            },
            ..usual
        }
    }

    fn print(&self, report: &ImportReport, metadata: &Metadata) -> Result<()> {
        let model = &metadata.model;
        if self.json {
            let load = &report.load;
            let mismatched = load.mismatched.iter().map(ToString::to_string);
            return output::json(&json!({
                "file": self.output,
                "model": model.name,
                "classes": model.classes,
                "loaded": load.loaded.len(),
                "missing": load.missing,
                "extra": load.extra,
                "mismatched": mismatched.collect::<Vec<_>>(),
                "left_out": report.left_out,
                "dropped_head": report.dropped_head.map(|(file, _)| file),
            }));
        }
        let rows = [
            ("file", self.output.display().to_string()),
            (
                "model",
                format!("{}, {} classes", model.name, model.classes),
            ),
            ("tensors", report.to_string()),
            (
                "next",
                format!("mixskd predict --weights {} IMAGE", self.output.display()),
            ),
        ];
        output::line(&output::columns(&rows))
    }
}

/// What the weights say that the run of a checkpoint has kept, as long as it lies in its run's directory: nothing of this changes from
/// epoch to epoch.
fn of_run(checkpoint: &Path) -> Result<Option<Metadata>> {
    let checkpoint = checkpoint.canonicalize().unwrap_or_default();
    let Some(folder) = checkpoint.parent() else {
        return Ok(None);
    };
    let kept = folder.with_file_name(names::MODEL_SAFETENSORS);
    let is_run = folder
        .file_name()
        .is_some_and(|name| name == names::CHECKPOINTS)
        && folder.with_file_name(names::CONFIG_TOML).is_file();
    if !is_run || !kept.is_file() {
        return Ok(None);
    }
    Ok(StateDict::read(&kept)?.metadata().cloned())
}

/// The lines of a file.
fn class_names(path: &Path) -> Result<Vec<String>> {
    let path = existing_file(path, "one class name on each line")?;
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::failed(format!("{}: cannot read: {error}", path.display()), None)
    })?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}
