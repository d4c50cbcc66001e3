//! The two-convolution residual block of ResNet-18 and -34.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::downsample;
use crate::blocks::Window;
use crate::graph::{GraphBuilder, Value};
use crate::layers::{ConvNorm, Layer};
use crate::{Cost, Mode, Result, StageShape};

/// `relu(x' + bn2(conv2(relu(bn1(conv1(x))))))`, x' the input or its projection.
pub(super) struct Basic {
    first: ConvNorm,
    last: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Basic {
    pub(super) fn new(input: usize, planes: usize, stride: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: Window::new(input, planes, 3).stride(stride).conv_norm(
                true,
                &vb,
                ("conv1", "bn1"),
            )?,
            last: Window::new(planes, planes, 3).conv_norm(true, &vb, ("conv2", "bn2"))?,
            downsample: downsample(input, planes, stride, &vb)?,
        })
    }
}

impl Layer for Basic {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.first.forward(x, mode)?;
        match &self.downsample {
            Some(projection) => self
                .last
                .forward_residual(&y, &projection.forward(x, mode)?, mode),
            None => self.last.forward_residual(&y, x, mode),
        }
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = self.first.cost(input, cost)?;
        if let Some(projection) = &self.downsample {
            projection.cost(input, cost)?;
        }
        self.last.cost(shape, cost)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.first.trace(graph, x)?;
        let residual = match &self.downsample {
            Some(projection) => projection.trace(graph, x)?,
            None => x,
        };
        self.last.trace_residual(graph, y, residual)
    }
}
