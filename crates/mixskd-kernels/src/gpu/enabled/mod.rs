//! A build with CUDA: mixskd-cuda's launches on candle's tensors.
//!
//! Maps are float or bfloat16; parameters, statistics and losses are float. Nothing here waits for the GPU.

mod conv;
mod loss;
mod memory;
mod norm;
mod other;
mod recorded;

pub(crate) use conv::conv2d;
pub use conv::set_tf32;
pub(crate) use loss::{divergence, interpolate, label_loss, mean_square, soft_loss};
pub(crate) use norm::{batch_norm_eval, batch_norm_train};
pub(crate) use other::{global_avg_pool2d, linear, pool2d, sgd_step};
