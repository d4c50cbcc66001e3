//! Reading a weights file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{SafeTensorError, SafeTensors};

use super::metadata::VERSION;
use crate::store::compare_shapes;
use crate::weights::Metadata;
use crate::{Backbone, Error, ParamStore, Result, Strictness};

/// The tensors of a file written by [`super::save`], on the CPU, and its metadata.
///
/// # Errors
/// When the file cannot be read, is no safetensors file, ends early, carries no metadata of mixskd, or holds a number that is not finite.
pub fn load(path: &Path) -> Result<(BTreeMap<String, Tensor>, Metadata)> {
    let bytes = file(path)?;
    let Some(strings) = strings(path, &bytes)? else {
        return Err(Error::Format {
            path: path.into(),
            message: "a safetensors file without metadata: which network it belongs to is unknown"
                .into(),
            hint: "`mixskd import` takes weights of other programs",
        });
    };
    if strings.contains_key(CHECKPOINT) {
        return Err(Error::Format {
            path: path.into(),
            message: "a checkpoint of a run, which also holds what training alone needs".into(),
            hint: "the newest weights are the run's model.safetensors; `mixskd import CHECKPOINT -o FILE` makes weights of this one",
        });
    }
    let metadata = if strings.contains_key(VERSION) {
        own_metadata(path, &strings)?
    } else {
        return Err(Error::Format {
            path: path.into(),
            message: format!("the metadata has no key `{VERSION}`"),
            hint: "is this a weights file that mixskd wrote? `mixskd import` takes those of other programs",
        });
    };
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
    let tensors = tensors.into_iter().collect();
    check_finite(path, &tensors)?;
    Ok((tensors, metadata))
}

/// Refuses weights that no network can be run with.
pub(super) fn check_finite(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in tensors {
        if tensor.dtype().is_int() {
            continue;
        }
        let values = tensor
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::Format {
                path: path.into(),
                message: format!(
                    "`{name}` holds {value}: a damaged file, or weights of a run that diverged"
                ),
                hint: "take another file",
            });
        }
    }
    Ok(())
}

/// A file's bytes.
pub(super) fn file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::File {
        path: path.into(),
        action: "read",
        source,
    })
}

/// What mixskd said in a file's metadata.
fn own_metadata(path: &Path, strings: &BTreeMap<String, String>) -> Result<Metadata> {
    Metadata::from_strings(strings).map_err(|message| {
        let (wrote, reads) = (
            strings.get(VERSION).map_or("", String::as_str),
            env!("CARGO_PKG_VERSION"),
        );
        let (message, hint) = if wrote == reads {
            (message, "a damaged file: copy or download it again")
        } else {
            (
                format!("{message} (mixskd {wrote} wrote the file, this is {reads})"),
                "read it with the mixskd that wrote it, or copy or download it again",
            )
        };
        Error::Format {
            path: path.into(),
            message,
            hint,
        }
    })
}

/// The tensors of any safetensors file, its metadata where mixskd wrote it, and whether it is a checkpoint of a run.
pub(super) fn safetensors(
    path: &Path,
    bytes: &[u8],
) -> Result<(BTreeMap<String, Tensor>, Option<Metadata>, bool)> {
    let strings = strings(path, bytes)?.unwrap_or_default();
    let metadata = strings
        .contains_key(VERSION)
        .then(|| own_metadata(path, &strings))
        .transpose()?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
    let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
    if strings.contains_key(CHECKPOINT) {
        return Ok((network_of(tensors), metadata, true));
    }
    Ok((tensors, metadata, false))
}

/// What a checkpoint of a run has in its metadata.
const CHECKPOINT: &str = "mixskd.checkpoint";

/// Of a checkpoint's tensors those of the network that would be kept: its moving average where it has one, and the rest as it trains.
fn network_of(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let part = |prefix: &str| {
        let of = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
        };
        tensors.iter().filter_map(of).collect::<BTreeMap<_, _>>()
    };
    let mut network = part("model/");
    network.extend(part("average/"));
    network
}

/// The metadata of a safetensors file, once the file is proved whole.
fn strings(path: &Path, bytes: &[u8]) -> Result<Option<BTreeMap<String, String>>> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| explain(path, &error))?;
    SafeTensors::deserialize(bytes).map_err(|error| explain(path, &error))?;
    let strings = header.metadata().clone();
    Ok(strings.map(|strings| strings.into_iter().collect()))
}

/// Builds the network that a file's metadata names and sets its weights, in float32 on `device`.
///
/// # Errors
/// As [`load`], and when the tensors do not fit the network: missing, extra and mis-shaped ones are listed.
pub fn build_from_file(path: &Path, device: &Device) -> Result<(Box<dyn Backbone>, Metadata)> {
    let (tensors, metadata) = load(path)?;
    // The network may be far larger than the file that names it: no memory is taken before the tensors are known to be there.
    let shapes = metadata.model.shapes().map_err(|error| Error::Format {
        path: path.into(),
        message: format!("names a network that cannot be made: {error}"),
        hint: "take another file, or the version of mixskd that wrote it",
    })?;
    let report = compare_shapes(&shapes, &tensors);
    if !report.is_exact() {
        return Err(Error::Weights {
            source_name: path.display().to_string(),
            report: Box::new(report),
        });
    }
    let store = ParamStore::blank(DType::F32, device);
    let backbone = metadata.model.build(store.builder())?;
    store.load(&tensors, Strictness::Exact)?;
    Ok((backbone, metadata))
}

fn explain(path: &Path, error: &SafeTensorError) -> Error {
    let (message, hint) = match error {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => (
            "the file is truncated: its header promises more bytes than there are".into(),
            "copy or download it again",
        ),
        SafeTensorError::HeaderTooSmall => {
            ("not a safetensors file: too short".into(), NOT_SAFETENSORS)
        }
        other => (format!("not a safetensors file ({other})"), NOT_SAFETENSORS),
    };
    Error::Format {
        path: path.into(),
        message,
        hint,
    }
}

const NOT_SAFETENSORS: &str = "`model.safetensors` in a run directory is such a file; `mixskd import` takes .pt and .pth files of PyTorch, too";
