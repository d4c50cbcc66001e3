//! Writing a weights file, whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use crate::weights::{Metadata, timm};
use crate::{Error, Result};

/// Prefix of the backbone's tensors in a store that holds more than the backbone.
const BACKBONE: &str = "backbone.";

/// Writes the backbone as float32 safetensors under torchvision's names, atomically: a temporary file beside `path`,
/// flushed to disk, then renamed.
///
/// Entries below `backbone.` lose that prefix, and where there are such entries all others (branches, self-teacher, …) are
/// left out. Each batch norm gets PyTorch's `num_batches_tracked` counter (0: it has no effect at PyTorch's default
/// momentum), so that `load_state_dict(strict=True)` takes the file. The same tensors and metadata give the same bytes.
///
/// # Errors
/// When the file cannot be written (a full disk, no such folder): nothing is left behind, and an older file of that name stays.
/// When the metadata's lists do not have the model's lengths.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &Metadata) -> Result<()> {
    draft(path, tensors, metadata)?.put_in_place()
}

/// A file that is written and flushed to disk beside the place where it is to be. It is removed when it is dropped before it is put there.
#[derive(Debug)]
pub struct Draft {
    temporary: Temporary,
    path: PathBuf,
}

impl Draft {
    /// Renames it into its place, whatever lies there.
    ///
    /// # Errors
    /// When it cannot be renamed: what lies there stays.
    pub fn put_in_place(self) -> Result<()> {
        fs::rename(&self.temporary.0, &self.path).map_err(|source| Error::File {
            path: self.path.clone(),
            action: "rename into place",
            source,
        })
    }
}

/// [`save`], but for the last: the file is ready beside `path`, and what lies there is as it was. One at a time for a path.
///
/// # Errors
/// As [`save`].
pub fn draft(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &Metadata,
) -> Result<Draft> {
    write(path, &entries(tensors)?, metadata)
}

/// The same under timm's names, for the networks that timm has: `load_state_dict(strict=True)` of timm's network takes the file.
///
/// # Errors
/// As [`save`], and when timm has no such network.
pub fn save_timm(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &Metadata,
) -> Result<()> {
    let model = metadata.model.name.as_str();
    if !timm::NETWORKS.contains(&model) {
        return Err(Error::Config {
            key: "name",
            message: format!(
                "{model}: timm has no such network; it has {}",
                timm::NETWORKS.join(", ")
            ),
        });
    }
    let entries = entries(tensors)?.into_iter();
    let renamed = entries.map(|(name, entry)| (timm::name(model, &name).unwrap_or(name), entry));
    write(path, &renamed.collect(), metadata)?.put_in_place()
}

fn write(path: &Path, entries: &BTreeMap<String, Entry>, metadata: &Metadata) -> Result<Draft> {
    let refuse = |message: String| Error::Format {
        path: path.into(),
        message,
        hint: "nothing was written",
    };
    metadata.check().map_err(refuse)?;
    let strings = metadata
        .to_strings()
        .map_err(|error| refuse(error.to_string()))?;

    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!(strings));
    let mut offset = 0;
    for (name, entry) in entries {
        let end = offset + entry.bytes();
        header.insert(name.clone(), entry.describe(offset, end));
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    // The format wants the data aligned to eight bytes; spaces after the JSON do it.
    header.extend(std::iter::repeat_n(' ', header.len().wrapping_neg() % 8));

    write_beside(path, |file| {
        let write = |bytes: &[u8], file: &mut dyn Write| {
            file.write_all(bytes).map_err(|source| Error::File {
                path: path.into(),
                action: WRITE,
                source,
            })
        };
        write(&(header.len() as u64).to_le_bytes(), file)?;
        write(header.as_bytes(), file)?;
        for entry in entries.values() {
            entry.each_piece(&mut |bytes| write(bytes, file))?;
        }
        Ok(())
    })
}

const WRITE: &str = "write";

/// Writes a file whole or not at all: a temporary file beside `path`, flushed to disk, then renamed.
pub(super) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    write_beside(path, fill)?.put_in_place()
}

fn write_beside(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Draft> {
    let temporary = Temporary::beside(path)?;
    let fail = |action| {
        move |source| Error::File {
            path: path.into(),
            action,
            source,
        }
    };
    let file = File::create(&temporary.0).map_err(fail("create"))?;
    let mut file = BufWriter::new(file);
    fill(&mut file)?;
    let file = file
        .into_inner()
        .map_err(|error| fail(WRITE)(error.into_error()))?;
    file.sync_all().map_err(fail("flush"))?;
    Ok(Draft {
        temporary,
        path: path.into(),
    })
}

/// One tensor of the file.
enum Entry {
    Float(Tensor),
    /// A batch norm's counter of training steps.
    Counter,
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Float(tensor) => tensor.elem_count() * 4,
            Self::Counter => 8,
        }
    }

    fn describe(&self, start: usize, end: usize) -> Value {
        let (dtype, shape) = match self {
            Self::Float(tensor) => ("F32", tensor.dims()),
            Self::Counter => ("I64", &[][..]),
        };
        json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] })
    }

    /// Calls `work` with the values in little-endian order, piece after piece, so that a large tensor is not copied as a whole.
    fn each_piece(&self, work: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Self::Float(tensor) = self else {
            return work(&0i64.to_le_bytes());
        };
        let mut bytes = Vec::new();
        for piece in tensor.flatten_all()?.to_vec1::<f32>()?.chunks(1 << 16) {
            bytes.resize(size_of_val(piece), 0);
            for (to, value) in bytes.chunks_exact_mut(4).zip(piece) {
                to.copy_from_slice(&value.to_le_bytes());
            }
            work(&bytes)?;
        }
        Ok(())
    }
}

/// What goes into the file, under the names it has there.
fn entries(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Entry>> {
    let prefixed = tensors.keys().any(|name| name.starts_with(BACKBONE));
    let mut entries = BTreeMap::new();
    for (name, tensor) in tensors {
        let name = match (prefixed, name.strip_prefix(BACKBONE)) {
            (true, Some(rest)) => rest,
            (true, None) => continue,
            (false, _) => name,
        };
        if let Some(norm) = name.strip_suffix("running_var") {
            entries.insert(format!("{norm}num_batches_tracked"), Entry::Counter);
        }
        if !name.ends_with("num_batches_tracked") {
            let tensor = tensor.detach().to_dtype(DType::F32)?;
            entries.insert(name.into(), Entry::Float(tensor));
        }
    }
    Ok(entries)
}

/// A file that is removed when it goes out of scope; after the rename there is nothing left to remove.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(Error::File {
                path: path.into(),
                action: "write",
                source: std::io::Error::other("the path names no file"),
            });
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        Ok(Self(path.with_file_name(hidden)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Already renamed, or never made: then there is nothing to remove, and nobody to tell otherwise.
        let _ = fs::remove_file(&self.0);
    }
}
