//! Convolution with its weight.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::init::{FanInOut, Init, NonLinearity, NormalOrUniform};
use mixskd_kernels::{Conv2dConfig, add_bias, conv2d};

use crate::graph::{GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Error, Mode, Result, StageShape};

/// How a convolution's weight starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvInit {
    /// `N(0, 2 / fan_out)` with `fan_out = out · kernel²`: He et al. 2015, what torchvision's networks use.
    FanOut,
    /// `N(0, 2 / fan_in)` with `fan_in = in / groups · kernel²`: torchvision's DenseNets.
    FanIn,
    /// `U(±1/√fan_in)` with `fan_in = in / groups · kernel²`: PyTorch's default (`kaiming_uniform_` with `a = √5`).
    TorchDefault,
}

impl ConvInit {
    fn init(self, fan_in: usize) -> Init {
        let kaiming = |fan| Init::Kaiming {
            dist: NormalOrUniform::Normal,
            fan,
            non_linearity: NonLinearity::ReLU,
        };
        match self {
            Self::FanOut => kaiming(FanInOut::FanOut),
            Self::FanIn => kaiming(FanInOut::FanIn),
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

/// 2-D convolution; parameter `weight`, `[out, in / groups, kernel, kernel]`, and `bias`, `[out]`, where asked for.
#[derive(Debug)]
pub struct Conv2d {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
}

impl Conv2d {
    /// Makes the layer without a bias, its weight named below `vb`.
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
            bias: None,
            config,
        })
    }

    /// Makes the layer with a bias, both named below `vb`. The bias starts at zero, and with [`ConvInit::TorchDefault`] from
    /// the weight's distribution.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_bias(
        input: usize,
        output: usize,
        kernel: usize,
        config: Conv2dConfig,
        init: ConvInit,
        vb: VarBuilder,
    ) -> Result<Self> {
        let mut conv = Self::new(input, output, kernel, config, init, vb.clone())?;
        let fan_in = input / config.groups * kernel * kernel;
        let init = match init {
            ConvInit::TorchDefault => init.init(fan_in),
            ConvInit::FanOut | ConvInit::FanIn => Init::Const(0.0),
        };
        conv.bias = Some(vb.get_with_hints(output, "bias", init)?);
        Ok(conv)
    }
}

impl Conv2d {
    /// Weight and geometry, where there is no bias.
    pub(super) fn plain(&self) -> Option<(&Tensor, Conv2dConfig)> {
        self.bias.is_none().then_some((&self.weight, self.config))
    }

    /// Number, dtype and device of the output channels.
    pub(crate) fn outputs(&self) -> Result<(usize, DType, Device)> {
        let weight = &self.weight;
        Ok((weight.dim(0)?, weight.dtype(), weight.device().clone()))
    }

    /// Adds the difference of this convolution and another of its geometry to `graph`, as one convolution.
    pub(crate) fn trace_difference(
        &self,
        other: &Self,
        graph: &mut GraphBuilder,
        x: Value,
    ) -> Result<Value> {
        let weight = (&self.weight - &other.weight)?;
        let bias = match (&self.bias, &other.bias) {
            (Some(bias), Some(other)) => Some((bias - other)?),
            (Some(bias), None) => Some(bias.clone()),
            (None, Some(other)) => Some(other.neg()?),
            (None, None) => None,
        };
        let name = format!("{}-{}", self.name, other.name);
        graph.conv(x, &name, &weight, bias.as_ref(), self.config)
    }
}

impl Layer for Conv2d {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = conv2d(x, &mode.parameter(&self.weight), self.config)?;
        Ok(match &self.bias {
            Some(bias) => add_bias(&y, &mode.parameter(bias))?,
            None => y,
        })
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
        if let Some(bias) = &self.bias {
            cost.parameters += bias.elem_count() as u64;
            cost.activations += shape.elements();
        }
        Ok(shape)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        graph.conv(x, &self.name, &self.weight, self.bias.as_ref(), self.config)
    }
}
