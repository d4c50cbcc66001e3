//! VGG-13 with batch norm (Simonyan & Zisserman 2015) for small images, in the form and under the names of the PyTorch port that
//! distillation papers share (`vgg13_bn`): `block0 … block4`, one linear `classifier`. Convolutions have a bias.
//!
//! Stages are blocks 0, 1, 2, and 3 with 4; a 2×2 maximum opens stages 1, 2 and 3. That port pools again before block 4 when the
//! image has 64 pixels; this network never does, so that what it is does not depend on its input.

use candle_nn::VarBuilder;
use mixskd_kernels::Pool2dConfig;

use crate::blocks::Window;
use crate::layers::{BatchNorm, ConvNorm, MaxPool, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// VGG-13-BN for small images.
pub(crate) const CIFAR_VGG13_BN: ModelSpec = ModelSpec {
    name: "cifar_vgg13_bn",
    summary: "VGG-13 with batch norm, one linear classifier",
    input: 32,
    build,
};

struct Vgg {
    input: usize,
    channels: [usize; 4],
}

fn build(config: &ModelConfig, vb: VarBuilder) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let plan = Vgg {
        input: config.channels,
        channels: [64, 128, 256, 512].map(|base| config.scaled(base)),
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

impl Plan for Vgg {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, _: VarBuilder) -> Result<Sequential> {
        Ok(Sequential::new())
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let output = self.channels[index];
        let input = match index {
            0 => self.input,
            _ => self.channels[index - 1],
        };
        let mut layers = Sequential::new();
        if index > 0 {
            layers.push(MaxPool(Pool2dConfig {
                kernel: 2,
                stride: 2,
                padding: 0,
            }));
        }
        block(&mut layers, input, output, &vb.pp(format!("block{index}")))?;
        if index == 3 {
            block(&mut layers, output, output, &vb.pp("block4"))?;
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        "classifier"
    }
}

/// Two convolutions with norm and ReLU. The port's sequences have a ReLU at 2, so the second convolution is 3.
fn block(layers: &mut Sequential, input: usize, output: usize, vb: &VarBuilder) -> Result<()> {
    for (input, place) in [(input, 0), (output, 3)] {
        layers.push(ConvNorm {
            conv: Window::new(input, output, 3).conv_with_bias(vb.pp(place))?,
            norm: BatchNorm::new(output, vb.pp(place + 1))?,
            relu: true,
        });
    }
    Ok(())
}
