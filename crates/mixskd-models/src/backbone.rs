//! The two traits everything hangs on: a backbone in stages, and the alignment modules that replay its deeper ones.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_kernels::global_avg_pool2d_as;

use crate::graph::{GraphBuilder, Value};
use crate::layers::Linear;
use crate::{Cost, Error, Result, StageShape};

/// Whether batch norms use the batch's statistics or the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Normalise by the batch, and update the running statistics.
    Train,
    /// Normalise by the running statistics; nothing is changed, and no graph to the convolutions' and norms' parameters is
    /// kept, so that memory does not grow with depth. Gradients still reach an input that is a variable.
    Eval,
}

impl Mode {
    /// A parameter as this mode uses it: evaluation keeps no graph to it.
    pub(crate) fn parameter(self, parameter: &Tensor) -> Tensor {
        match self {
            Self::Train => parameter.clone(),
            Self::Eval => parameter.detach(),
        }
    }
}

/// A network cut into K stages and a classifier.
pub trait Backbone: Send + Sync {
    /// The K feature maps, shallowest first.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, channel]`; map k: `[batch, h_k, w_k, stage_channels[k]]`
    ///
    /// # Errors
    /// When the input does not fit.
    fn stages(&self, x: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        self.stages_in(x, 0..self.stage_channels().len(), mode)
    }

    /// The feature maps of some stages (0-based). Stage 0 begins with the stem on images; a later start takes the map of the stage
    /// before it, so that `stages_in(&maps[k], k + 1..K, mode)` goes on where `stages_in(x, 0..k + 1, mode)` stopped.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, channel]`, images for a start of 0, else `[batch, h, w, stage_channels[start − 1]]`
    ///
    /// # Errors
    /// When the input does not fit or there is no such stage.
    fn stages_in(&self, x: &Tensor, stages: Range<usize>, mode: Mode) -> Result<Vec<Tensor>>;

    /// The linear layer that [`Self::head`] ends in, after the pool.
    fn classifier(&self) -> &Linear;

    /// What the classifier sees of a last feature map: its mean over the pixels.
    ///
    /// # Shapes
    /// `[batch, height, width, channel]` → `[batch, channel]`, of the parameters' type: float32 where maps are bfloat16.
    ///
    /// # Errors
    /// When it is no map.
    fn pooled(&self, features: &Tensor) -> Result<Tensor> {
        let dtype = self.classifier().weight().dtype();
        Ok(global_avg_pool2d_as(features, dtype)?)
    }

    /// Logits from the last feature map: [`Self::pooled`], then the linear classifier.
    ///
    /// # Shapes
    /// `[batch, height, width, channel]` → `[batch, class]`
    ///
    /// # Errors
    /// When the feature map does not fit.
    fn head(&self, features: &Tensor) -> Result<Tensor>;

    /// Logits of a batch: all stages, then the head.
    ///
    /// # Shapes
    /// `[batch, height, width, channel]` → `[batch, class]`
    ///
    /// # Errors
    /// When the input does not fit.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        match self.stages(x, mode)?.last() {
            Some(features) => self.head(features),
            None => Err(Error::Shape {
                module: "backbone",
                what: "stages",
                wanted: "at least one".into(),
                got: "none".into(),
            }),
        }
    }

    /// Channels of the K feature maps; their number is K.
    fn stage_channels(&self) -> &[usize];

    /// A new alignment module ζ for the map of stage `stage` (0-based, below K − 1): the backbone's own stages
    /// `stage + 1 … K − 1` once more, with parameters of their own below `vb`, ending in a map of the last stage's shape.
    ///
    /// # Errors
    /// When there is no deeper stage or `vb` refuses a parameter.
    fn alignment(&self, stage: usize, vb: VarBuilder) -> Result<Box<dyn Alignment>>;

    /// Cost of one image of `input` = (height, width), with the shape of every stage.
    ///
    /// # Errors
    /// When the input is too small.
    fn cost(&self, input: (usize, usize)) -> Result<Cost>;

    /// Adds the operations of [`Self::forward`] in [`Mode::Eval`] to `graph`, and returns the logits.
    ///
    /// # Errors
    /// When the image's channels do not fit.
    fn trace(&self, graph: &mut GraphBuilder, image: Value) -> Result<Value>;
}

/// Turns a shallow stage's map into one of the last stage's shape (ζ_k of Yang et al. 2022).
pub trait Alignment: Send + Sync {
    /// Applies the module.
    ///
    /// # Shapes
    /// `[batch, h_k, w_k, c_k]` → `[batch, h_K, w_K, c_K]`
    ///
    /// # Errors
    /// When the input does not fit.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor>;

    /// Adds what one sample of shape `input` costs to `cost` and returns the output's shape.
    ///
    /// # Errors
    /// When the input does not fit.
    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape>;
}
