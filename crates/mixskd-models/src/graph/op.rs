//! The operations of a graph and their parameters.

use candle_core::{DType, Tensor};
use mixskd_kernels::{Conv2dConfig, Pool2dConfig};

use crate::Result;

/// What a node does. Maps are channels-last.
#[derive(Debug, Clone)]
pub enum Op {
    /// The image.
    Input {
        /// Its channels.
        channels: usize,
    },
    /// Convolution, then bias, residual (a second input) and activation, each where there is one.
    Conv(Conv),
    /// Batch normalisation by running statistics.
    Norm(Norm),
    /// Scale and shift per channel, then an activation where there is one.
    Affine(Affine),
    /// An element-wise function.
    Activation(Activation),
    /// Sum of two maps: of one shape, or the second of one pixel, its numbers then added to each channel.
    Add,
    /// Product of a map and a gate: of its shape, or of one pixel, each channel then scaled by one number.
    Multiply,
    /// All inputs beside each other on the channel axis.
    Concat,
    /// Channels as a table of `groups` rows, transposed (ShuffleNet's shuffle).
    Shuffle {
        /// Number of groups.
        groups: usize,
    },
    /// Channels `start … start + channels − 1`.
    Slice {
        /// First channel kept.
        start: usize,
        /// Number of channels kept.
        channels: usize,
    },
    /// Maximum over windows.
    MaxPool(Pool2dConfig),
    /// Mean over windows, zeros of the padding counted.
    AvgPool(Pool2dConfig),
    /// Mean over all pixels: a map of one pixel.
    GlobalAvgPool,
    /// Mean over all pixels of the first map, weighted by the softmax over the pixels of the second, which has one channel: a map of
    /// one pixel.
    AttentionPool,
    /// Fully connected layer on a map of one pixel.
    Linear(Linear),
    /// Softmax over the channels.
    Softmax,
}

impl Op {
    /// A word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Conv(_) => "conv",
            Self::Norm(_) => "norm",
            Self::Affine(_) => "affine",
            Self::Activation(activation) => activation.name(),
            Self::Add => "add",
            Self::Multiply => "multiply",
            Self::Concat => "concat",
            Self::Shuffle { .. } => "shuffle",
            Self::Slice { .. } => "slice",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::AttentionPool => "attention_pool",
            Self::Linear(_) => "linear",
            Self::Softmax => "softmax",
        }
    }
}

/// An element-wise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x · sigmoid(x)`, also called swish
    Silu,
    /// `1 / (1 + exp(−x))`
    Sigmoid,
}

impl Activation {
    /// Its name in the field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
        }
    }
}

/// A convolution with what follows it.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[out, in / groups, kernel_h, kernel_w]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
    /// Stride, padding, dilation, groups.
    pub config: Conv2dConfig,
    /// What is applied last.
    pub activation: Option<Activation>,
}

/// A batch norm with its running statistics, each `[channel]`.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Scale after normalisation.
    pub weight: Tensor,
    /// Shift after normalisation.
    pub bias: Tensor,
    /// Running mean.
    pub mean: Tensor,
    /// Running variance.
    pub var: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl Norm {
    /// The norm as `x · scale + shift`, in float64: `scale = weight / √(var + eps)`, `shift = bias − mean · scale`.
    ///
    /// # Errors
    /// candle's.
    pub fn scale_and_shift(&self) -> Result<(Tensor, Tensor)> {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64);
        let scale = (wide(&self.weight)? / (wide(&self.var)? + self.eps)?.sqrt()?)?;
        let shift = (wide(&self.bias)? - (wide(&self.mean)? * &scale)?)?;
        Ok((scale, shift))
    }
}

/// A scale and a shift per channel.
#[derive(Debug, Clone)]
pub struct Affine {
    /// `[channel]`
    pub scale: Tensor,
    /// `[channel]`
    pub shift: Tensor,
    /// What is applied last.
    pub activation: Option<Activation>,
}

/// A fully connected layer.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}
