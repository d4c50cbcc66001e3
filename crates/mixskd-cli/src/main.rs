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
mod style;
mod summary;

use std::process::ExitCode;

use clap::Parser;

/// Keeps the big buffers of a training step instead of handing them back to the system after each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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
