//! What a training step asks of a GPU beside the network's own kernels, so that it never waits for the host in between. Where tensors are
//! not on a GPU each gives nothing, and the caller does it its own way.

use candle_core::{Tensor, Var};

use crate::{Result, SgdConfig, gpu};

/// One parameter of an update.
#[derive(Debug, Clone, Copy)]
pub struct ParameterUpdate<'a> {
    /// Changed in place.
    pub parameter: &'a Var,
    /// Its gradient, of the parameter's shape; or of the shape and type of `turned`, in that order.
    pub gradient: &'a Tensor,
    /// Changed in place; of the parameter's shape.
    pub velocity: &'a Var,
    /// Of the learning rate.
    pub factor: f64,
    /// The convolution's weight beside the parameter ([`ConvWeights`](crate::ConvWeights)), brought up to date with it.
    pub turned: Option<&'a Tensor>,
}

/// [`crate::sgd_step`] of many parameters in few launches. The learning rate is `rate` and not `config`'s, so that it may change under a
/// captured graph; where the `verdict` of [`judge`] is there and bad, nothing changes.
///
/// # Shapes
/// - `rate`: `[1]`, float32
/// - `verdict`: `[1]`
///
/// # Errors
/// When a launch fails.
pub fn sgd_steps(
    updates: &[ParameterUpdate],
    rate: &Tensor,
    verdict: Option<&Tensor>,
    config: SgdConfig,
) -> Result<Option<()>> {
    gpu::sgd_steps(updates, rate, verdict, config)
}

/// 1 where every value of float32 and bfloat16 `tensors` is finite, or else 0, `[1]`.
///
/// `broken`, a float that is 0 at first, is set by a bad verdict, and makes every verdict after it bad: steps that were launched before the host read of one
/// change no parameter either.
///
/// # Errors
/// When a launch fails.
pub fn judge(tensors: &[&Tensor], broken: Option<&Tensor>) -> Result<Option<Tensor>> {
    gpu::judge(tensors, broken)
}

/// The number of rows whose largest logit, the first of equals, is the target's, as a float32 scalar.
///
/// # Shapes
/// - `logits`: `[batch, class]`, float32
/// - `targets`: `[batch]`
///
/// # Errors
/// When the launch fails.
pub fn count_hits(logits: &Tensor, targets: &Tensor) -> Result<Option<Tensor>> {
    gpu::count_hits(logits, targets)
}

/// `Σ weight · x` of float32 scalars, as one operation forward and one back.
///
/// # Shapes
/// each and the result: `[]`
///
/// # Errors
/// When a launch fails.
pub fn weighted_sum(all: &[(&Tensor, f64)]) -> Result<Option<Tensor>> {
    gpu::weighted_sum(all)
}

/// All values of small float32 `tensors`, one after the other, without a gradient.
///
/// # Errors
/// When the launch fails.
pub fn collect(tensors: &[&Tensor]) -> Result<Option<Tensor>> {
    gpu::collect(tensors)
}

/// `½·mean softplus(s·a) + ½·mean softplus(−s·b)`, `s` being −1 for the first logit of a sample and 1 for a second: the binary
/// cross-entropy of a discriminator's logits on two batches.
///
/// # Shapes
/// `a`, `b`: `[batch, 1]` or `[batch, 2]`, float32; result `[]`
///
/// # Errors
/// When a launch fails.
pub fn discriminator_loss(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    gpu::discriminator_loss(a, b)
}
