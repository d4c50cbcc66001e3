//! EfficientNet-B0 (Tan & Le 2019), torchvision's form and names; `--width` is its width multiplier, channels rounded to
//! multiples of 8.
//!
//! Stages are features 1 and 2, 3, 4 and 5, 6 to 8: each from the second on opens with a stride, and the last 1×1 convolution
//! belongs to the last.

use candle_nn::VarBuilder;

use crate::blocks::{Window, divisible};
use crate::graph::Activation;
use crate::layers::{Residual, Sequential, SqueezeExcite};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// torchvision's `efficientnet_b0`.
pub(crate) const EFFICIENTNET_B0: ModelSpec = ModelSpec {
    name: "efficientnet_b0",
    summary: "EfficientNet-B0 (torchvision's)",
    input: 224,
    build,
};

/// One group of blocks: features 1 to 7.
struct Group {
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
}

const fn group(
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
) -> Group {
    Group {
        expansion,
        kernel,
        stride,
        channels,
        blocks,
    }
}

/// Table 1 of the paper.
const GROUPS: [Group; 7] = [
    group(1, 3, 1, 16, 1),
    group(6, 3, 2, 24, 2),
    group(6, 5, 2, 40, 2),
    group(6, 3, 2, 80, 3),
    group(6, 5, 1, 112, 3),
    group(6, 5, 2, 192, 4),
    group(6, 3, 1, 320, 1),
];

/// The groups of each stage.
const STAGES: [std::ops::Range<usize>; 4] = [0..2, 2..3, 3..5, 5..7];

struct EfficientNet {
    input: usize,
    stem: usize,
    /// Channels of each group's blocks.
    groups: [usize; 7],
    channels: [usize; 4],
}

fn build(config: &ModelConfig, vb: VarBuilder) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let scaled = |base: usize| divisible(base as f64 * config.width);
    let groups = GROUPS.map(|group| scaled(group.channels));
    let plan = EfficientNet {
        input: config.channels,
        stem: scaled(32),
        channels: [groups[1], groups[2], groups[4], 4 * groups[6]],
        groups,
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

/// Convolution, norm, SiLU under `0` and `1` below `vb`.
fn activated(layers: &mut Sequential, window: Window, vb: &VarBuilder) -> Result<()> {
    layers.push(window.conv_norm(false, vb, ("0", "1"))?);
    layers.push(Activation::Silu);
    Ok(())
}

/// MBConv: expansion, depthwise, squeeze and excitation, projection.
fn block(
    layers: &mut Sequential,
    group: &Group,
    (input, output): (usize, usize),
    stride: usize,
    vb: &VarBuilder,
) -> Result<()> {
    let inner = divisible((input * group.expansion) as f64);
    let mut body = Sequential::new();
    let mut at = 0;
    if inner != input {
        activated(&mut body, Window::new(input, inner, 1), &vb.pp(at))?;
        at += 1;
    }
    let depthwise = Window::depthwise(inner, group.kernel).stride(stride);
    activated(&mut body, depthwise, &vb.pp(at))?;
    body.push(SqueezeExcite::new(
        inner,
        (input / 4).max(1),
        vb.pp(at + 1),
    )?);
    let last = Window::new(inner, output, 1).conv_norm(false, &vb.pp(at + 2), ("0", "1"))?;
    if stride == 1 && input == output {
        layers.push(Residual { body, last });
    } else {
        layers.push(body);
        layers.push(last);
    }
    Ok(())
}

impl Plan for EfficientNet {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        let window = Window::new(self.input, self.stem, 3).stride(2);
        activated(&mut layers, window, &vb.pp("features").pp(0))?;
        Ok(layers)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let vb = vb.pp("features");
        let mut layers = Sequential::new();
        for number in STAGES[index].clone() {
            let group = &GROUPS[number];
            let output = self.groups[number];
            let mut input = match number {
                0 => self.stem,
                _ => self.groups[number - 1],
            };
            for place in 0..group.blocks {
                let stride = if place == 0 { group.stride } else { 1 };
                let vb = vb.pp(number + 1).pp(place).pp("block");
                block(&mut layers, group, (input, output), stride, &vb)?;
                input = output;
            }
        }
        if index == 3 {
            let window = Window::new(self.groups[6], self.channels[3], 1);
            activated(&mut layers, window, &vb.pp(8))?;
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        "classifier.1"
    }
}
