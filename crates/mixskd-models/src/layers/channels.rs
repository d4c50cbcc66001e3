//! Layers that join, take and shuffle channels.

use candle_core::Tensor;
use mixskd_kernels::{concat_channels, shuffle_channels, slice_channels};

use crate::graph::{GraphBuilder, Value};
use crate::layers::{Layer, Sequential};
use crate::{Cost, Error, Mode, Result, StageShape};

/// The channels of `left(x)`, then those of `right(x)`.
pub struct Concat {
    /// The first channels; no layers for the input itself.
    pub left: Sequential,
    /// The channels after them.
    pub right: Sequential,
}

impl Layer for Concat {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let left = self.left.forward(x, mode)?;
        Ok(concat_channels(&left, &self.right.forward(x, mode)?)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let left = self.left.cost(input, cost)?;
        let right = self.right.cost(input, cost)?;
        if (left.h, left.w) != (right.h, right.w) {
            return Err(Error::Shape {
                module: "concat",
                what: "right map",
                wanted: format!("{}×{} pixels", left.h, left.w),
                got: format!("{}×{}", right.h, right.w),
            });
        }
        let shape = StageShape {
            c: left.c + right.c,
            ..left
        };
        cost.activations += shape.elements();
        Ok(shape)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let left = self.left.trace(graph, x)?;
        let right = self.right.trace(graph, x)?;
        Ok(graph.concat(&[left, right]))
    }
}

/// `count` channels from channel `start`.
#[derive(Debug, Clone, Copy)]
pub struct SliceChannels {
    /// First channel taken.
    pub start: usize,
    /// Number of channels taken.
    pub count: usize,
}

impl Layer for SliceChannels {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(slice_channels(x, self.start, self.count)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = StageShape {
            c: self.count,
            ..input
        };
        cost.activations += shape.elements();
        Ok(shape)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        graph.slice(x, self.start, self.count)
    }
}

/// Interleaves this many equal groups of channels (Zhang et al., ShuffleNet, 2018).
#[derive(Debug, Clone, Copy)]
pub struct ShuffleChannels(pub usize);

impl Layer for ShuffleChannels {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(shuffle_channels(x, self.0)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        cost.activations += input.elements();
        Ok(input)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        graph.shuffle(x, self.0)
    }
}
