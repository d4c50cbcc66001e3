//! Convolution, batch norm and activation: the unit most networks repeat.

use candle_core::Tensor;

use crate::graph::{Activation, GraphBuilder, Value};
use crate::layers::{BatchNorm, Conv2d, Layer};
use crate::{Cost, Mode, Result, StageShape};

/// `act(norm(conv(x)))`, `act` ReLU or nothing.
///
/// The two parts come ready-made, since networks name them in different ways (`conv1`/`bn1`, `downsample.0`/`.1`).
#[derive(Debug)]
pub struct ConvNorm {
    /// The convolution.
    pub conv: Conv2d,
    /// The normalisation after it.
    pub norm: BatchNorm,
    /// Whether ReLU follows.
    pub relu: bool,
}

impl ConvNorm {
    /// Like [`Layer::forward`], adding `residual` before the activation.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor, mode: Mode) -> Result<Tensor> {
        self.run(x, Some(residual), mode)
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        if let (Mode::Train, Some((weight, config))) = (mode, self.conv.plain()) {
            return self
                .norm
                .forward_conv(x, weight, config, residual, self.relu);
        }
        let y = self.conv.forward(x, mode)?;
        self.norm.forward(&y, mode, residual, self.relu)
    }
}

impl ConvNorm {
    /// Like [`Layer::trace`], adding `residual` before the activation.
    ///
    /// # Errors
    /// When the channels do not fit.
    pub fn trace_residual(
        &self,
        graph: &mut GraphBuilder,
        x: Value,
        residual: Value,
    ) -> Result<Value> {
        let y = self.conv.trace(graph, x)?;
        let y = self.norm.trace(graph, y)?;
        let y = graph.add(y, residual)?;
        Ok(self.trace_activation(graph, y))
    }

    fn trace_activation(&self, graph: &mut GraphBuilder, x: Value) -> Value {
        if self.relu {
            graph.activation(x, Activation::Relu)
        } else {
            x
        }
    }
}

impl Layer for ConvNorm {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.run(x, None, mode)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = self.conv.cost(input, cost)?;
        Ok(self.norm.cost(shape, cost))
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.conv.trace(graph, x)?;
        let y = self.norm.trace(graph, y)?;
        Ok(self.trace_activation(graph, y))
    }
}
