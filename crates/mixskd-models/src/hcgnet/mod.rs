//! HCGNet-A1 (Yang et al., "Gated Convolutional Networks with Hybrid Connectivity for Image Classification", AAAI 2020): dense
//! blocks whose layers gate what they append. The authors' names (`features.HybridBlock1.SMG1.*`, `features.Transition1.*`,
//! `classifier`); their DropBlock, which starts at a rate of zero, is left out. Growth rates scale to multiples of 4, which the
//! grouped convolution needs.
//!
//! A stage is a hybrid block with the transition before it; the last norm and its ReLU belong to the third.

mod gate;

use candle_nn::VarBuilder;

use crate::blocks::{Window, norm_relu};
use crate::layers::{Concat, ConvInit, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

use gate::Gate;

/// HCGNet-A1.
pub(crate) const CIFAR_HCGNET_A1: ModelSpec = ModelSpec {
    name: "cifar_hcgnet_a1",
    summary: "HCGNet-A1, dense blocks with gates",
    input: 32,
    build,
};

/// Layers in each block.
const LAYERS: usize = 8;
/// Inner channels of a layer, in units of the growth.
const BOTTLENECK: usize = 4;
/// Groups of a layer's 3×3 convolution.
const GROUPS: usize = 4;

struct HcgNet {
    input: usize,
    growth: [usize; 3],
    channels: [usize; 3],
}

fn build(config: &ModelConfig, vb: VarBuilder) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let growth = [12, 24, 36].map(|base| GROUPS * config.scaled(base / GROUPS));
    let mut plan = HcgNet {
        input: config.channels,
        growth,
        channels: [0; 3],
    };
    for (index, growth) in growth.into_iter().enumerate() {
        plan.channels[index] = plan.entering(index) + LAYERS * growth;
    }
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

/// PyTorch's default: the original sets no initial values of its own.
fn window(input: usize, output: usize, kernel: usize) -> Window {
    Window::new(input, output, kernel).init(ConvInit::TorchDefault)
}

/// Norm, ReLU, convolution: `norm` and `conv` below `vb`.
fn push(layers: &mut Sequential, window: Window, vb: VarBuilder) -> Result<()> {
    layers.push(norm_relu(window.input, vb.pp("norm"))?);
    layers.push(window.conv(vb.pp("conv"))?);
    Ok(())
}

impl HcgNet {
    /// Channels that enter block `index`.
    fn entering(&self, index: usize) -> usize {
        match index {
            0 => 2 * self.growth[0],
            _ => self.channels[index - 1] / 2,
        }
    }
}

/// 1×1 to the middle between both numbers of channels, 3×3 with stride 2, gate.
fn transition(layers: &mut Sequential, input: usize, output: usize, vb: &VarBuilder) -> Result<()> {
    let middle = input - (input - output) / 2;
    push(layers, window(input, middle, 1), vb.pp("conv1_1x1"))?;
    let halving = window(middle, output, 3).stride(2);
    push(layers, halving, vb.pp("conv2_3x3"))?;
    layers.push(Gate::new(output, 4, vb)?);
    Ok(())
}

/// What a layer of a block appends: 1×1, grouped 3×3, gate.
fn layer(input: usize, growth: usize, vb: &VarBuilder) -> Result<Sequential> {
    let inner = BOTTLENECK * growth;
    let mut layers = Sequential::new();
    push(&mut layers, window(input, inner, 1), vb.pp("conv1_1x1"))?;
    let grouped = window(inner, growth, 3).groups(GROUPS);
    push(&mut layers, grouped, vb.pp("conv2_3x3"))?;
    layers.push(Gate::new(growth, 2, vb)?);
    Ok(layers)
}

impl Plan for HcgNet {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        let conv = window(self.input, self.entering(0), 3);
        layers.push(conv.conv(vb.pp("features").pp("conv0"))?);
        Ok(layers)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let vb = vb.pp("features");
        let mut layers = Sequential::new();
        let mut input = self.entering(index);
        if index > 0 {
            let vb = vb.pp(format!("Transition{index}"));
            transition(&mut layers, self.channels[index - 1], input, &vb)?;
        }
        let block = vb.pp(format!("HybridBlock{}", index + 1));
        for number in 1..=LAYERS {
            layers.push(Concat {
                left: Sequential::new(),
                right: layer(input, self.growth[index], &block.pp(format!("SMG{number}")))?,
            });
            input += self.growth[index];
        }
        if index == 2 {
            layers.push(norm_relu(input, vb.pp("norm5"))?);
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        "classifier"
    }
}
