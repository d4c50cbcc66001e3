//! Archives.

use std::fs::File;
use std::io::BufReader;
use std::path::{Component, Path};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use crate::{Error, Result};

/// Unpacks the .tar.gz `archive` into `dir`. Only files and folders are unpacked; links and devices are left out, as no data set
/// needs them.
pub(super) fn unpack(set: &str, archive: &Path, dir: &Path) -> Result<()> {
    let refuse = |message: String| Error::Fetch {
        name: set.into(),
        message: format!("{}: {message}", archive.display()),
        hint: "the archive is not what it should be: do not use it".into(),
    };
    let file = File::open(archive).map_err(Error::io(archive, "read"))?;
    let mut tar = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    let entries = tar.entries().map_err(|error| refuse(error.to_string()))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| refuse(error.to_string()))?;
        let path = entry
            .path()
            .map_err(|error| refuse(error.to_string()))?
            .into_owned();
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(refuse(format!(
                "entry {} leaves its folder",
                path.display()
            )));
        }
        if matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Continuous | EntryType::Directory
        ) {
            entry
                .unpack_in(dir)
                .map_err(Error::io(&dir.join(&path), "unpack"))?;
        }
    }
    Ok(())
}
