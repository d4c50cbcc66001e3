//! What the two CIFAR layouts share: records of label bytes and three colour planes.

use std::path::{Path, PathBuf};

use crate::{Error, PackedSamples, Result};

pub(super) const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// A file of fixed-size records.
pub(super) struct Layout<'a> {
    /// Label bytes before the pixels.
    pub(super) labels: usize,
    /// Which of them is the class.
    pub(super) class: usize,
    /// Class names; a label beyond them is an error.
    pub(super) names: &'a [String],
}

impl Layout<'_> {
    /// Reads every record of `path`, planes turned into pixels.
    pub(super) fn read(&self, path: &Path) -> Result<PackedSamples> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let record = self.labels + 3 * PLANE;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let whole = bytes.len() / record;
            return Err(Error::layout(
                path,
                format!(
                    "is {} bytes, which is no whole number of {record}-byte records (expected {} for {whole} records or {} for {})",
                    bytes.len(),
                    whole * record,
                    (whole + 1) * record,
                    whole + 1
                ),
                "it is truncated or of another layout; fetch or unpack it again",
            ));
        }
        let count = bytes.len() / record;
        let mut labels = Vec::with_capacity(count);
        let mut pixels = Vec::with_capacity(count * 3 * PLANE);
        for (at, record) in bytes.chunks_exact(record).enumerate() {
            let label = usize::from(record[self.class]);
            if label >= self.names.len() {
                return Err(Error::layout(
                    path,
                    format!(
                        "record {at} has label {label}, but there are {} classes",
                        self.names.len()
                    ),
                    "it is damaged or of another layout; fetch or unpack it again",
                ));
            }
            labels.push(label as u32);
            let (red, rest) = record[self.labels..].split_at(PLANE);
            let (green, blue) = rest.split_at(PLANE);
            pixels.extend(
                red.iter()
                    .zip(green)
                    .zip(blue)
                    .flat_map(|((r, g), b)| [*r, *g, *b]),
            );
        }
        PackedSamples::new((SIDE, SIDE, 3), pixels, labels, path.display().to_string())
    }
}

/// The folder that holds `marker`: `dir` itself, or the one of that name the archive unpacks to.
pub(super) fn locate(dir: &Path, inner: &str, marker: &str) -> Option<PathBuf> {
    [dir.to_path_buf(), dir.join(inner)]
        .into_iter()
        .find(|dir| dir.join(marker).is_file())
}

/// Class names, one a line; `fallback` when the file is not there.
pub(super) fn names(path: &Path, fallback: usize) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok((0..fallback)
            .map(|class| format!("class {class}"))
            .collect());
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let names: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(Into::into)
        .collect();
    if names.is_empty() {
        return Err(Error::layout(
            path,
            "names no class",
            "one class name a line, in the order of the labels",
        ));
    }
    Ok(names)
}

/// Class names up to the highest label that occurs in training.
///
/// A file that holds the first 20 classes of 100 is a set of 20 classes, though its list of names is the full one.
pub(super) fn occurring(names: Vec<String>, train: &PackedSamples) -> Vec<String> {
    let count = train
        .labels()
        .iter()
        .max()
        .map_or(0, |label| *label as usize + 1);
    names.into_iter().take(count).collect()
}
