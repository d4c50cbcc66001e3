//! The command line of mixskd. It parses, calls `mixskd-train` and prints; one file per command stands in `commands`.

mod cli;
mod commands;
#[cfg(test)]
mod docs;
mod failure;
mod network;
mod output;
mod plan;
mod progress;
mod runtime;
mod style;
mod summary;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    runtime::prepare();
    std::panic::set_hook(Box::new(failure::report_panic));
    let cli = cli::Cli::parse();
    match std::panic::catch_unwind(|| cli.command.run()) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            failure.print();
            ExitCode::from(failure.status())
        }
        Err(_) => ExitCode::FAILURE,
    }
}
