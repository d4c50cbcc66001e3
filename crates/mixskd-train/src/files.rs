//! Files that are whole or not there.

use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

/// Writes `data` beside `path`, syncs it and renames it over `path`.
pub(crate) fn write_atomically(path: &Path, data: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    // A temporary file is private by default; this one is a result, and the umask decides who may read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder
        .tempfile_in(dir)
        .map_err(Error::file(path, "create"))?;
    file.write_all(data).map_err(Error::file(path, "write"))?;
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

/// Makes a rename in `dir` durable where the system can; a file system that cannot is no reason to stop.
fn sync_dir(dir: &Path) {
    if let Ok(handle) = std::fs::File::open(dir) {
        let _ = handle.sync_all();
    }
}
