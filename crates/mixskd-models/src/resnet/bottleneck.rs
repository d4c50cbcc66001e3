//! The three-convolution residual block of ResNet-50, -101 and the ResNeXts.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::downsample;
use crate::blocks::Window;
use crate::graph::{GraphBuilder, Value};
use crate::layers::{ConvNorm, Layer};
use crate::{Cost, Mode, Result, StageShape};

/// 1×1 down to `inner` channels, 3×3 (with the stride) in `groups`, 1×1 up to `output`, plus the input or its projection.
pub(super) struct Bottleneck {
    reduce: ConvNorm,
    middle: ConvNorm,
    expand: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Bottleneck {
    pub(super) fn new(
        input: usize,
        (inner, groups): (usize, usize),
        output: usize,
        stride: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            reduce: Window::new(input, inner, 1).conv_norm(true, &vb, ("conv1", "bn1"))?,
            middle: Window::new(inner, inner, 3)
                .stride(stride)
                .groups(groups)
                .conv_norm(true, &vb, ("conv2", "bn2"))?,
            expand: Window::new(inner, output, 1).conv_norm(true, &vb, ("conv3", "bn3"))?,
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
