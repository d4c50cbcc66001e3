//! DenseNets (Huang et al. 2017): torchvision's DenseNet-121, and DenseNet-40-12 for small images.
//!
//! DenseNet-40-12 is the paper's first network: growth 12, no bottlenecks, no compression, 16 channels before the first block;
//! under the names of the common PyTorch port (`conv1`, `block1.layer.N.{bn1,conv1}`, `trans1.{bn1,conv1}`, …, `bn1`, `fc`).
//! No dropout.
//!
//! A stage is a dense block with the transition before it, as a residual stage opens with its stride; the last norm and its ReLU
//! belong to the last stage.

use candle_nn::VarBuilder;
use mixskd_kernels::Pool2dConfig;

use crate::blocks::{Window, norm_relu};
use crate::layers::{AvgPool, Concat, ConvInit, MaxPool, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// DenseNet-40 with growth 12.
pub(crate) const CIFAR_DENSENET40_12: ModelSpec = ModelSpec {
    name: "cifar_densenet40_12",
    summary: "DenseNet, 40 layers, growth 12",
    input: 32,
    build: |config, vb| build(config, vb, Kind::Cifar, 16, 12, &[12, 12, 12]),
};

/// torchvision's `densenet121`.
pub(crate) const DENSENET121: ModelSpec = ModelSpec {
    name: "densenet121",
    summary: "DenseNet-121, 7×7 stem with stride 2 and max pool (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Kind::ImageNet, 64, 32, &[6, 12, 24, 16]),
};

/// Inner channels of a bottleneck, in units of the growth.
const BOTTLENECK: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No bottlenecks, transitions keep the channels.
    Cifar,
    /// Bottlenecks, transitions halve the channels.
    ImageNet,
}

struct DenseNet {
    kind: Kind,
    input: usize,
    stem: usize,
    growth: usize,
    /// Layers in each block.
    counts: &'static [usize],
    channels: Vec<usize>,
}

fn build(
    config: &ModelConfig,
    vb: VarBuilder,
    kind: Kind,
    stem: usize,
    growth: usize,
    counts: &'static [usize],
) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let (stem, growth) = (config.scaled(stem), config.scaled(growth));
    let mut plan = DenseNet {
        kind,
        input: config.channels,
        stem,
        growth,
        counts,
        channels: Vec::new(),
    };
    for (index, count) in counts.iter().enumerate() {
        let entering = plan.entering(index);
        plan.channels.push(entering + count * growth);
    }
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

impl DenseNet {
    /// Channels that enter block `index`.
    fn entering(&self, index: usize) -> usize {
        match (index, self.kind) {
            (0, _) => self.stem,
            (_, Kind::Cifar) => self.channels[index - 1],
            (_, Kind::ImageNet) => (self.channels[index - 1] / 2).max(1),
        }
    }

    fn window(&self, input: usize, output: usize, kernel: usize) -> Window {
        Window::new(input, output, kernel).init(match self.kind {
            Kind::Cifar => ConvInit::FanOut,
            Kind::ImageNet => ConvInit::FanIn,
        })
    }

    /// Where the features are named.
    fn root<'a>(&self, vb: &VarBuilder<'a>) -> VarBuilder<'a> {
        match self.kind {
            Kind::Cifar => vb.clone(),
            Kind::ImageNet => vb.pp("features"),
        }
    }

    /// Norm, ReLU, 1×1 convolution, 2×2 mean.
    fn transition(&self, index: usize, layers: &mut Sequential, vb: &VarBuilder) -> Result<()> {
        let (vb, norm, conv) = match self.kind {
            Kind::Cifar => (vb.pp(format!("trans{index}")), "bn1", "conv1"),
            Kind::ImageNet => (vb.pp(format!("transition{index}")), "norm", "conv"),
        };
        let input = self.channels[index - 1];
        layers.push(norm_relu(input, vb.pp(norm))?);
        layers.push(
            self.window(input, self.entering(index), 1)
                .conv(vb.pp(conv))?,
        );
        layers.push(AvgPool(Pool2dConfig {
            kernel: 2,
            stride: 2,
            padding: 0,
        }));
        Ok(())
    }

    /// What one layer of a block appends to its input.
    fn growth(&self, input: usize, block: &VarBuilder, number: usize) -> Result<Sequential> {
        let mut layers = Sequential::new();
        match self.kind {
            Kind::Cifar => {
                let vb = block.pp("layer").pp(number);
                layers.push(norm_relu(input, vb.pp("bn1"))?);
                layers.push(self.window(input, self.growth, 3).conv(vb.pp("conv1"))?);
            }
            Kind::ImageNet => {
                let vb = block.pp(format!("denselayer{}", number + 1));
                let inner = BOTTLENECK * self.growth;
                layers.push(norm_relu(input, vb.pp("norm1"))?);
                let reduce = self.window(input, inner, 1);
                layers.push(reduce.conv_norm(true, &vb, ("conv1", "norm2"))?);
                layers.push(self.window(inner, self.growth, 3).conv(vb.pp("conv2"))?);
            }
        }
        Ok(layers)
    }
}

impl Plan for DenseNet {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        match self.kind {
            Kind::Cifar => layers.push(self.window(self.input, self.stem, 3).conv(vb.pp("conv1"))?),
            Kind::ImageNet => {
                let conv = self.window(self.input, self.stem, 7).stride(2);
                layers.push(conv.conv_norm(true, &vb.pp("features"), ("conv0", "norm0"))?);
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
        let vb = self.root(&vb);
        let mut layers = Sequential::new();
        if index > 0 {
            self.transition(index, &mut layers, &vb)?;
        }
        let (block, norm) = match self.kind {
            Kind::Cifar => ("block", "bn1"),
            Kind::ImageNet => ("denseblock", "norm5"),
        };
        let block = vb.pp(format!("{block}{}", index + 1));
        let mut input = self.entering(index);
        for number in 0..self.counts[index] {
            layers.push(Concat {
                left: Sequential::new(),
                right: self.growth(input, &block, number)?,
            });
            input += self.growth;
        }
        if index + 1 == self.counts.len() {
            layers.push(norm_relu(input, vb.pp(norm))?);
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        match self.kind {
            Kind::Cifar => "fc",
            Kind::ImageNet => "classifier",
        }
    }
}
