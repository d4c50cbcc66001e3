//! Where tensors live: the GPU where the build and the machine have one, else the CPU.

#[cfg(not(feature = "cuda"))]
mod disabled;
#[cfg(feature = "cuda")]
mod enabled;

#[cfg(not(feature = "cuda"))]
use disabled as gpu;
#[cfg(feature = "cuda")]
use enabled as gpu;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which device to train on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// The first GPU where there is one, else the CPU. In a distributed run, the GPU of the process's local rank.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The same, or an error where there is none.
    Cuda,
}

/// The GPU that [`DeviceKind::Auto`] takes, or why it takes none.
pub(crate) fn describe_gpu() -> String {
    match gpu::open(0) {
        Ok(device) => gpu::name(&device).unwrap_or_else(|| "CUDA device 0".into()),
        Err(Error::Config { message, .. }) => format!("none: {message}"),
        Err(error) => format!("none: {error}"),
    }
}

impl DeviceKind {
    /// Why [`Self::Auto`] takes the CPU in a build that could take a GPU: a line for the user. `None` where it takes one, was not asked for, or the build knows no GPUs.
    pub fn fallback_notice(self, ordinal: usize) -> Option<String> {
        if self != Self::Auto || !cfg!(feature = "cuda") {
            return None;
        }
        let error = gpu::open(ordinal).err()?;
        Some(format!(
            "no GPU is used, by run.device = \"auto\": {}",
            error.cause()
        ))
    }

    /// Opens the device.
    ///
    /// # Errors
    /// When a GPU was asked for and cannot be had.
    pub fn open(self) -> Result<Device> {
        self.open_at(0)
    }

    /// The same with the GPU of that number instead of the first.
    pub(crate) fn open_at(self, ordinal: usize) -> Result<Device> {
        match self {
            Self::Auto => Ok(gpu::open(ordinal).unwrap_or(Device::Cpu)),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => gpu::open(ordinal),
        }
    }
}
