//! `cargo xtask fuzz`: damaged files for everything that reads files. The targets stand in `crates/mixskd-train/examples/fuzz.rs`.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzArgs {
    /// Executions of all targets together
    #[arg(long, default_value_t = 10_000_000)]
    executions: u64,
    /// Seed of the damage
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One target only
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

pub(crate) fn run(root: &Path, args: &FuzzArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    println!(
        "| target | corpus | executions | seconds | slowest, s | largest memory so far, MiB | findings |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (executions, seed) = (args.executions.to_string(), args.seed.to_string());
    let target = args.target.as_slice();
    cmd!(
        sh,
        "cargo run -q --release -p mixskd-train --example fuzz -- {executions} {seed} {target...}"
    )
    .run()?;
    Ok(())
}
