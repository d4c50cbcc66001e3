//! What comes before a ResNet's first stage.

use candle_nn::VarBuilder;
use mixskd_kernels::Pool2dConfig;

use crate::Result;
use crate::blocks::Window;
use crate::layers::{MaxPool, Sequential};

/// The first convolution, and whether the image shrinks there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stem {
    /// 3×3 at stride 1, no pooling: the image keeps its size.
    Cifar,
    /// 7×7 at stride 2, then a 3×3 max pool at stride 2: a quarter of the side.
    ImageNet,
}

impl Stem {
    pub(super) fn build(
        self,
        input: usize,
        output: usize,
        relu: bool,
        vb: &VarBuilder,
    ) -> Result<Sequential> {
        let (kernel, stride) = match self {
            Self::Cifar => (3, 1),
            Self::ImageNet => (7, 2),
        };
        let mut layers = Sequential::new();
        let conv = Window::new(input, output, kernel).stride(stride);
        layers.push(conv.conv_norm(relu, vb, ("conv1", "bn1"))?);
        if matches!(self, Self::ImageNet) {
            layers.push(MaxPool(Pool2dConfig {
                kernel: 3,
                stride: 2,
                padding: 1,
            }));
        }
        Ok(layers)
    }
}
