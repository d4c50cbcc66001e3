//! Archives.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use crate::{Error, Result};

/// How many bytes one byte of an archive may become, beyond the first [`FREE`]. Pictures hardly shrink, text and tables by ten or twenty; the
/// format itself allows a thousand.
const GROWTH: u64 = 100;
/// Bytes that any archive may become.
const FREE: u64 = 16 << 20;

/// Unpacks the .tar.gz `archive` into `dir`. Only files and folders are unpacked; links and devices are left out, as no data set
/// needs them.
pub(super) fn unpack(set: &str, archive: &Path, dir: &Path) -> Result<()> {
    let refuse = |message: String| Error::Fetch {
        name: set.into(),
        message: format!("{}: {message}", archive.display()),
        hint: "the archive is not what it should be: do not use it".into(),
    };
    let file = File::open(archive).map_err(Error::io(archive, "read"))?;
    let length = file.metadata().map_err(Error::io(archive, "read"))?.len();
    let left = Cell::new(Some(FREE + GROWTH * length));
    let mut tar = tar::Archive::new(Bounded {
        from: MultiGzDecoder::new(BufReader::new(file)),
        left: &left,
    });
    let refused = |error: io::Error| match left.get() {
        None => refuse(format!("unpacks to more than {GROWTH} times its size")),
        Some(_) => refuse(error.to_string()),
    };
    let entries = tar.entries().map_err(refused)?;
    for entry in entries {
        let mut entry = entry.map_err(refused)?;
        let path = entry.path().map_err(refused)?.into_owned();
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
            entry.unpack_in(dir).map_err(|error| match left.get() {
                None => refused(error),
                Some(_) => Error::io(&dir.join(&path), "unpack")(error),
            })?;
        }
    }
    Ok(())
}

/// A reader that refuses to give more than `left` bytes; nothing is left then.
struct Bounded<'a, R> {
    from: R,
    left: &'a Cell<Option<u64>>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let left = self
            .left
            .get()
            .and_then(|left| left.checked_sub(count as u64));
        self.left.set(left);
        match left {
            Some(_) => Ok(count),
            None => Err(io::Error::other("too many bytes")),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
