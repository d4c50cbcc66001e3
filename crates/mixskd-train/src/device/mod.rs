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
    /// The first GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first NVIDIA GPU, or an error.
    Cuda,
}

/// The GPU that [`DeviceKind::Auto`] takes, or why it takes none.
pub(crate) fn describe_gpu() -> String {
    match gpu::open() {
        Ok(_) => "CUDA device 0".into(),
        Err(Error::Config { message, .. }) => format!("none: {message}"),
        Err(error) => format!("none: {error}"),
    }
}

impl DeviceKind {
    /// Opens the device.
    ///
    /// # Errors
    /// When a GPU was asked for and cannot be had.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Auto => Ok(gpu::open().unwrap_or(Device::Cpu)),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => gpu::open(),
        }
    }
}
