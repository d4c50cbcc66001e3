//! Activations as layers, for networks whose activation batch norm does not apply itself.

use candle_core::Tensor;
use mixskd_kernels::{relu6, silu};

use crate::graph::{Activation, GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Mode, Result, StageShape};

impl Layer for Activation {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(match self {
            Self::Relu => x.relu()?,
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

/// `1 / (1 + e⁻ˣ)` as `(1 + tanh(x / 2)) / 2`, which overflows nowhere.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
}
