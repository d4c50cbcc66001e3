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
    let (device, notice) = DeviceKind::Auto.open_at(0)?;
    if let Some(notice) = notice {
        output::say(format_args!("note: {notice}"));
    }
    Ok(device)
}

/// Opens the weights file at `path`.
pub(crate) fn open(path: &Path, device: &Device) -> Result<Classifier> {
    let hint = "`mixskd train` writes model.safetensors into its run directory";
    Ok(Classifier::open(existing_file(path, hint)?, device)?)
}
