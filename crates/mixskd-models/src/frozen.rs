//! A backbone that training leaves as it is.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::graph::{GraphBuilder, Value};
use crate::layers::Linear;
use crate::{Alignment, Backbone, Cost, Mode, Result};

/// A backbone whose stages run in [`Mode::Eval`] whatever is asked for: batch norms use the running statistics and leave them alone, and
/// no gradient reaches a parameter before the classifier. The head learns as ever, and so do alignment modules, which have parameters
/// of their own.
///
/// A batch's statistics would drift from those that the weights were trained with although no weight moves, and the
/// network that is kept would not be the one that came.
pub struct Frozen(Box<dyn Backbone>);

impl Frozen {
    /// Freezes the stages of `backbone`.
    pub fn new(backbone: Box<dyn Backbone>) -> Self {
        Self(backbone)
    }
}

impl Backbone for Frozen {
    fn stages_in(&self, x: &Tensor, stages: Range<usize>, _: Mode) -> Result<Vec<Tensor>> {
        self.0.stages_in(x, stages, Mode::Eval)
    }

    fn classifier(&self) -> &Linear {
        self.0.classifier()
    }

    fn pooled(&self, features: &Tensor) -> Result<Tensor> {
        self.0.pooled(features)
    }

    fn head(&self, features: &Tensor) -> Result<Tensor> {
        self.0.head(features)
    }

    fn stage_channels(&self) -> &[usize] {
        self.0.stage_channels()
    }

    fn alignment(&self, stage: usize, vb: VarBuilder) -> Result<Box<dyn Alignment>> {
        self.0.alignment(stage, vb)
    }

    fn cost(&self, input: (usize, usize)) -> Result<Cost> {
        self.0.cost(input)
    }

    fn trace(&self, graph: &mut GraphBuilder, image: Value) -> Result<Value> {
        self.0.trace(graph, image)
    }
}
