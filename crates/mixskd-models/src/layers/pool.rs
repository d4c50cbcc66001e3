//! Pooling as a layer.

use candle_core::Tensor;
use mixskd_kernels::{Pool2dConfig, avg_pool2d, max_pool2d};

use crate::graph::{GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Mode, Result, StageShape};

/// Maximum over windows.
#[derive(Debug)]
pub struct MaxPool(pub Pool2dConfig);

/// Mean over windows, padding counted.
#[derive(Debug)]
pub struct AvgPool(pub Pool2dConfig);

impl Layer for MaxPool {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(max_pool2d(x, self.0)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        pooled(self.0, input, cost)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        Ok(graph.max_pool(x, self.0))
    }
}

impl Layer for AvgPool {
    fn forward(&self, x: &Tensor, _: Mode) -> Result<Tensor> {
        Ok(avg_pool2d(x, self.0)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        pooled(self.0, input, cost)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        Ok(graph.avg_pool(x, self.0))
    }
}

fn pooled(config: Pool2dConfig, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
    let shape = StageShape {
        h: config.out_size(input.h)?,
        w: config.out_size(input.w)?,
        c: input.c,
    };
    cost.activations += shape.elements();
    Ok(shape)
}
