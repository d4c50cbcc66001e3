//! `cargo xtask check`: every gate in one command, cheapest first.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::tidy;

/// Options of `cargo xtask check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Run every step even after one has failed
    #[arg(long)]
    keep_going: bool,
    /// Leave the tests out, where they have just been run
    #[arg(long)]
    skip_tests: bool,
}

/// A gate: its name and what runs it.
struct Step {
    name: &'static str,
    run: fn(&Shell, &Path) -> Result<()>,
}

const TESTS: &str = "tests";

const STEPS: [Step; 5] = [
    Step {
        name: "format",
        run: |sh, _| Ok(cmd!(sh, "cargo fmt --all --check").run()?),
    },
    Step {
        name: "tidy",
        run: |_, root| tidy::run(root),
    },
    Step {
        name: "clippy",
        run: |sh, _| {
            Ok(cmd!(
                sh,
                "cargo clippy --workspace --all-targets -- --deny warnings"
            )
            .run()?)
        },
    },
    Step {
        name: "docs",
        run: |sh, _| {
            let _flags = sh.push_env("RUSTDOCFLAGS", "--deny warnings");
            Ok(cmd!(sh, "cargo doc --workspace --no-deps").run()?)
        },
    },
    Step {
        name: TESTS,
        run: |sh, _| Ok(cmd!(sh, "cargo test --workspace").run()?),
    },
];

/// What became of a step.
enum Outcome {
    Passed,
    Failed(anyhow::Error),
    Skipped,
}

pub(crate) fn run(root: &Path, args: &CheckArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    let mut table = Vec::new();
    let mut failed = false;
    for step in &STEPS {
        let unwanted = args.skip_tests && step.name == TESTS;
        if unwanted || (failed && !args.keep_going) {
            table.push((step.name, 0.0, Outcome::Skipped));
            continue;
        }
        eprintln!("--- {}", step.name);
        let start = Instant::now();
        let outcome = match (step.run)(&sh, root) {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(error),
        };
        failed |= matches!(outcome, Outcome::Failed(_));
        table.push((step.name, start.elapsed().as_secs_f64(), outcome));
    }
    eprintln!();
    for (name, seconds, outcome) in &table {
        match outcome {
            Outcome::Passed => eprintln!("{name:8} {seconds:7.1} s  passed"),
            Outcome::Failed(error) => eprintln!("{name:8} {seconds:7.1} s  FAILED: {error}"),
            Outcome::Skipped => eprintln!("{name:8}       -    not run"),
        }
    }
    if failed {
        bail!("the check failed\nhint: each step is a command of its own, see xtask/src/check.rs");
    }
    Ok(())
}
