//! The pre-activation ResNet-18 of small images, as self-distillation code uses it (class-wise self-knowledge distillation,
//! Yun et al. 2020, `CIFAR_ResNet18`): a stem with batch norm and ReLU, `layer1 … layer4` of pre-activation units, `linear`.
//!
//! Unlike He et al. 2016b, that code has no norm after the last unit, and neither has this network: a stage's map is the plain
//! sum of its last unit.

use candle_nn::VarBuilder;

use crate::blocks::{Window, norm_relu};
use crate::layers::{ConvInit, PreActivated, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// Pre-activation ResNet-18 for small images.
pub(crate) const CIFAR_PREACT_RESNET18: ModelSpec = ModelSpec {
    name: "cifar_preact_resnet18",
    summary: "pre-activation ResNet-18, 3×3 stem",
    input: 32,
    build,
};

struct PreActResNet {
    input: usize,
    stem_relu: bool,
    channels: [usize; 4],
}

fn build(config: &ModelConfig, vb: VarBuilder) -> Result<Box<dyn Backbone>> {
    let plan = PreActResNet {
        input: config.channels,
        stem_relu: config.stem_relu,
        channels: [64, 128, 256, 512].map(|base| config.scaled(base)),
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

/// PyTorch's default: the original code sets no initial values of its own.
fn window(input: usize, output: usize, kernel: usize) -> Window {
    Window::new(input, output, kernel).init(ConvInit::TorchDefault)
}

impl Plan for PreActResNet {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        let conv = window(self.input, self.channels[0], 3);
        layers.push(conv.conv_norm(self.stem_relu, &vb, ("conv1", "bn1"))?);
        Ok(layers)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let vb = vb.pp(format!("layer{}", index + 1));
        let output = self.channels[index];
        let mut layers = Sequential::new();
        for number in 0..2 {
            let (input, stride) = match (number, index) {
                (0, 1..) => (self.channels[index - 1], 2),
                _ => (output, 1),
            };
            layers.push(unit(input, output, stride, &vb.pp(number))?);
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        "linear"
    }
}

fn unit(input: usize, output: usize, stride: usize, vb: &VarBuilder) -> Result<PreActivated> {
    let mut body = Sequential::new();
    let first = window(input, output, 3).stride(stride);
    body.push(first.conv_norm(true, vb, ("conv1", "bn2"))?);
    body.push(window(output, output, 3).conv(vb.pp("conv2"))?);
    let projection = (stride != 1 || input != output)
        .then(|| {
            let window = window(input, output, 1).stride(stride);
            window.conv(vb.pp("shortcut").pp(0))
        })
        .transpose()?;
    Ok(PreActivated {
        first: norm_relu(input, vb.pp("bn1"))?,
        body,
        projection,
    })
}
