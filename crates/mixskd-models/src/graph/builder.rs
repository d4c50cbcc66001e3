//! How layers say their nodes.

use candle_core::Tensor;
use mixskd_kernels::{Conv2dConfig, Pool2dConfig};

use super::{Activation, Affine, Conv, Graph, Linear, Node, Norm, Op, Value};
use crate::{Error, Result};

/// A graph in the making. Each verb adds one operation and returns its value.
///
/// Parameters are taken without their gradient history; names are the parameters' prefix (`layer1.0.conv1`).
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    channels: Vec<usize>,
}

impl GraphBuilder {
    /// No operation yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The image.
    pub fn input(&mut self, channels: usize) -> Value {
        self.push(Op::Input { channels }, &[], None, channels)
    }

    /// Channels of a value.
    pub fn channels(&self, value: Value) -> usize {
        self.channels[value.0]
    }

    /// A convolution.
    ///
    /// # Errors
    /// When the weight's channels do not fit `x`.
    pub fn conv(
        &mut self,
        x: Value,
        name: &str,
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: Conv2dConfig,
    ) -> Result<Value> {
        let (out, in_group, _, _) = weight.dims4()?;
        self.expect_channels("conv", x, in_group * config.groups)?;
        let conv = Conv {
            weight: weight.detach(),
            bias: bias.map(Tensor::detach),
            config,
            activation: None,
        };
        Ok(self.push(Op::Conv(conv), &[x], Some(name), out))
    }

    /// A batch norm.
    ///
    /// # Errors
    /// When its channels are not those of `x`.
    pub fn norm(&mut self, x: Value, name: &str, norm: Norm) -> Result<Value> {
        let channels = norm.weight.elem_count();
        self.expect_channels("norm", x, channels)?;
        let norm = Norm {
            weight: norm.weight.detach(),
            bias: norm.bias.detach(),
            mean: norm.mean.detach(),
            var: norm.var.detach(),
            eps: norm.eps,
        };
        Ok(self.push(Op::Norm(norm), &[x], Some(name), channels))
    }

    /// A scale and a shift per channel.
    ///
    /// # Errors
    /// When their number is not that of the channels of `x`.
    pub fn affine(
        &mut self,
        x: Value,
        name: &str,
        scale: &Tensor,
        shift: &Tensor,
    ) -> Result<Value> {
        let channels = scale.elem_count();
        self.expect_channels("affine", x, channels)?;
        let affine = Affine {
            scale: scale.detach(),
            shift: shift.detach(),
            activation: None,
        };
        Ok(self.push(Op::Affine(affine), &[x], Some(name), channels))
    }

    /// An element-wise function.
    pub fn activation(&mut self, x: Value, activation: Activation) -> Value {
        self.same(Op::Activation(activation), &[x])
    }

    /// The sum of two maps; the second may be of one pixel.
    ///
    /// # Errors
    /// When their channels differ.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        self.expect_channels("add", b, self.channels(a))?;
        Ok(self.same(Op::Add, &[a, b]))
    }

    /// `x` times a gate of its shape or of one pixel.
    ///
    /// # Errors
    /// When their channels differ.
    pub fn multiply(&mut self, x: Value, gate: Value) -> Result<Value> {
        self.expect_channels("multiply", gate, self.channels(x))?;
        Ok(self.same(Op::Multiply, &[x, gate]))
    }

    /// Maps beside each other on the channel axis.
    pub fn concat(&mut self, maps: &[Value]) -> Value {
        let channels = maps.iter().map(|&map| self.channels(map)).sum();
        self.push(Op::Concat, maps, None, channels)
    }

    /// Channels regrouped: those of a table of `groups` rows, read by columns.
    ///
    /// # Errors
    /// When `groups` does not divide the channels.
    pub fn shuffle(&mut self, x: Value, groups: usize) -> Result<Value> {
        let channels = self.channels(x);
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(misfit(
                "shuffle",
                format!("a multiple of {groups}"),
                channels,
            ));
        }
        Ok(self.same(Op::Shuffle { groups }, &[x]))
    }

    /// `channels` channels of `x` from `start` on.
    ///
    /// # Errors
    /// When `x` has fewer.
    pub fn slice(&mut self, x: Value, start: usize, channels: usize) -> Result<Value> {
        let had = self.channels(x);
        if start + channels > had || channels == 0 {
            return Err(misfit(
                "slice",
                format!("at least {}", start + channels),
                had,
            ));
        }
        Ok(self.push(Op::Slice { start, channels }, &[x], None, channels))
    }

    /// Maximum over windows.
    pub fn max_pool(&mut self, x: Value, config: Pool2dConfig) -> Value {
        self.same(Op::MaxPool(config), &[x])
    }

    /// Mean over windows.
    pub fn avg_pool(&mut self, x: Value, config: Pool2dConfig) -> Value {
        self.same(Op::AvgPool(config), &[x])
    }

    /// Mean over all pixels.
    pub fn global_avg_pool(&mut self, x: Value) -> Value {
        self.same(Op::GlobalAvgPool, &[x])
    }

    /// Mean of `x` over its pixels, weighted by the softmax of `scores`.
    ///
    /// # Errors
    /// When `scores` has more than one channel.
    pub fn attention_pool(&mut self, x: Value, scores: Value) -> Result<Value> {
        self.expect_channels("attention pool", scores, 1)?;
        Ok(self.same(Op::AttentionPool, &[x, scores]))
    }

    /// A fully connected layer on a map of one pixel.
    ///
    /// # Errors
    /// When the weight's columns are not the channels of `x`.
    pub fn linear(
        &mut self,
        x: Value,
        name: &str,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Value> {
        let (out, input) = weight.dims2()?;
        self.expect_channels("linear", x, input)?;
        let linear = Linear {
            weight: weight.detach(),
            bias: bias.map(Tensor::detach),
        };
        Ok(self.push(Op::Linear(linear), &[x], Some(name), out))
    }

    /// Softmax over the channels.
    pub fn softmax(&mut self, x: Value) -> Value {
        self.same(Op::Softmax, &[x])
    }

    /// The graph whose result is `output`.
    pub fn finish(self, output: Value) -> Graph {
        Graph {
            nodes: self.nodes,
            output,
        }
    }

    /// An operation whose result has the channels of its first input.
    fn same(&mut self, op: Op, inputs: &[Value]) -> Value {
        let channels = self.channels(inputs[0]);
        self.push(op, inputs, None, channels)
    }

    fn push(&mut self, op: Op, inputs: &[Value], name: Option<&str>, channels: usize) -> Value {
        let value = Value(self.nodes.len());
        self.nodes.push(Node {
            name: name.unwrap_or(op.kind()).into(),
            op,
            inputs: inputs.to_vec(),
        });
        self.channels.push(channels);
        value
    }

    fn expect_channels(&self, op: &'static str, x: Value, wanted: usize) -> Result<()> {
        match self.channels(x) {
            got if got == wanted => Ok(()),
            got => Err(misfit(op, wanted.to_string(), got)),
        }
    }
}

fn misfit(module: &'static str, wanted: String, got: usize) -> Error {
    Error::Shape {
        module,
        what: "input channels",
        wanted,
        got: got.to_string(),
    }
}
