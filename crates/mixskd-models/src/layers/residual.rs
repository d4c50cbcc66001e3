//! Sums of a body and its input.

use candle_core::Tensor;
use mixskd_kernels::add;

use crate::graph::{GraphBuilder, Value};
use crate::layers::{Conv2d, ConvNorm, Layer, NormRelu, Sequential};
use crate::{Cost, Mode, Result, StageShape};

/// `x + last(body(x))`, `last` a convolution with batch norm and no activation: the inverted residual of the MobileNets
/// (Sandler et al. 2018). The sum is taken in the batch norm's own pass.
pub struct Residual {
    /// Everything before the last convolution.
    pub body: Sequential,
    /// The last convolution and its batch norm.
    pub last: ConvNorm,
}

impl Layer for Residual {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.body.forward(x, mode)?;
        self.last.forward_residual(&y, x, mode)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = self.body.cost(input, cost)?;
        self.last.cost(shape, cost)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.body.trace(graph, x)?;
        self.last.trace_residual(graph, y, x)
    }
}

/// `body(a) + skip` with `a = relu(norm(x))`, where `skip` is `projection(a)` if there is a projection and `x` if not: the
/// residual unit of He et al. 2016b ("Identity mappings").
pub struct PreActivated {
    /// What body and projection see.
    pub first: NormRelu,
    /// From the activated input to the sum.
    pub body: Sequential,
    /// On the skip path, where the shape changes.
    pub projection: Option<Conv2d>,
}

impl Layer for PreActivated {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let activated = self.first.forward(x, mode)?;
        let y = self.body.forward(&activated, mode)?;
        Ok(match &self.projection {
            Some(projection) => add(&y, &projection.forward(&activated, mode)?)?,
            None => add(&y, x)?,
        })
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let activated = self.first.cost(input, cost)?;
        if let Some(projection) = &self.projection {
            projection.cost(activated, cost)?;
        }
        let shape = self.body.cost(activated, cost)?;
        cost.activations += shape.elements();
        Ok(shape)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let activated = self.first.trace(graph, x)?;
        let y = self.body.trace(graph, activated)?;
        let skip = match &self.projection {
            Some(projection) => projection.trace(graph, activated)?,
            None => x,
        };
        graph.add(y, skip)
    }
}
