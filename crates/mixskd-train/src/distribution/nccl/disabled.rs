//! A build without NCCL.

use std::time::Duration;

use candle_core::Device;

use crate::distribution::{Collective, Place};
use crate::{Error, Result};

/// `link` itself, which does for the CPU.
pub(in crate::distribution) fn over(
    link: Box<dyn Collective>,
    place: &Place,
    device: &Device,
    _timeout: Duration,
) -> Result<Box<dyn Collective>> {
    if device.is_cpu() || place.world == 1 {
        return Ok(link);
    }
    Err(Error::Config {
        place: "distribution.enabled".into(),
        message: "gradients are on GPUs, and this build has no NCCL to bring them together".into(),
        hint: Some("build with `--features nccl`, or use run.device=cpu".into()),
    })
}
