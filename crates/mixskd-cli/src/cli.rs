//! What can be typed.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{
    analyze, bench, compare, completions, data, datasets, doctor, eval, export, import, methods,
    models, predict, report, train,
};
use crate::failure;

/// Train image classifiers that teach themselves (MixSKD and its peers), on the CPU or a GPU.
///
/// `mixskd train` alone trains a small network on the images that ship with the program.
#[derive(Debug, Parser)]
#[command(
    name = "mixskd",
    bin_name = "mixskd",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit status: 0 done, 1 something failed, 2 a wrong flag, key, name or path, 129, 130 or 143 stopped by a signal."
)]
pub(crate) struct Cli {
    /// Show no progress: only errors, notes and the result
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What is asked for by `words`, the first of which is the program's name.
    ///
    /// # Errors
    /// clap's word for what it cannot read, and for help and version.
    pub(crate) fn read(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        // A number below 0 is a value out of range, and not a flag that nobody knows.
        let command = Self::command().mut_subcommands(with_negative_numbers);
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let takes_a_number = arg.get_action().takes_values() && !arg.is_positional();
            arg.allow_negative_numbers(takes_a_number)
        })
        .mut_subcommands(with_negative_numbers)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a network
    Train(Box<train::Args>),
    /// Train several methods over several seeds, and put them in one table
    Compare(Box<compare::Args>),
    /// Score trained weights on test images: top-1, top-5, loss
    Eval(eval::Args),
    /// Measure what trained weights are worth besides accuracy: calibration, robustness, where they look
    Analyze(Box<analyze::Args>),
    /// Write the page of a run, or of several laid over each other
    Report(report::Args),
    /// Classify image files with trained weights
    Predict(predict::Args),
    /// Take weights of PyTorch, torchvision or timm
    Import(import::Args),
    /// Write trained weights as an ONNX file, or under timm's names
    Export(export::Args),
    /// List the networks
    Models(models::Args),
    /// List the training methods, objectives and augmentations
    Methods(methods::Args),
    /// Check a data set, or show training images as the network sees them
    Data(data::Args),
    /// List the known data sets, or download one
    Datasets(datasets::Args),
    /// Measure how fast this machine trains or classifies
    Bench(bench::Args),
    /// Say what this build is and what it finds on this machine
    Doctor(doctor::Args),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::Args),
    /// Print the manual page, or write one for each command
    Man(completions::ManArgs),
}

impl Command {
    /// Does it.
    pub(crate) fn run(&self) -> failure::Result<()> {
        match self {
            Self::Train(args) => args.run(),
            Self::Compare(args) => args.run(),
            Self::Eval(args) => args.run(),
            Self::Analyze(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Predict(args) => args.run(),
            Self::Import(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Models(args) => args.run(),
            Self::Methods(args) => args.run(),
            Self::Data(args) => args.run(),
            Self::Datasets(args) => args.run(),
            Self::Bench(args) => args.run(),
            Self::Doctor(args) => args.run(),
            Self::Completions(args) => args.run(),
            Self::Man(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_below_0_is_a_value() {
        for words in [
            "mixskd train --split-seed -2",
            "mixskd compare --epochs -1",
            "mixskd bench step --steps -3",
        ] {
            let text = Cli::read(words.split(' ')).unwrap_err().to_string();
            assert!(text.contains("invalid value '-"), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
