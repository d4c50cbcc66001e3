//! What checkpoints are called, and so which is the newest.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// Checkpoint files in `dir`, oldest first.
pub(crate) fn checkpoints_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::file(dir, "read"))? {
        let path = entry.map_err(Error::file(dir, "read"))?.path();
        if let Some(place) = CheckpointName::parse(&path) {
            found.push((place, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Gives a checkpoint that cannot be used another name, so that it is not taken for the newest: `….damaged`.
pub(crate) fn set_aside(checkpoint: &Path) -> Result<()> {
    let mut aside = checkpoint.as_os_str().to_owned();
    aside.push(".damaged");
    std::fs::rename(checkpoint, aside).map_err(Error::file(checkpoint, "rename"))
}

/// Place of a checkpoint in the run: epochs done, then steps of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CheckpointName {
    epochs: usize,
    steps: usize,
}

impl CheckpointName {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            epochs: checkpoint.progress.epochs_done,
            steps: checkpoint.progress.steps_done,
        }
    }

    fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let place = name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?;
        let (epochs, steps) = place.split_once("-step-").unwrap_or((place, "0"));
        Some(Self {
            epochs: epochs.parse().ok()?,
            steps: steps.parse().ok()?,
        })
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { epochs, steps: 0 } => write!(f, "epoch-{epochs:04}.safetensors"),
            Self { epochs, steps } => write!(f, "epoch-{epochs:04}-step-{steps:06}.safetensors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_the_run() {
        let place = |epochs, steps| CheckpointName { epochs, steps };
        for (place, name) in [
            (place(3, 0), "epoch-0003.safetensors"),
            (place(3, 20), "epoch-0003-step-000020.safetensors"),
            (place(12_345, 0), "epoch-12345.safetensors"),
        ] {
            assert_eq!(place.to_string(), name);
            assert_eq!(CheckpointName::parse(Path::new(name)), Some(place));
        }
        assert!(place(3, 0) < place(3, 20) && place(3, 1_000_000) < place(4, 0));
        assert!(place(9_999, 0) < place(10_000, 0));
        for stranger in [
            "epoch-.safetensors",
            "notes.txt",
            ".writing-epoch-0001.safetensors",
        ] {
            assert_eq!(CheckpointName::parse(Path::new(stranger)), None);
        }
    }
}
