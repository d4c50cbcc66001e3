//! A build without CUDA.

use candle_core::Device;

use crate::{Error, Result};

pub(super) fn open(_ordinal: usize) -> Result<Device> {
    Err(Error::Config {
        place: "run.device".into(),
        message: "this build knows no GPU".into(),
        hint: Some("build with `--features cuda`, or use run.device=cpu".into()),
    })
}

pub(super) fn name(_: &Device) -> Option<String> {
    None
}
