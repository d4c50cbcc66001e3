//! Networks for other programs.

use std::path::Path;

use super::write::write_whole;
use crate::onnx::OnnxConfig;
use crate::weights::Metadata;
use crate::{Backbone, Error, Result};

/// Writes `backbone` as an ONNX file, whole or not at all; gives the file's length in bytes.
///
/// # Errors
/// As [`OnnxConfig::model`], and when the file cannot be written: an older file of that name stays.
pub fn export_onnx(
    path: &Path,
    backbone: &dyn Backbone,
    metadata: &Metadata,
    config: &OnnxConfig,
) -> Result<usize> {
    let model = config.model(backbone, metadata)?;
    write_whole(path, |file| {
        file.write_all(&model).map_err(|source| Error::File {
            path: path.into(),
            action: "write (is the disk full?)",
            source,
        })
    })?;
    Ok(model.len())
}
