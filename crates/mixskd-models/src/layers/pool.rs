//! Pooling as a layer.

use candle_core::Tensor;
use mixskd_kernels::{Pool2dConfig, max_pool2d};

use crate::graph::{GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Mode, Result, StageShape};

/// Maximum over windows.
#[derive(Debug)]
pub struct MaxPool(pub Pool2dConfig);

impl Layer for MaxPool {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(max_pool2d(x, self.0)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = StageShape {
            h: self.0.out_size(input.h)?,
            w: self.0.out_size(input.w)?,
            c: input.c,
        };
        cost.activations += shape.elements();
        Ok(shape)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        Ok(graph.max_pool(x, self.0))
    }
}
