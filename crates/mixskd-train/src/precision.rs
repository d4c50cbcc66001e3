//! The arithmetic of a run: how feature maps are kept, and how floats are multiplied.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use mixskd_kernels::{has_gpu_kernels, set_tf32};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The arithmetic of convolutions and feature maps. Parameters, batch statistics, losses and the optimiser's state are float32 in each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    F32,
    /// float32, whose factors convolutions and matrix products cut to TensorFloat-32's ten bits. On a GPU.
    Tf32,
    /// Images and feature maps in bfloat16, convolutions summed in float32; products of float32, as those that make logits, as with [`Tf32`](Self::Tf32).
    /// On a GPU.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|p| p.name() == text);
        found.ok_or_else(|| "is none of f32, tf32, bf16".into())
    }
}

impl Precision {
    /// Sets the process to this arithmetic.
    ///
    /// # Errors
    /// When `device` knows float32 alone.
    pub(crate) fn apply(self, device: &Device) -> Result<()> {
        if self != Self::F32 && !has_gpu_kernels(device) {
            return Err(Error::Config {
                place: "run.precision".into(),
                message: format!("{} is a GPU's; the CPU computes in float32", self.name()),
                hint: Some("use run.precision=f32, or a build with `--features cuda` on a machine with an NVIDIA GPU".into()),
            });
        }
        // Finer than bfloat16, and what a GPU's tensor cores know of float.
        set_tf32(self != Self::F32);
        Ok(())
    }

    /// Every one.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The type of feature maps.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Images in the type of the feature maps they become.
    pub(crate) fn maps(self, images: &Tensor) -> Result<Tensor> {
        Ok(images.to_dtype(self.dtype())?)
    }
}
