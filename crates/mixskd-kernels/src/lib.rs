//! Channels-last kernels for training convolutional networks, as functions on candle tensors.
//!
//! Activations are `[batch, height, width, channel]`, weights are torchvision's (`[out, in / groups, kernel, kernel]` and
//! `[out, in]`). Every function is differentiable through candle's `backward()` unless its docs say otherwise.

// A kernel takes on its caller's instruction set only by being inlined, and its register tiles are arrays by index.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

pub mod compose;
mod conv;
mod error;
mod gemm;
mod linear;
mod mix;
mod norm;
mod optim;
mod par;
mod pool;
mod shape;
mod simd;
mod storage;

pub use conv::{Conv2dConfig, conv2d};
pub use error::{Error, Result};
pub use linear::linear;
pub use mix::interpolate;
pub use norm::{BATCH_NORM_EPS, BatchStats, batch_norm_eval, batch_norm_train};
pub use optim::{SgdConfig, sgd_step};
pub use pool::{Pool2dConfig, avg_pool2d, global_avg_pool2d, max_pool2d};
