//! `cargo xtask bench`: this project's benches, and the peers' scripts on the same machine in the same run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::python::PythonArgs;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Run the scripts of benches/peers too
    #[arg(long)]
    peer: bool,
    /// Only benches whose name contains this
    filter: Option<String>,
    #[command(flatten)]
    python: PythonArgs,
}

pub(crate) fn run(root: &Path, args: &BenchArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    ours(&sh, args)?;
    if args.peer {
        let python = args.python.interpreter(&sh, root)?;
        for script in peers(root)? {
            eprintln!("--- {}", script.display());
            cmd!(sh, "{python} -B {script}").run()?;
        }
    }
    Ok(())
}

fn ours(sh: &Shell, args: &BenchArgs) -> Result<()> {
    let filter = &args.filter;
    Ok(cmd!(sh, "cargo bench --package mixskd-benches -- {filter...}").run()?)
}

/// The peers' scripts, in the order of their names.
fn peers(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("benches").join("peers");
    let mut scripts = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}
