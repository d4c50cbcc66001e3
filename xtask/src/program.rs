//! The program under test, built or given.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// Which `mixskd` to run.
#[derive(Debug, clap::Args)]
pub(crate) struct ProgramArgs {
    /// A built mixskd; without it a release build is made
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl ProgramArgs {
    /// Its path.
    pub(crate) fn path(&self, root: &Path) -> Result<PathBuf> {
        if let Some(path) = &self.program {
            return std::fs::canonicalize(path)
                .with_context(|| format!("there is no program {}", path.display()));
        }
        let sh = Shell::new()?;
        sh.change_dir(root);
        cmd!(sh, "cargo build --release -p mixskd-cli").run()?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(target.join("release").join("mixskd"))
    }
}
