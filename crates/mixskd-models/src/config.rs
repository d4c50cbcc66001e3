//! Which network, and how large.

use std::collections::BTreeMap;

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::store::Shapes;
use crate::{Backbone, Error, Result, registry};

/// Largest width multiplier accepted: 16 times ResNet-18's width is already 2.9 billion parameters.
const MAX_WIDTH: f64 = 16.0;
// Beyond any real use. They are no bound on memory: a network of a file's metadata is therefore made only when the file holds its tensors,
// which is known from `ModelConfig::shapes`.
const MAX_CLASSES: usize = 1_000_000;
const MAX_CHANNELS: usize = 4096;
/// Largest side of the input, in pixels.
pub(crate) const MAX_INPUT: usize = 8192;

/// A network as plain data; [`ModelConfig::build`] makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name in [`registry::ALL`].
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// Channels of the input image.
    #[serde(default = "default_channels")]
    pub channels: usize,
    /// Width multiplier of every layer's channels, see [`ModelConfig::scaled`].
    #[serde(default = "default_width")]
    pub width: f64,
    /// Side of the square input, in pixels: for cost and prediction; the network itself takes any size.
    pub input: usize,
    /// Whether ReLU follows the stem's batch norm. The released MixSKD code's CIFAR network has none there: `false`
    /// reproduces it.
    #[serde(default = "default_stem_relu")]
    pub stem_relu: bool,
}

fn default_channels() -> usize {
    3
}

fn default_width() -> f64 {
    1.0
}

fn default_stem_relu() -> bool {
    true
}

impl ModelConfig {
    /// The network `name` at full width for `classes` classes of RGB images of its recommended size.
    ///
    /// # Errors
    /// When there is no such network.
    pub fn new(name: &str, classes: usize) -> Result<Self> {
        let spec = registry::find(name)?;
        Ok(Self {
            name: name.into(),
            classes,
            channels: default_channels(),
            width: default_width(),
            input: spec.input,
            stem_relu: default_stem_relu(),
        })
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field out of its range.
    pub fn validate(&self) -> Result<()> {
        registry::find(&self.name)?;
        let limits = [
            ("classes", self.classes, MAX_CLASSES),
            ("channels", self.channels, MAX_CHANNELS),
            ("input", self.input, MAX_INPUT),
        ];
        for (key, value, most) in limits {
            if !(1..=most).contains(&value) {
                return Err(Error::Config {
                    key,
                    message: format!("must be from 1 to {most}, got {value}"),
                });
            }
        }
        if !(self.width > 0.0 && self.width <= MAX_WIDTH) {
            return Err(Error::Config {
                key: "width",
                message: format!(
                    "must be above 0 and at most {MAX_WIDTH}, got {}",
                    self.width
                ),
            });
        }
        Ok(())
    }

    /// Builds the network, its parameters named below `vb` as torchvision names them.
    ///
    /// # Errors
    /// When a field is out of its range or `vb` refuses a parameter.
    pub fn build(&self, vb: VarBuilder) -> Result<Box<dyn Backbone>> {
        self.validate()?;
        (registry::find(&self.name)?.build)(self, vb)
    }

    /// Names and shapes of all tensors of the network, running statistics among them. It is built for that, but no memory is taken for its tensors.
    ///
    /// # Errors
    /// When a field is out of its range.
    pub fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>> {
        let shapes = Shapes::default();
        self.build(shapes.builder())?;
        Ok(shapes.take())
    }

    /// For networks whose stem has no ReLU to leave out.
    pub(crate) fn no_stem_option(&self) -> Result<()> {
        if self.stem_relu {
            return Ok(());
        }
        Err(Error::Config {
            key: "stem_relu",
            message: format!("is an option of the ResNets; {} has none", self.name),
        })
    }

    /// A layer of `base` channels at this width: `base · width` rounded to the nearest integer (halves up), at least 1.
    pub fn scaled(&self, base: usize) -> usize {
        ((base as f64 * self.width).round() as usize).max(1)
    }
}
