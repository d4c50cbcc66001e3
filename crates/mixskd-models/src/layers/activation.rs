//! Activations as layers, for networks whose activation batch norm does not apply itself.

use candle_core::Tensor;
use mixskd_kernels::{relu, relu6, sigmoid, silu};

use crate::graph::{Activation, GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Mode, Result, StageShape};

impl Layer for Activation {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(match self {
            Self::Relu => relu(x)?,
            Self::Relu6 => relu6(x)?,
            Self::Silu => silu(x)?,
            Self::Sigmoid => sigmoid(x)?,
        })
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        cost.activations += input.elements();
        Ok(input)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        Ok(graph.activation(x, *self))
    }
}
