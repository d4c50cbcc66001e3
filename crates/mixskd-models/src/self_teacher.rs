//! The self-teacher h, which sees all feature maps at once.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_kernels::{Conv2dConfig, join_channels};

use crate::layers::{Conv2d, ConvInit, Layer, Linear};
use crate::{Cost, Error, Mode, Result, StageShape};

/// Concatenates F_1 … F_K on channels, 1×1 convolution to F_K's channels, global average pool, linear classifier
/// (Yang et al. 2022, section 3.2). Parameters `conv.weight`, `fc.weight`, `fc.bias`, all at PyTorch's default
/// initialisation, as in the released code.
#[derive(Debug)]
pub struct SelfTeacher {
    maps: usize,
    conv: Conv2d,
    classifier: Linear,
}

impl SelfTeacher {
    /// Makes the module for `maps` feature maps (K) of `channels` channels each.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    pub fn new(maps: usize, channels: usize, classes: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            maps,
            conv: Conv2d::new(
                maps * channels,
                channels,
                1,
                Conv2dConfig::default(),
                ConvInit::TorchDefault,
                vb.pp("conv"),
            )?,
            classifier: Linear::new(channels, classes, vb.pp("fc"))?,
        })
    }

    /// The self-teacher's logits.
    ///
    /// # Shapes
    /// `features`: K maps `[batch, height, width, channel]`; result `[batch, class]`
    ///
    /// # Errors
    /// When the number of maps or a shape does not fit.
    pub fn forward(&self, features: &[Tensor], mode: Mode) -> Result<Tensor> {
        if features.len() != self.maps {
            return Err(Error::Shape {
                module: "self-teacher",
                what: "features",
                wanted: format!("{} maps", self.maps),
                got: format!("{} maps", features.len()),
            });
        }
        let all = join_channels(&features.iter().collect::<Vec<_>>())?;
        let fused = self.conv.forward(&all, mode)?;
        self.classifier.forward_pooled(&fused)
    }

    /// What one run costs on one sample whose last map has shape `last`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn cost(&self, last: StageShape) -> Result<Cost> {
        let mut cost = Cost::default();
        let all = StageShape {
            c: last.c * self.maps,
            ..last
        };
        cost.activations += all.elements();
        let fused = self.conv.cost(all, &mut cost)?;
        self.classifier.cost_pooled(fused, &mut cost);
        Ok(cost)
    }
}
