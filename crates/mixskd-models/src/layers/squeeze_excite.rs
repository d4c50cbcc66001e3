//! Squeeze and excitation.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use mixskd_kernels::{Conv2dConfig, global_avg_pool2d_as, linear, scale_channels, sigmoid, silu};

use crate::graph::{Activation, GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Mode, Result, StageShape};

/// `x · σ(fc2(silu(fc1(mean of x over its positions))))`, a factor for every channel of every sample (Hu et al. 2018, with
/// the EfficientNets' SiLU). Parameters `fc1.weight` `[squeezed, channel, 1, 1]`, `fc1.bias`, `fc2.weight`
/// `[channel, squeezed, 1, 1]`, `fc2.bias`, as torchvision's 1×1 convolutions; weights from `N(0, 2 / out)`, biases zero.
#[derive(Debug)]
pub struct SqueezeExcite {
    fc1: Dense,
    fc2: Dense,
}

/// A 1×1 convolution of one pixel.
#[derive(Debug)]
struct Dense {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl SqueezeExcite {
    /// Makes the layer for `channels` channels, `squeezed` in between.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    pub fn new(channels: usize, squeezed: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            fc1: Dense::new(channels, squeezed, vb.pp("fc1"))?,
            fc2: Dense::new(squeezed, channels, vb.pp("fc2"))?,
        })
    }
}

impl Dense {
    fn new(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        let init = Init::Randn {
            mean: 0.0,
            stdev: (2.0 / output as f64).sqrt(),
        };
        Ok(Self {
            name: vb.prefix(),
            weight: vb.get_with_hints((output, input, 1, 1), "weight", init)?,
            bias: vb.get_with_hints(output, "bias", Init::Const(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let weight = mode.parameter(&self.weight).flatten_from(1)?;
        Ok(linear(x, &weight, Some(&mode.parameter(&self.bias)))?)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let config = Conv2dConfig::default();
        graph.conv(x, &self.name, &self.weight, Some(&self.bias), config)
    }
}

impl Layer for SqueezeExcite {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let pooled = global_avg_pool2d_as(x, self.fc1.weight.dtype())?;
        let squeezed = silu(&self.fc1.forward(&pooled, mode)?)?;
        let factors = sigmoid(&self.fc2.forward(&squeezed, mode)?)?;
        Ok(scale_channels(x, &factors)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        for Dense { weight, bias, .. } in [&self.fc1, &self.fc2] {
            cost.macs += weight.elem_count() as u64;
            cost.parameters += (weight.elem_count() + bias.elem_count()) as u64;
            cost.activations += 2 * bias.elem_count() as u64;
        }
        cost.activations += input.elements() + input.c as u64;
        Ok(input)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let pooled = graph.global_avg_pool(x);
        let squeezed = self.fc1.trace(graph, pooled)?;
        let squeezed = graph.activation(squeezed, Activation::Silu);
        let factors = self.fc2.trace(graph, squeezed)?;
        let factors = graph.activation(factors, Activation::Sigmoid);
        graph.multiply(x, factors)
    }
}
