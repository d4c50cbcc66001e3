//! ShuffleNetV2 (Ma et al. 2018): torchvision's, and the form for small images that distillation papers share.
//!
//! The latter (`ShuffleV2` of the representation-distillation code) has a 1×1 stem without pooling; names `conv1`, `bn1`,
//! `layer1 … layer3` with `conv1 … conv5`, `conv2`, `bn2`, `linear`. Widths 0.5, 1, 1.5 and 2 have the published numbers of channels;
//! others scale those of width 1 to even numbers.
//!
//! Stages are the three sequences of units; the last 1×1 convolution belongs to the third.

use candle_nn::VarBuilder;
use mixskd_kernels::Pool2dConfig;

use crate::blocks::Window;
use crate::layers::{Concat, ConvInit, MaxPool, Sequential, ShuffleChannels, SliceChannels};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// ShuffleNetV2 for small images.
pub(crate) const CIFAR_SHUFFLENETV2: ModelSpec = ModelSpec {
    name: "cifar_shufflenetv2",
    summary: "ShuffleNetV2, 1×1 stem without pooling",
    input: 32,
    build: |config, vb| build(config, vb, Kind::Cifar),
};

/// torchvision's `shufflenet_v2_x1_0`; at widths 0.5, 1.5 and 2 its `_x0_5`, `_x1_5` and `_x2_0`.
pub(crate) const SHUFFLENET_V2: ModelSpec = ModelSpec {
    name: "shufflenet_v2_x1_0",
    summary: "ShuffleNetV2 (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Kind::ImageNet),
};

/// Units in each stage.
const UNITS: [usize; 3] = [4, 8, 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cifar,
    ImageNet,
}

struct ShuffleNetV2 {
    kind: Kind,
    input: usize,
    stem: usize,
    /// Channels of each stage's units.
    units: [usize; 3],
    channels: [usize; 3],
}

fn build(config: &ModelConfig, vb: VarBuilder, kind: Kind) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let published = [
        (0.5, [48, 96, 192, 1024]),
        (1.0, [116, 232, 464, 1024]),
        (1.5, [176, 352, 704, 1024]),
        (2.0, [244, 488, 976, 2048]),
    ];
    let known = published.iter().find(|(width, _)| *width == config.width);
    let (stem, [first, second, third, last]) = if let Some((_, channels)) = known {
        (24, *channels)
    } else {
        let even = |base: usize| 2 * config.scaled(base / 2);
        (config.scaled(24), [116, 232, 464, 1024].map(even))
    };
    let plan = ShuffleNetV2 {
        kind,
        input: config.channels,
        stem,
        units: [first, second, third],
        channels: [first, second, last],
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

/// PyTorch's default: neither original sets initial values of its own.
fn window(input: usize, output: usize, kernel: usize) -> Window {
    Window::new(input, output, kernel).init(ConvInit::TorchDefault)
}

impl ShuffleNetV2 {
    /// Depthwise, norm, 1×1, norm, ReLU.
    fn shrink(&self, input: usize, output: usize, vb: &VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        let (vb, names) = match self.kind {
            Kind::Cifar => (vb.clone(), [("conv1", "bn1"), ("conv2", "bn2")]),
            Kind::ImageNet => (vb.pp("branch1"), [("0", "1"), ("2", "3")]),
        };
        let depthwise = depthwise(input).stride(2);
        layers.push(depthwise.conv_norm(false, &vb, names[0])?);
        layers.push(window(input, output, 1).conv_norm(true, &vb, names[1])?);
        Ok(layers)
    }

    /// 1×1, norm, ReLU, depthwise, norm, 1×1, norm, ReLU; at stride 1 of the second half of the input.
    fn transform(
        &self,
        (input, output): (usize, usize),
        stride: usize,
        vb: &VarBuilder,
    ) -> Result<Sequential> {
        let mut layers = Sequential::new();
        if stride == 1 {
            layers.push(SliceChannels {
                start: input,
                count: input,
            });
        }
        let (vb, names) = match (self.kind, stride) {
            (Kind::Cifar, 1) => (
                vb.clone(),
                [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")],
            ),
            (Kind::Cifar, _) => (
                vb.clone(),
                [("conv3", "bn3"), ("conv4", "bn4"), ("conv5", "bn5")],
            ),
            (Kind::ImageNet, _) => (vb.pp("branch2"), [("0", "1"), ("3", "4"), ("5", "6")]),
        };
        layers.push(window(input, output, 1).conv_norm(true, &vb, names[0])?);
        let depthwise = depthwise(output).stride(stride);
        layers.push(depthwise.conv_norm(false, &vb, names[1])?);
        layers.push(window(output, output, 1).conv_norm(true, &vb, names[2])?);
        Ok(layers)
    }

    /// One unit: the first of a stage halves the size, the others leave half of the channels as they are.
    fn unit(
        &self,
        layers: &mut Sequential,
        input: usize,
        output: usize,
        stride: usize,
        vb: &VarBuilder,
    ) -> Result<()> {
        let half = output / 2;
        let (left, entering) = if stride == 1 {
            let mut left = Sequential::new();
            left.push(SliceChannels {
                start: 0,
                count: half,
            });
            (left, half)
        } else {
            (self.shrink(input, half, vb)?, input)
        };
        let right = self.transform((entering, half), stride, vb)?;
        layers.push(Concat { left, right });
        layers.push(ShuffleChannels(2));
        Ok(())
    }
}

fn depthwise(channels: usize) -> Window {
    Window::depthwise(channels, 3).init(ConvInit::TorchDefault)
}

impl Plan for ShuffleNetV2 {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        match self.kind {
            Kind::Cifar => {
                let conv = window(self.input, self.stem, 1);
                layers.push(conv.conv_norm(true, &vb, ("conv1", "bn1"))?);
            }
            Kind::ImageNet => {
                let conv = window(self.input, self.stem, 3).stride(2);
                layers.push(conv.conv_norm(true, &vb.pp("conv1"), ("0", "1"))?);
                layers.push(MaxPool(Pool2dConfig {
                    kernel: 3,
                    stride: 2,
                    padding: 1,
                }));
            }
        }
        Ok(layers)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let sequence = match self.kind {
            Kind::Cifar => vb.pp(format!("layer{}", index + 1)),
            Kind::ImageNet => vb.pp(format!("stage{}", index + 2)),
        };
        let output = self.units[index];
        let mut input = match index {
            0 => self.stem,
            _ => self.units[index - 1],
        };
        let mut layers = Sequential::new();
        for number in 0..UNITS[index] {
            let stride = if number == 0 { 2 } else { 1 };
            self.unit(&mut layers, input, output, stride, &sequence.pp(number))?;
            input = output;
        }
        if index == 2 {
            let conv = window(output, self.channels[2], 1);
            layers.push(match self.kind {
                Kind::Cifar => conv.conv_norm(true, &vb, ("conv2", "bn2"))?,
                Kind::ImageNet => conv.conv_norm(true, &vb.pp("conv5"), ("0", "1"))?,
            });
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        match self.kind {
            Kind::Cifar => "linear",
            Kind::ImageNet => "fc",
        }
    }
}
