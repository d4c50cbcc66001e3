//! MobileNetV2 (Sandler et al. 2018): torchvision's, and the form for small images that distillation papers share.
//!
//! The latter (`mobilenetV2` of the representation-distillation code) has a stem at stride 1, ReLU in place of ReLU6, and an expansion
//! convolution even where it does not expand; names `conv1`, `blocks.S.N.conv.*`, `conv2`, `classifier`. What those papers call
//! MobileNetV2 is its half width: `--width 0.5`.
//!
//! A stage is what runs at one resolution, the stem's own excepted (torchvision: features 1 to 3, 4 to 6, 7 to 13, 14 to 18), so it
//! opens with a stride; the last 1×1 convolution belongs to the last stage. Both originals drop out before the classifier at a
//! rate of their caller's; this network does not.

use candle_nn::VarBuilder;

use crate::blocks::{Window, divisible};
use crate::graph::Activation;
use crate::layers::{Residual, Sequential};
use crate::registry::ModelSpec;
use crate::staged::{Plan, Staged};
use crate::{Backbone, ModelConfig, Result};

/// MobileNetV2 for small images.
pub(crate) const CIFAR_MOBILENETV2: ModelSpec = ModelSpec {
    name: "cifar_mobilenetv2",
    summary: "MobileNetV2 with ReLU, stem at stride 1",
    input: 32,
    build: |config, vb| build(config, vb, Kind::Cifar),
};

/// torchvision's `mobilenet_v2`.
pub(crate) const MOBILENET_V2: ModelSpec = ModelSpec {
    name: "mobilenet_v2",
    summary: "MobileNetV2 (torchvision's)",
    input: 224,
    build: |config, vb| build(config, vb, Kind::ImageNet),
};

/// Expansion, channels and number of blocks of each group.
const GROUPS: [(usize, usize, usize); 7] = [
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
];

/// The groups of each stage.
const STAGES: [std::ops::Range<usize>; 4] = [0..2, 2..3, 3..5, 5..7];

/// Channels before the classifier.
const LAST: usize = 1280;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cifar,
    ImageNet,
}

struct MobileNetV2 {
    kind: Kind,
    input: usize,
    stem: usize,
    /// Channels of each group's blocks.
    groups: [usize; 7],
    channels: [usize; 4],
}

fn build(config: &ModelConfig, vb: VarBuilder, kind: Kind) -> Result<Box<dyn Backbone>> {
    config.no_stem_option()?;
    let scaled = |base: usize, width: f64| match kind {
        Kind::Cifar => ((base as f64 * width) as usize).max(1),
        Kind::ImageNet => divisible(base as f64 * width),
    };
    let groups = GROUPS.map(|(_, base, _)| scaled(base, config.width));
    let last = scaled(LAST, config.width.max(1.0));
    let plan = MobileNetV2 {
        kind,
        input: config.channels,
        stem: scaled(32, config.width),
        channels: [groups[1], groups[2], groups[4], last],
        groups,
    };
    Ok(Box::new(Staged::new(plan, config.classes, vb)?))
}

impl MobileNetV2 {
    /// Stride of a group's first block.
    fn stride(&self, group: usize) -> usize {
        match (group, self.kind) {
            (1, Kind::ImageNet) | (2 | 3 | 5, _) => 2,
            _ => 1,
        }
    }

    /// A convolution with norm and activation; `at` names both, or the sequence they are 0 and 1 of.
    fn activated(
        &self,
        layers: &mut Sequential,
        window: Window,
        vb: &VarBuilder,
        at: usize,
    ) -> Result<()> {
        match self.kind {
            Kind::Cifar => {
                let names = (at.to_string(), (at + 1).to_string());
                layers.push(window.conv_norm(true, vb, (&names.0, &names.1))?);
            }
            Kind::ImageNet => {
                layers.push(window.conv_norm(false, &vb.pp(at), ("0", "1"))?);
                layers.push(Activation::Relu6);
            }
        }
        Ok(())
    }

    /// The inverted residual, names below `vb`.
    fn block(
        &self,
        layers: &mut Sequential,
        (input, output): (usize, usize),
        stride: usize,
        expansion: usize,
        vb: &VarBuilder,
    ) -> Result<()> {
        let inner = input * expansion;
        // Places a convolution with norm and activation takes in the original's sequence.
        let step = if self.kind == Kind::Cifar { 3 } else { 1 };
        let mut body = Sequential::new();
        let mut at = 0;
        if self.kind == Kind::Cifar || expansion != 1 {
            self.activated(&mut body, Window::new(input, inner, 1), vb, at)?;
            at += step;
        }
        let depthwise = Window::depthwise(inner, 3).stride(stride);
        self.activated(&mut body, depthwise, vb, at)?;
        at += step;
        let names = (at.to_string(), (at + 1).to_string());
        let last = Window::new(inner, output, 1).conv_norm(false, vb, (&names.0, &names.1))?;
        if stride == 1 && input == output {
            layers.push(Residual { body, last });
        } else {
            layers.push(body);
            layers.push(last);
        }
        Ok(())
    }
}

impl Plan for MobileNetV2 {
    fn input_channels(&self) -> usize {
        self.input
    }

    fn stage_channels(&self) -> &[usize] {
        &self.channels
    }

    fn stem(&self, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        let window = Window::new(self.input, self.stem, 3);
        match self.kind {
            Kind::Cifar => self.activated(&mut layers, window, &vb.pp("conv1"), 0)?,
            Kind::ImageNet => {
                self.activated(&mut layers, window.stride(2), &vb.pp("features"), 0)?;
            }
        }
        Ok(layers)
    }

    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
        let mut layers = Sequential::new();
        for group in STAGES[index].clone() {
            let (expansion, _, count) = GROUPS[group];
            let before: usize = GROUPS[..group].iter().map(|(_, _, count)| count).sum();
            let output = self.groups[group];
            let mut input = match group {
                0 => self.stem,
                _ => self.groups[group - 1],
            };
            for number in 0..count {
                let stride = if number == 0 { self.stride(group) } else { 1 };
                let vb = match self.kind {
                    Kind::Cifar => vb.pp("blocks").pp(group).pp(number),
                    Kind::ImageNet => vb.pp("features").pp(1 + before + number),
                };
                self.block(
                    &mut layers,
                    (input, output),
                    stride,
                    expansion,
                    &vb.pp("conv"),
                )?;
                input = output;
            }
        }
        if index == 3 {
            let window = Window::new(self.groups[6], self.channels[3], 1);
            match self.kind {
                Kind::Cifar => self.activated(&mut layers, window, &vb.pp("conv2"), 0)?,
                Kind::ImageNet => self.activated(&mut layers, window, &vb.pp("features"), 18)?,
            }
        }
        Ok(layers)
    }

    fn head_name(&self) -> &'static str {
        match self.kind {
            Kind::Cifar => "classifier",
            Kind::ImageNet => "classifier.1",
        }
    }
}
