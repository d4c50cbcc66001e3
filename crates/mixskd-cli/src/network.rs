//! A trained network from its weights file.

use std::path::Path;

use candle_core::Device;
use mixskd_analyze::Classifier;
use mixskd_train::DeviceKind;

use crate::commands::shared::existing_file;
use crate::failure::Result;
use crate::output;

/// The GPU where there is one, else the CPU, with a word where a build for GPUs finds none.
pub(crate) fn device() -> Result<Device> {
    let kind = DeviceKind::Auto;
    if let Some(notice) = kind.fallback_notice(0) {
        output::say(format_args!("note: {notice}"));
    }
    Ok(kind.open()?)
}

/// Opens the weights file at `path`.
pub(crate) fn open(path: &Path, device: &Device) -> Result<Classifier> {
    let hint = "`mixskd train` writes model.safetensors into its run directory";
    Ok(Classifier::open(existing_file(path, hint)?, device)?)
}
