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

/// The CPU where no GPU could be opened, and a word on that in a build that knows GPUs.
fn fallback(error: &Error) -> (Device, Option<String>) {
    let told = || {
        format!(
            "no GPU is used, by run.device = \"auto\": {}",
            error.cause()
        )
    };
    (Device::Cpu, cfg!(feature = "cuda").then(told))
}

impl DeviceKind {
    /// Opens the device.
    ///
    /// # Errors
    /// When a GPU was asked for and cannot be had.
    pub fn open(self) -> Result<Device> {
        self.open_at(0).map(|(device, _)| device)
    }

    /// The same with the GPU of that number instead of the first, and why [`Self::Auto`] takes the CPU in a build that could take a GPU: a line for the user.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(self, ordinal: usize) -> Result<(Device, Option<String>)> {
        match self {
            Self::Auto => {
                Ok(gpu::open(ordinal).map_or_else(|error| fallback(&error), |gpu| (gpu, None)))
            }
            Self::Cpu => Ok((Device::Cpu, None)),
            Self::Cuda => Ok((gpu::open(ordinal)?, None)),
        }
    }
}
