//! `mixskd data`: a look at the data, and smaller copies of them, without training.

mod check;
mod preview;
mod shrink;

use clap::{Parser, Subcommand};

use crate::failure::Result;

/// Flags of `mixskd data`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read every image, count classes and find what is there more than once
    Check(check::Args),
    /// Write one picture of training images as the network sees them: augmented, mixed, with λ and both classes
    Preview(Box<preview::Args>),
    /// Copy a folder of pictures with the large ones made smaller, which load many times faster
    Shrink(shrink::Args),
}

impl Args {
    /// Does it.
    pub(crate) fn run(&self) -> Result<()> {
        match &self.command {
            Command::Check(args) => args.run(),
            Command::Preview(args) => args.run(),
            Command::Shrink(args) => args.run(),
        }
    }
}
