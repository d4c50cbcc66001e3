//! The Python that runs the scripts of golden values, of benches' peers and of the checks with other programs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// A private environment below `target/`. The torch taken is the one pip finds: its settings (`PIP_INDEX_URL` and the like) choose
/// between a CPU build and the much larger CUDA one.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Its folder's name.
    pub(crate) folder: &'static str,
    /// What scripts import.
    pub(crate) packages: &'static [&'static str],
    /// What is wanted for files that come with it, and installed without what it needs to run.
    pub(crate) bare_packages: &'static [&'static str],
}

/// What golden scripts and benches' peers import.
pub(crate) const TORCH: Environment = Environment {
    folder: "python",
    packages: &[
        "torch",
        "torchvision",
        "torchmetrics",
        "numpy",
        "pillow",
        "safetensors",
    ],
    bare_packages: &[],
};

/// Which Python to use.
#[derive(Debug, clap::Args)]
pub(crate) struct PythonArgs {
    /// An interpreter that has torch and whatever else the scripts import, in place of a private environment made below
    /// target/
    #[arg(long, env = "MIXSKD_PYTHON", value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

impl PythonArgs {
    /// The interpreter asked for, or the private environment's, made on first use.
    pub(crate) fn interpreter(
        &self,
        sh: &Shell,
        root: &Path,
        environment: &Environment,
    ) -> Result<PathBuf> {
        match &self.python {
            Some(python) => Ok(python.clone()),
            None => environment.make(sh, root),
        }
    }
}

impl Environment {
    fn make(&self, sh: &Shell, root: &Path) -> Result<PathBuf> {
        let folder = root.join("target").join(self.folder);
        let python = folder.join(if cfg!(windows) {
            "Scripts/python.exe"
        } else {
            "bin/python"
        });
        // Written last: an environment that was interrupted is made again.
        let ready = folder.join("packages.txt");
        let (packages, bare) = (self.packages, self.bare_packages);
        let wanted = [packages, bare].concat().join("\n");
        if fs::read_to_string(&ready).is_ok_and(|had| had == wanted) {
            return Ok(python);
        }
        eprintln!("making {} (once)", folder.display());
        let system = env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        cmd!(sh, "{system} -m venv --clear {folder}").run().context(
            "hint: install Python 3.10 or later with its venv, or name an interpreter with --python",
        )?;
        cmd!(sh, "{python} -m pip install --quiet {packages...}")
            .run()
            .context("hint: a Python that has the packages can be named with --python")?;
        if !bare.is_empty() {
            cmd!(sh, "{python} -m pip install --quiet --no-deps {bare...}").run()?;
        }
        fs::write(&ready, wanted).with_context(|| format!("cannot write {}", ready.display()))?;
        Ok(python)
    }
}
