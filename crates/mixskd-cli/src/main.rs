//! The command line of mixskd. It parses, calls `mixskd-train` and prints; one file per command stands in `commands`.

mod cli;
mod commands;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod docs_config;
mod failure;
mod network;
mod output;
mod plan;
mod progress;
mod runtime;
mod signals;
mod style;
mod summary;

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::prepare();
    std::panic::set_hook(Box::new(failure::report_panic));
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and version are no mistakes, and go to stdout.
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(error) => {
            let failure = failure::Failure::from(error);
            failure.print();
            return ExitCode::from(failure.status());
        }
    };
    output::set_quiet(cli.quiet);
    match std::panic::catch_unwind(|| cli.command.run()) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            failure.print();
            ExitCode::from(failure.status())
        }
        Err(_) => ExitCode::FAILURE,
    }
}
