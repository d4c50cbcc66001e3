//! The Python that runs the scripts of golden values and of benches' peers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// What the scripts import. The torch taken is the one pip finds: its settings (`PIP_INDEX_URL` and the like) choose
/// between a CPU build and the much larger CUDA one.
const PACKAGES: &[&str] = &["torch", "torchvision", "numpy", "pillow", "safetensors"];

/// Which Python to use.
#[derive(Debug, clap::Args)]
pub(crate) struct PythonArgs {
    /// An interpreter that has torch, torchvision, numpy, pillow and safetensors, in place of a private environment
    /// made below target/
    #[arg(long, env = "MIXSKD_PYTHON", value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

impl PythonArgs {
    /// The interpreter asked for, or the private environment's, made on first use.
    pub(crate) fn interpreter(&self, sh: &Shell, root: &Path) -> Result<PathBuf> {
        match &self.python {
            Some(python) => Ok(python.clone()),
            None => private(sh, root),
        }
    }
}

fn private(sh: &Shell, root: &Path) -> Result<PathBuf> {
    let folder = root.join("target").join("python");
    let python = folder.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    // Written last: an environment that was interrupted is made again.
    let ready = folder.join("packages.txt");
    let packages = PACKAGES.join("\n");
    if fs::read_to_string(&ready).is_ok_and(|had| had == packages) {
        return Ok(python);
    }
    eprintln!(
        "making {} (once; torch is a large download)",
        folder.display()
    );
    let system = env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    cmd!(sh, "{system} -m venv --clear {folder}")
        .run()
        .context("hint: install Python 3.10 or later, or name one with --python")?;
    cmd!(sh, "{python} -m pip install --quiet {PACKAGES...}")
        .run()
        .context("hint: a Python that has torch can be named with --python")?;
    fs::write(&ready, packages).with_context(|| format!("cannot write {}", ready.display()))?;
    Ok(python)
}
