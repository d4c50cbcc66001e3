//! Convolution with its weight.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use candle_nn::init::{FanInOut, Init, NonLinearity, NormalOrUniform};
use mixskd_kernels::{Conv2dConfig, conv2d};

use crate::graph::{GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Error, Mode, Result, StageShape};

/// How a convolution's weight starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvInit {
    /// `N(0, 2 / fan_out)` with `fan_out = out · kernel²`: He et al. 2015, what torchvision's networks use.
    FanOut,
    /// `U(±1/√fan_in)` with `fan_in = in / groups · kernel²`: PyTorch's default (`kaiming_uniform_` with `a = √5`).
    TorchDefault,
}

impl ConvInit {
    fn init(self, fan_in: usize) -> Init {
        match self {
            Self::FanOut => Init::Kaiming {
                dist: NormalOrUniform::Normal,
                fan: FanInOut::FanOut,
                non_linearity: NonLinearity::ReLU,
            },
            Self::TorchDefault => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                Init::Uniform {
                    lo: -bound,
                    up: bound,
                }
            }
        }
    }
}

/// 2-D convolution without bias; parameter `weight`, `[out, in / groups, kernel, kernel]`.
#[derive(Debug)]
pub struct Conv2d {
    name: String,
    weight: Tensor,
    config: Conv2dConfig,
}

impl Conv2d {
    /// Makes the layer, its weight named below `vb`.
    ///
    /// # Errors
    /// When `groups` does not divide the channels or `vb` refuses the weight.
    pub fn new(
        input: usize,
        output: usize,
        kernel: usize,
        config: Conv2dConfig,
        init: ConvInit,
        vb: VarBuilder,
    ) -> Result<Self> {
        if config.groups == 0 || !input.is_multiple_of(config.groups) {
            return Err(Error::Shape {
                module: "conv2d",
                what: "groups",
                wanted: format!("a divisor of the {input} input channels"),
                got: config.groups.to_string(),
            });
        }
        let input = input / config.groups;
        let shape = (output, input, kernel, kernel);
        let weight = vb.get_with_hints(shape, "weight", init.init(input * kernel * kernel))?;
        Ok(Self {
            name: vb.prefix(),
            weight,
            config,
        })
    }
}

impl Layer for Conv2d {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        Ok(conv2d(x, &mode.parameter(&self.weight), self.config)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let (out, in_group, kh, kw) = self.weight.dims4()?;
        if input.c != in_group * self.config.groups {
            return Err(Error::Shape {
                module: "conv2d",
                what: "input channels",
                wanted: (in_group * self.config.groups).to_string(),
                got: input.c.to_string(),
            });
        }
        let shape = StageShape {
            h: self.config.out_size(input.h, kh)?,
            w: self.config.out_size(input.w, kw)?,
            c: out,
        };
        cost.macs += shape.elements() * (in_group * kh * kw) as u64;
        cost.parameters += self.weight.elem_count() as u64;
        cost.activations += shape.elements();
        Ok(shape)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        graph.conv(x, &self.name, &self.weight, None, self.config)
    }
}
