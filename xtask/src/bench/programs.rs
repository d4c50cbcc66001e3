//! The programs that are measured: each measurement is a process of its own, so that its memory peak is its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xshell::{Shell, cmd};

/// Environment of this project's programs: what the command line sets for itself.
pub(super) fn settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    [("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "-1")].into_iter()
}

/// This project's side, built for release.
pub(super) struct Ours {
    mixskd: PathBuf,
    row: PathBuf,
}

impl Ours {
    pub(super) fn build(sh: &Shell) -> Result<Self> {
        cmd!(
            sh,
            "cargo build --quiet --release --package mixskd-cli --package mixskd-benches --bins"
        )
        .run()?;
        let metadata = cmd!(sh, "cargo metadata --no-deps --format-version 1")
            .quiet()
            .read()?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?;
        let bin = |name: &str| {
            Path::new(target)
                .join("release")
                .join(name)
                .with_extension(std::env::consts::EXE_EXTENSION)
        };
        Ok(Self {
            mixskd: bin("mixskd"),
            row: bin("row"),
        })
    }

    /// `mixskd bench ARGS --json`.
    pub(super) fn mixskd(&self, sh: &Shell, threads: usize, args: &[String]) -> Result<Value> {
        let program = &self.mixskd;
        let threads = threads.to_string();
        let text = cmd!(sh, "{program} bench {args...} --threads {threads} --json")
            .quiet()
            .read()?;
        document(&text)
    }

    /// `row ARGS`.
    pub(super) fn row(&self, sh: &Shell, threads: usize, args: &[String]) -> Result<Value> {
        let program = &self.row;
        let mut command = cmd!(sh, "{program} {args...}")
            .quiet()
            .env("RAYON_NUM_THREADS", threads.to_string());
        for (name, value) in settings() {
            command = command.env(name, value);
        }
        document(&command.read()?)
    }
}

/// A script of `benches/peers`.
pub(super) fn peer(sh: &Shell, python: &Path, script: &str, args: &[String]) -> Result<Value> {
    let script = Path::new("benches").join("peers").join(script);
    let text = cmd!(sh, "{python} -B {script} {args...}").quiet().read()?;
    document(&text)
}

/// The JSON document that a program printed, its last line or all of it.
fn document(text: &str) -> Result<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    match text.lines().last().map(serde_json::from_str) {
        Some(Ok(value)) => Ok(value),
        _ => bail!("a measured program printed no JSON document:\n{text}"),
    }
}
