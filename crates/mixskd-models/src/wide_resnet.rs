//! Wide residual networks (Zagoruyko & Komodakis 2016) in the form and under the names of the PyTorch port that distillation
//! papers share (`wrn_16_2`): pre-activation units, `conv1`, `block1 … block3` with `layer.N.{bn1,conv1,bn2,conv2,convShortcut}`,
//! the last norm `bn1`, `fc`. No dropout.
//!
//! Stages are the three blocks; the last norm and its ReLU belong to the third.

use candle_nn::VarBuilder;

use crate::blocks::{Window, norm_relu};
use crate::layers::{PreActivated, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// WRN-16-2.
pub(crate) const WRN_16_2: ModelSpec = ModelSpec {
    name: "cifar_wrn_16_2",
    summary: "wide ResNet, 16 layers, twice the width",
    input: 32,
    build: |config, vb| build(config, vb, 16, 2),
};

/// WRN-28-10.
pub(crate) const WRN_28_10: ModelSpec = ModelSpec {
    name: "cifar_wrn_28_10",
    summary: "wide ResNet, 28 layers, ten times the width",
    input: 32,
    build: |config, vb| build(config, vb, 28, 10),
};

struct WideResNet {
    /// Units in each block.
    units: usize,
    input: usize,
    stem: usize,
    channels: [usize; 3],
}

fn build(
    config: &ModelConfig,
    vb: VarBuilder,
    depth: usize,
    widen: usize,
) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let plan = WideResNet {
        units: (depth - 4) / 6,
        input: config.channels,
        stem: config.scaled(16),
        channels: [16, 32, 64].map(|base| config.scaled(base * widen)),
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

impl Plan for WideResNet {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        layers.push(Window::new(self.input, self.stem, 3).conv(vb.pp("conv1"))?);
        Ok(layers)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let block = vb.pp(format!("block{}", index + 1)).pp("layer");
        let output = self.channels[index];
        let mut input = match index {
            0 => self.stem,
            _ => self.channels[index - 1],
        };
        let mut layers = Sequential::new();
        for number in 0..self.units {
            let stride = if number == 0 && index > 0 { 2 } else { 1 };
            layers.push(unit(input, output, stride, &block.pp(number))?);
            input = output;
        }
        if index == 2 {
            layers.push(norm_relu(output, vb.pp("bn1"))?);
        }
        Ok(layers)
    }
}

fn unit(input: usize, output: usize, stride: usize, vb: &VarBuilder) -> Result<PreActivated> {
    let mut body = Sequential::new();
    let first = Window::new(input, output, 3).stride(stride);
    body.push(first.conv_norm(true, vb, ("conv1", "bn2"))?);
    body.push(Window::new(output, output, 3).conv(vb.pp("conv2"))?);
    let projection = (stride != 1 || input != output)
        .then(|| {
            let window = Window::new(input, output, 1).stride(stride);
            window.conv(vb.pp("convShortcut"))
        })
        .transpose()?;
    Ok(PreActivated {
        first: norm_relu(input, vb.pp("bn1"))?,
        body,
        projection,
    })
}
