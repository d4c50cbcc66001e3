//! ResNet-18/34/50/101 (He et al. 2016) and ResNeXt-50-32x4d (Xie et al. 2017), in torchvision's form and names, with a CIFAR stem
//! beside the ImageNet one. Stages are `layer1 … layer4`.
//!
//! ResNet-50 is torchvision's "v1.5": a bottleneck's stride sits in its 3×3 convolution. The last batch norm of a block
//! starts at 1 like any other (`zero_init_residual` off).

mod basic;
mod bottleneck;
mod stem;

use candle_nn::VarBuilder;

use crate::blocks::Window;
use crate::layers::{ConvNorm, Sequential};
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

/// torchvision's `resnet101`.
pub(crate) const RESNET101: ModelSpec = ModelSpec {
    name: "resnet101",
    summary: "ResNet-101 v1.5, 7×7 stem with stride 2 and max pool (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Stem::ImageNet, Block::Bottleneck, [3, 4, 23, 3]),
};

/// torchvision's `resnext50_32x4d`.
pub(crate) const RESNEXT50_32X4D: ModelSpec = ModelSpec {
    name: "resnext50_32x4d",
    summary: "ResNeXt-50, 32 groups of 4 channels and more (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Stem::ImageNet, Block::Aggregated, [3, 4, 6, 3]),
};

/// Groups of a ResNeXt's 3×3 convolutions.
const GROUPS: usize = 32;

/// Kind of residual block.
#[derive(Debug, Clone, Copy)]
enum Block {
    Basic,
    Bottleneck,
    /// A bottleneck whose 3×3 convolution works in 32 groups, of 4 channels in the first stage; a width below 1 makes the groups
    /// narrower, not fewer.
    Aggregated,
}

impl Block {
    /// Output channels per plane.
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck | Self::Aggregated => 4,
        }
    }

    /// Groups of the 3×3 convolutions.
    fn groups(self) -> usize {
        match self {
            Self::Basic | Self::Bottleneck => 1,
            Self::Aggregated => GROUPS,
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
    /// What the paper scales: the stem gives `planes[0]`.
    planes: [usize; 4],
    /// Inner channels of each stage's blocks.
    inner: [usize; 4],
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
        inner: match block {
            Block::Basic | Block::Bottleneck => planes,
            Block::Aggregated => [4, 8, 16, 32].map(|base| GROUPS * config.scaled(base)),
        },
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
        let output = self.channels[index];
        let mut input = match index {
            0 => self.planes[0],
            _ => self.channels[index - 1],
        };
        let mut layers = Sequential::new();
        for number in 0..self.counts[index] {
            let vb = vb.pp(number);
            let stride = if number == 0 && index > 0 { 2 } else { 1 };
            match self.block {
                Block::Basic => layers.push(Basic::new(input, output, stride, vb)?),
                Block::Bottleneck | Block::Aggregated => {
                    let inner = (self.inner[index], self.block.groups());
                    layers.push(Bottleneck::new(input, inner, output, stride, vb)?);
                }
            }
            input = output;
        }
        Ok(layers)
    }
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
    let window = Window::new(input, output, 1).stride(stride);
    let projection = window.conv_norm(false, &vb.pp("downsample"), ("0", "1"))?;
    Ok(Some(projection))
}
