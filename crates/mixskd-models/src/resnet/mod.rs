//! ResNet-18/34/50 (He et al. 2016), in torchvision's form and names, with a CIFAR stem beside the ImageNet one.
//!
//! ResNet-50 is torchvision's "v1.5": a bottleneck's stride sits in its 3×3 convolution. The last batch norm of a block
//! starts at 1 like any other (`zero_init_residual` off).

mod basic;
mod bottleneck;
mod stem;

use candle_nn::VarBuilder;
use mixskd_kernels::Conv2dConfig;

use crate::layers::{BatchNorm, Conv2d, ConvInit, ConvNorm, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

use basic::Basic;
use bottleneck::Bottleneck;
use stem::Stem;

/// ResNet-18 for small images.
pub(crate) const CIFAR_RESNET18: ModelSpec = ModelSpec {
    name: "cifar_resnet18",
    summary: "ResNet-18, 3×3 stem without pooling",
    input: 32,
    build: |config, vb| build(config, vb, Stem::Cifar, Block::Basic, [2, 2, 2, 2]),
};

/// ResNet-34 for small images.
pub(crate) const CIFAR_RESNET34: ModelSpec = ModelSpec {
    name: "cifar_resnet34",
    summary: "ResNet-34, 3×3 stem without pooling",
    input: 32,
    build: |config, vb| build(config, vb, Stem::Cifar, Block::Basic, [3, 4, 6, 3]),
};

/// ResNet-50 for small images.
pub(crate) const CIFAR_RESNET50: ModelSpec = ModelSpec {
    name: "cifar_resnet50",
    summary: "ResNet-50, 3×3 stem without pooling",
    input: 32,
    build: |config, vb| build(config, vb, Stem::Cifar, Block::Bottleneck, [3, 4, 6, 3]),
};

/// torchvision's `resnet18`.
pub(crate) const RESNET18: ModelSpec = ModelSpec {
    name: "resnet18",
    summary: "ResNet-18, 7×7 stem with stride 2 and max pool (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Stem::ImageNet, Block::Basic, [2, 2, 2, 2]),
};

/// torchvision's `resnet34`.
pub(crate) const RESNET34: ModelSpec = ModelSpec {
    name: "resnet34",
    summary: "ResNet-34, 7×7 stem with stride 2 and max pool (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Stem::ImageNet, Block::Basic, [3, 4, 6, 3]),
};

/// torchvision's `resnet50`.
pub(crate) const RESNET50: ModelSpec = ModelSpec {
    name: "resnet50",
    summary: "ResNet-50 v1.5, 7×7 stem with stride 2 and max pool (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Stem::ImageNet, Block::Bottleneck, [3, 4, 6, 3]),
};

/// Kind of residual block.
#[derive(Debug, Clone, Copy)]
enum Block {
    Basic,
    Bottleneck,
}

impl Block {
    /// Output channels per plane.
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

struct ResNet {
    stem: Stem,
    stem_relu: bool,
    block: Block,
    /// Blocks in each stage.
    counts: [usize; 4],
    input: usize,
    /// Inner channels of each stage's blocks; the stem gives `planes[0]`.
    planes: [usize; 4],
    channels: [usize; 4],
}

fn build(
    config: &ModelConfig,
    vb: VarBuilder,
    stem: Stem,
    block: Block,
    counts: [usize; 4],
) -> Result<Box<dyn Backbone>> {
    let planes = [64, 128, 256, 512].map(|base| config.scaled(base));
    let plan = ResNet {
        stem,
        stem_relu: config.stem_relu,
        block,
        counts,
        input: config.channels,
        planes,
        channels: planes.map(|planes| planes * block.expansion()),
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

impl Plan for ResNet {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        self.stem
            .build(self.input, self.planes[0], self.stem_relu, &vb)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let vb = vb.pp(format!("layer{}", index + 1));
        let planes = self.planes[index];
        let mut input = match index {
            0 => self.planes[0],
            _ => self.channels[index - 1],
        };
        let mut layers = Sequential::new();
        for number in 0..self.counts[index] {
            let vb = vb.pp(number);
            let stride = if number == 0 && index > 0 { 2 } else { 1 };
            match self.block {
                Block::Basic => layers.push(Basic::new(input, planes, stride, vb)?),
                Block::Bottleneck => layers.push(Bottleneck::new(input, planes, stride, vb)?),
            }
            input = self.channels[index];
        }
        Ok(layers)
    }
}

/// A convolution and its batch norm under the names `conv` and `norm`; padding keeps the size at stride 1.
fn conv_norm(
    channels: (usize, usize),
    kernel: usize,
    stride: usize,
    relu: bool,
    vb: &VarBuilder,
    (conv, norm): (&str, &str),
) -> Result<ConvNorm> {
    let config = Conv2dConfig {
        stride,
        padding: kernel / 2,
        ..Conv2dConfig::default()
    };
    let (input, output) = channels;
    Ok(ConvNorm {
        conv: Conv2d::new(input, output, kernel, config, ConvInit::FanOut, vb.pp(conv))?,
        norm: BatchNorm::new(output, vb.pp(norm))?,
        relu,
    })
}

/// The projection on a block's skip path, where the shape changes.
fn downsample(
    input: usize,
    output: usize,
    stride: usize,
    vb: &VarBuilder,
) -> Result<Option<ConvNorm>> {
    if stride == 1 && input == output {
        return Ok(None);
    }
    let vb = vb.pp("downsample");
    conv_norm((input, output), 1, stride, false, &vb, ("0", "1")).map(Some)
}
