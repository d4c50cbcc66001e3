//! `mixskd completions` and `mixskd man`: what shells and manual readers know of the command line, made from its definition.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Failure, Result};
use crate::output;

/// Flags of `mixskd completions`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Args {
    /// Prints the script.
    pub(crate) fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mixskd", &mut script);
        output::bytes(&script)
    }
}

/// Flags of `mixskd man`.
#[derive(Debug, Parser)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder, instead of the first page to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArgs {
    /// Prints or writes the pages, in roff.
    pub(crate) fn run(&self) -> Result<()> {
        let command = Cli::command();
        let Some(dir) = &self.out else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .map_err(|error| unwritable(Path::new("stdout"), &error))?;
            return output::bytes(&page);
        };
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(command, dir))
            .map_err(|error| unwritable(dir, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(
        format!("cannot write {}: {error}", path.display()),
        Some("name a folder that can be written to".into()),
    )
}
