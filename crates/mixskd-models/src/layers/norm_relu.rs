//! Batch norm and ReLU before a convolution: what pre-activation networks repeat.

use candle_core::Tensor;

use crate::graph::{Activation, GraphBuilder, Value};
use crate::layers::{BatchNorm, Layer};
use crate::{Cost, Mode, Result, StageShape};

/// `relu(norm(x))`.
#[derive(Debug)]
pub struct NormRelu(pub BatchNorm);

impl Layer for NormRelu {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.0.forward(x, mode, None, true)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        Ok(self.0.cost(input, cost))
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.0.trace(graph, x)?;
        Ok(graph.activation(y, Activation::Relu))
    }
}
