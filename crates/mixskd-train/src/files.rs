//! Files that are whole or not there.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Writes `data` beside `path`, syncs it and renames it over `path`.
pub(crate) fn write_atomically(path: &Path, data: &[u8]) -> Result<()> {
    make_atomically(path, |file| file.write_all(data))
}

/// Has `write` fill a file beside `path`, syncs it and renames it over `path`.
pub(crate) fn make_atomically(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // A temporary file is private by default; this one is a result, and the umask decides who may read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder
        .tempfile_in(dir)
        .map_err(Error::file(path, "create"))?;
    // By the file itself: the wrapper's errors name its own path, too.
    write(file.as_file_mut()).map_err(Error::file(path, "write"))?;
    file.as_file()
        .sync_all()
        .map_err(Error::file(path, "sync"))?;
    let file = file
        .persist(path)
        .map_err(|e| Error::file(path, "rename into place")(e.error))?;
    drop(file);
    sync_dir(dir);
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(Error::file(path, "read"))?;
    std::io::copy(&mut file, &mut hash).map_err(Error::file(path, "read"))?;
    Ok(format!("{:x}", hash.finalize()))
}

/// What [`write_atomically`] and the writer of weights call a file that is not finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with(PREFIX) || (name.starts_with('.') && name.rsplit('.').next() == Some("tmp"))
}

const PREFIX: &str = ".writing-";

/// Removes what a process that died while writing left in `dir`. Only for a directory whose lock is held.
pub(crate) fn remove_unfinished(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_unfinished) {
            // It is in nobody's way: the next one is written under another name.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes names made or renamed in `dir` durable where the system can; a file system that cannot is no reason to stop.
pub(crate) fn sync_dir(dir: &Path) {
    if let Ok(handle) = std::fs::File::open(dir) {
        let _ = handle.sync_all();
    }
}
