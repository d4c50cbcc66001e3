//! The zip archive that `torch.save` has written since PyTorch 1.6: `NAME/data.pkl`, and one entry `NAME/data/KEY` for each storage.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::machine::{self, Pickle};
use super::{Result, Storages};

const PICKLE: &str = "/data.pkl";

/// Whether the file is a zip archive.
pub(super) fn is_zip(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04")
}

/// Reads the pickle; storages are read when they are asked for.
pub(super) fn open(file: &[u8]) -> Result<(Pickle, Entries<'_>)> {
    let archive = ZipArchive::new(Cursor::new(file));
    let archive = archive
        .map_err(|error| format!("its zip archive cannot be read ({error}): is the file whole?"))?;
    let root = (0..archive.len()).find_map(|index| {
        let name = archive.name_for_index(index)?.ok()?;
        Some(name.strip_suffix(PICKLE)?.to_string())
    });
    let Some(root) = root else {
        return Err("a zip archive without data.pkl: not written by torch.save".into());
    };
    let mut entries = Entries {
        archive,
        root,
        left: file.len() as u64,
        storages: BTreeMap::new(),
    };
    if entries.contains("/byteorder") && entries.read("/byteorder")? != b"little" {
        return Err("its values are in big-endian order, which is not supported".into());
    }
    let (pickle, _) = machine::run(&entries.read(PICKLE)?)?;
    Ok((pickle, entries))
}

/// The archive's storages.
pub(super) struct Entries<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder everything lies in.
    root: String,
    /// Bytes that may still be read: those of the whole file, which all entries share.
    left: u64,
    storages: BTreeMap<String, Vec<u8>>,
}

impl Entries<'_> {
    fn contains(&self, path: &str) -> bool {
        let name = format!("{}{path}", self.root);
        self.archive.index_for_name(&name).is_some()
    }

    /// The entry below the root, its checksum proved. PyTorch compresses nothing, so a compressed entry is refused, and with it
    /// whatever would unpack to more than the file holds; so are entries that lie on each other.
    fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        let name = format!("{}{path}", self.root);
        let refuse = |error: &dyn std::fmt::Display| format!("its entry `{name}`: {error}");
        let entry = self.archive.by_name(&name).map_err(|e| refuse(&e))?;
        let (size, is_stored) = (entry.size(), entry.compressed_size() == entry.size());
        let Some(left) = self.left.checked_sub(size).filter(|_| is_stored) else {
            return Err(refuse(&"is compressed, or claims more than the file holds"));
        };
        let mut bytes = Vec::with_capacity(size as usize);
        // One more than there are: the checksum is proved at the end.
        let mut entry = entry.take(size.saturating_add(1));
        entry.read_to_end(&mut bytes).map_err(|e| refuse(&e))?;
        self.left = left;
        Ok(bytes)
    }
}

impl Storages for Entries<'_> {
    fn bytes(&mut self, key: &str, length: usize) -> Result<&[u8]> {
        if !self.storages.contains_key(key) {
            let bytes = self.read(&format!("/data/{key}"))?;
            self.storages.insert(key.into(), bytes);
        }
        let bytes = self.storages.get(key).map_or(&[][..], Vec::as_slice);
        if bytes.len() < length {
            return Err(format!(
                "its storage `{key}` is shorter than its tensors need"
            ));
        }
        Ok(bytes)
    }
}
