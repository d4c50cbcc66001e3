//! Directories that are numbered.

use std::path::{Path, PathBuf};

use crate::run_dir::names_in;
use crate::{Error, Result};

/// Makes `root/NNN-STEM`, empty, with the first free number. Of several processes that ask at once each gets one of its own.
///
/// # Errors
/// When it cannot be made.
pub fn make_next_free(root: &Path, stem: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(root).map_err(Error::file(root, "create"))?;
    let first = highest(root);
    // The others that ask at once are few.
    for number in first + 1..=first + 10_000 {
        let path = root.join(format!("{number:03}-{stem}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file(&path, "create")(error)),
        }
    }
    Err(Error::RunDir {
        path: root.to_path_buf(),
        message: "has no free number, or cannot be listed".into(),
        hint: Some("name a directory with --out".into()),
    })
}

/// The greatest number in front of a name in `root`; 0 without one.
fn highest(root: &Path) -> u64 {
    let numbers = names_in(root).into_iter().filter_map(|name| {
        let number = name.split('-').next()?;
        number.parse::<u32>().ok()
    });
    u64::from(numbers.max().unwrap_or(0))
}
