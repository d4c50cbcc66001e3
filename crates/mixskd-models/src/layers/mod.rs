//! The pieces networks are made of: channels-last, torchvision's parameter names, each knowing its own cost.

mod activation;
mod channels;
mod conv;
mod conv_norm;
mod linear;
mod norm;
mod norm_relu;
mod pool;
mod residual;
mod sequential;
mod squeeze_excite;

use candle_core::Tensor;

pub use channels::{Concat, ShuffleChannels, SliceChannels};
pub use conv::{Conv2d, ConvInit};
pub use conv_norm::ConvNorm;
pub use linear::Linear;
pub use norm::BatchNorm;
pub use norm_relu::NormRelu;
pub use pool::{AvgPool, MaxPool};
pub use residual::{PreActivated, Residual};
pub use sequential::Sequential;
pub use squeeze_excite::SqueezeExcite;

use crate::graph::{GraphBuilder, Value};
use crate::{Cost, Mode, Result, StageShape};

/// A module from one feature map to another.
pub trait Layer: Send + Sync {
    /// Applies the module; in [`Mode::Train`] batch norms normalise by the batch and update their running statistics.
    ///
    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, out_h, out_w, out]`
    ///
    /// # Errors
    /// When the input does not fit.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor>;

    /// Adds what one sample of shape `input` costs to `cost` and returns the output's shape.
    ///
    /// # Errors
    /// When the input does not fit.
    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape>;

    /// Adds the operations of [`Self::forward`] in [`Mode::Eval`] to `graph`, and returns what they make of `x`.
    ///
    /// # Errors
    /// When the channels of `x` do not fit.
    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value>;
}
