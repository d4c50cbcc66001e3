//! Downloads of known data sets: resumed, verified, unpacked in one step.

mod checksum;
mod download;
mod unpack;

use std::path::{Path, PathBuf};

use crate::{Error, Recipe, Result};

/// What a fetch has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchEvent {
    /// The set is there already; nothing is done.
    Present,
    /// A file is about to be downloaded.
    Started {
        /// Its name.
        file: String,
        /// Bytes kept from an earlier, broken download.
        resumed_from: u64,
    },
    /// More of a file has come.
    Progress {
        /// Its name.
        file: String,
        /// Bytes on disk so far.
        done: u64,
        /// Bytes in all, if the server or the recipe says.
        total: Option<u64>,
    },
    /// A file has the checksum it must have.
    Verified {
        /// Its name.
        file: String,
    },
    /// An archive is being unpacked.
    Unpacking {
        /// Its name.
        file: String,
    },
}

/// Fetches `recipe` into `root/NAME` and returns that folder.
///
/// Files are downloaded to `root/NAME.download/`, and a broken download goes on where it stopped. The folder `root/NAME` appears
/// in one step, when every checksum was right and everything is unpacked.
///
/// # Errors
/// When the recipe has nothing to download, the server refuses or keeps breaking off, a checksum is wrong (the file is removed
/// then), an archive wants to write outside of its folder, or the disk is full.
pub fn fetch(
    recipe: &Recipe,
    root: &Path,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf> {
    let name = recipe.name.as_str();
    if recipe.files.is_empty() {
        let message = "it ships with the program, there is nothing to download";
        return Err(Error::Fetch {
            name: name.into(),
            message: message.into(),
            hint: format!("use --data {name}"),
        });
    }
    let target = root.join(name);
    if target.is_dir() {
        progress(FetchEvent::Present);
        return Ok(target);
    }
    let downloads = root.join(format!("{name}.download"));
    std::fs::create_dir_all(&downloads).map_err(Error::io(&downloads, "create the folder"))?;
    for file in &recipe.files {
        download::download(name, file, &downloads, progress)?;
    }
    let staging = downloads.join("unpacked");
    if staging.exists() {
        std::fs::remove_dir_all(&staging)
            .map_err(Error::io(&staging, "clear what an earlier try left"))?;
    }
    std::fs::create_dir(&staging).map_err(Error::io(&staging, "create the folder"))?;
    for file in &recipe.files {
        let path = downloads.join(file.name());
        if file.is_archive() {
            progress(FetchEvent::Unpacking {
                file: file.name().into(),
            });
            unpack::unpack(name, &path, &staging)?;
        } else {
            let place = staging.join(file.name());
            std::fs::rename(&path, &place).map_err(Error::io(&place, "move the file"))?;
        }
    }
    std::fs::rename(&staging, &target).map_err(Error::io(&target, "move the unpacked folder"))?;
    std::fs::remove_dir_all(&downloads)
        .map_err(Error::io(&downloads, "remove the downloaded archives"))?;
    Ok(target)
}

#[cfg(test)]
mod tests;
