//! The three-convolution residual block of ResNet-50.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::{Block, conv_norm, downsample};
use crate::graph::{GraphBuilder, Value};
use crate::layers::{ConvNorm, Layer};
use crate::{Cost, Mode, Result, StageShape};

/// 1×1 down to `planes`, 3×3 (with the stride), 1×1 up to four times the planes, plus the input or its projection.
pub(super) struct Bottleneck {
    reduce: ConvNorm,
    middle: ConvNorm,
    expand: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Bottleneck {
    pub(super) fn new(input: usize, planes: usize, stride: usize, vb: VarBuilder) -> Result<Self> {
        let output = planes * Block::Bottleneck.expansion();
        Ok(Self {
            reduce: conv_norm((input, planes), 1, 1, true, &vb, ("conv1", "bn1"))?,
            middle: conv_norm((planes, planes), 3, stride, true, &vb, ("conv2", "bn2"))?,
            expand: conv_norm((planes, output), 1, 1, true, &vb, ("conv3", "bn3"))?,
            downsample: downsample(input, output, stride, &vb)?,
        })
    }
}

impl Layer for Bottleneck {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.reduce.forward(x, mode)?;
        let y = self.middle.forward(&y, mode)?;
        match &self.downsample {
            Some(projection) => {
                self.expand
                    .forward_residual(&y, &projection.forward(x, mode)?, mode)
            }
            None => self.expand.forward_residual(&y, x, mode),
        }
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = self.reduce.cost(input, cost)?;
        let shape = self.middle.cost(shape, cost)?;
        if let Some(projection) = &self.downsample {
            projection.cost(input, cost)?;
        }
        self.expand.cost(shape, cost)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.reduce.trace(graph, x)?;
        let y = self.middle.trace(graph, y)?;
        let residual = match &self.downsample {
            Some(projection) => projection.trace(graph, x)?,
            None => x,
        };
        self.expand.trace_residual(graph, y, residual)
    }
}
