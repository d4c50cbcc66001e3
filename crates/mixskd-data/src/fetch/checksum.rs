//! Checksums of files.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The checksum of `path` in the form of `like`: `md5:…` or `sha256:…`.
pub(super) fn checksum(path: &Path, like: &str) -> Result<String> {
    match like.split_once(':') {
        Some(("md5", _)) => Ok(format!("md5:{}", digest::<Md5>(path)?)),
        Some(("sha256", _)) => Ok(format!("sha256:{}", digest::<Sha256>(path)?)),
        _ => Err(Error::config(
            "checksum",
            format!("`{like}` is of no known kind"),
            "write md5:… or sha256:…",
        )),
    }
}

fn digest<D: Digest>(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path, "read"))? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
}
