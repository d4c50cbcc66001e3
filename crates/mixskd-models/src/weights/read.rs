//! Reading a weights file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{SafeTensorError, SafeTensors};

use crate::weights::Metadata;
use crate::{Backbone, Error, ParamStore, Result, Strictness};

/// The tensors of a file written by [`super::save`], on the CPU, and its metadata.
///
/// # Errors
/// When the file cannot be read, is no safetensors file, ends early, or carries no metadata of mixskd.
pub fn load(path: &Path) -> Result<(BTreeMap<String, Tensor>, Metadata)> {
    let bytes = fs::read(path).map_err(|source| Error::File {
        path: path.into(),
        action: "read",
        source,
    })?;
    let refuse = |message: String, hint| Error::Format {
        path: path.into(),
        message,
        hint,
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| explain(path, &error))?;
    SafeTensors::deserialize(&bytes).map_err(|error| explain(path, &error))?;
    let Some(strings) = header.metadata() else {
        return Err(refuse(
            "a safetensors file without metadata: which network it belongs to is unknown".into(),
            "weights of other programs must be imported first",
        ));
    };
    let strings: BTreeMap<String, String> = strings.clone().into_iter().collect();
    let metadata = Metadata::from_strings(&strings)
        .map_err(|message| refuse(message, "is this a weights file that mixskd wrote?"))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
    Ok((tensors.into_iter().collect(), metadata))
}

/// Builds the network that a file's metadata names and sets its weights, in float32 on `device`.
///
/// # Errors
/// As [`load`], and when the tensors do not fit the network: missing, extra and mis-shaped ones are listed.
pub fn build_from_file(path: &Path, device: &Device) -> Result<(Box<dyn Backbone>, Metadata)> {
    let (tensors, metadata) = load(path)?;
    let store = ParamStore::blank(DType::F32, device);
    let backbone = metadata.model.build(store.builder())?;
    match store.load(&tensors, Strictness::Exact) {
        Ok(_) => Ok((backbone, metadata)),
        Err(Error::Weights { report, .. }) => Err(Error::Weights {
            source_name: path.display().to_string(),
            report,
        }),
        Err(other) => Err(other),
    }
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

const NOT_SAFETENSORS: &str = "`model.safetensors` in a run directory is such a file";
