//! Checkpoints: everything a run needs to go on with the same bits, in one checksummed safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, files};

/// Version of the file's layout.
const FORMAT: u32 = 1;

/// State of a run between two epochs.
pub(crate) struct Checkpoint {
    /// Epochs that are done.
    pub(crate) epochs_done: usize,
    /// Parameters and buffers by name.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// The optimiser's velocities by parameter name.
    pub(crate) velocities: BTreeMap<String, Tensor>,
    /// What the method remembers beside its parameters, by name.
    pub(crate) method: BTreeMap<String, Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    version: String,
    epochs_done: usize,
    sha256: String,
}

const HEADER: &str = "mixskd.checkpoint";

impl Checkpoint {
    /// Writes the checkpoint: aside, synced, then renamed.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut raw = BTreeMap::new();
        for (prefix, tensors) in [
            ("model/", &self.tensors),
            ("velocity/", &self.velocities),
            ("method/", &self.method),
        ] {
            for (name, tensor) in tensors {
                raw.insert(
                    format!("{prefix}{name}"),
                    (tensor.dims().to_vec(), bytes(tensor)?),
                );
            }
        }
        let header = Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            epochs_done: self.epochs_done,
            sha256: digest(
                raw.iter()
                    .map(|(name, (_, data))| (name.as_str(), data.as_slice())),
            ),
        };
        let damaged = |message: String| Error::Checkpoint {
            path: path.to_path_buf(),
            message,
        };
        let header = serde_json::to_string(&header).map_err(|e| damaged(e.to_string()))?;
        let views = raw
            .iter()
            .map(|(name, (shape, data))| {
                Ok((
                    name.as_str(),
                    TensorView::new(Dtype::F32, shape.clone(), data)?,
                ))
            })
            .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| damaged(e.to_string()))?;
        let metadata = HashMap::from([(HEADER.to_string(), header)]);
        let data =
            safetensors::serialize(views, Some(metadata)).map_err(|e| damaged(e.to_string()))?;
        files::write_atomically(path, &data)
    }

    /// Reads a checkpoint and proves it whole.
    pub(crate) fn load(path: &Path, device: &Device) -> Result<Self> {
        let damaged = |message: String| Error::Checkpoint {
            path: path.to_path_buf(),
            message,
        };
        let data = std::fs::read(path).map_err(Error::file(path, "read"))?;
        let (_, metadata) = SafeTensors::read_metadata(&data)
            .map_err(|e| damaged(format!("is no whole safetensors file ({e})")))?;
        let header = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(HEADER))
            .ok_or_else(|| damaged("is not a mixskd checkpoint: its header is missing".into()))?;
        let header: Header = serde_json::from_str(header)
            .map_err(|e| damaged(format!("has a damaged header ({e})")))?;
        if header.format != FORMAT {
            return Err(damaged(format!(
                "has layout {}; this version reads layout {FORMAT}",
                header.format
            )));
        }
        let file = SafeTensors::deserialize(&data)
            .map_err(|e| damaged(format!("is no whole safetensors file ({e})")))?;
        let views = file.iter().collect::<BTreeMap<_, _>>();
        if digest(views.iter().map(|(name, view)| (*name, view.data()))) != header.sha256 {
            return Err(damaged(
                "its checksum does not match: the file was altered or torn".into(),
            ));
        }
        let mut checkpoint = Self {
            epochs_done: header.epochs_done,
            tensors: BTreeMap::new(),
            velocities: BTreeMap::new(),
            method: BTreeMap::new(),
        };
        for (name, view) in views {
            let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), device)?;
            match name.split_once('/') {
                Some(("model", name)) => checkpoint.tensors.insert(name.into(), tensor),
                Some(("velocity", name)) => checkpoint.velocities.insert(name.into(), tensor),
                Some(("method", name)) => checkpoint.method.insert(name.into(), tensor),
                _ => return Err(damaged(format!("holds an unknown tensor `{name}`"))),
            };
        }
        Ok(checkpoint)
    }
}

/// A tensor's values as little-endian float32.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = tensor
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect())
}

/// SHA-256 over names and data in sorted-name order.
fn digest<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (name, data) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(data);
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let tensor = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        Checkpoint {
            epochs_done: 3,
            tensors: BTreeMap::from([("a.weight".to_string(), tensor.clone())]),
            velocities: BTreeMap::from([("a.weight".to_string(), (&tensor * 2.0).unwrap())]),
            method: BTreeMap::from([("table".to_string(), (tensor * 3.0).unwrap())]),
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        sample().save(&path).unwrap();
        let back = Checkpoint::load(&path, &Device::Cpu).unwrap();
        assert_eq!(back.epochs_done, 3);
        let values = |c: &Checkpoint| {
            (
                c.tensors["a.weight"].to_vec2::<f32>().unwrap(),
                c.velocities["a.weight"].to_vec2::<f32>().unwrap(),
                c.method["table"].to_vec2::<f32>().unwrap(),
            )
        };
        assert_eq!(values(&back), values(&sample()));
    }

    #[test]
    fn every_torn_or_altered_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        sample().save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(
                Checkpoint::load(&path, &Device::Cpu).is_err(),
                "cut at {cut}"
            );
        }
        for byte in (0..whole.len()).rev().take(32) {
            let mut altered = whole.clone();
            altered[byte] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            let error = Checkpoint::load(&path, &Device::Cpu)
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains("checksum"), "{error}");
        }
    }
}
