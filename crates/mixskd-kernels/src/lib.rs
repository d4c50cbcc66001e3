//! Channels-last kernels for training convolutional networks, as functions on candle tensors.
//!
//! Activations are `[batch, height, width, channel]`, weights are torchvision's (`[out, in / groups, kernel, kernel]` and
//! `[out, in]`). Every function is differentiable through candle's `backward()` unless its docs say otherwise.
//!
//! On the CPU, float32 and float64 have kernels of their own: they use AVX-512, AVX2 or NEON where the processor has it, run
//! on rayon's threads, and give the same bits whatever their number. Everything else runs as [`compose`]d candle ops.
//!
//! ```
//! use candle_core::{DType, Device, Var};
//! use mixskd_kernels::{BATCH_NORM_EPS, Conv2dConfig, batch_norm_train, conv2d};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cpu = Device::Cpu;
//! let images = Var::ones((2, 8, 8, 3), DType::F32, &cpu)?;
//! let weight = Var::ones((16, 3, 3, 3), DType::F32, &cpu)?;
//! let (scale, shift) = (Var::ones(16, DType::F32, &cpu)?, Var::zeros(16, DType::F32, &cpu)?);
//! let same = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
//!
//! let y = conv2d(&images, &weight, same)?;
//! let (y, stats) = batch_norm_train(&y, &scale, &shift, BATCH_NORM_EPS, None, true)?;
//! assert_eq!(y.dims(), [2, 8, 8, 16]);
//! assert_eq!(stats.count, 2 * 8 * 8);
//! let gradients = y.sum_all()?.backward()?;
//! assert!(gradients.get(&weight).is_some());
//! # Ok(())
//! # }
//! ```

// A kernel takes on its caller's instruction set only by being inlined, and its register tiles are arrays by index.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

mod activation;
mod attention;
mod channels;
pub mod compose;
mod conv;
mod conv_norm;
mod error;
mod gate;
mod gemm;
mod gpu;
mod images;
mod linear;
mod loss;
mod mix;
#[cfg(feature = "nccl")]
pub mod nccl;
mod norm;
mod on_gpu;
mod optim;
mod par;
mod pool;
mod record;
mod shape;
mod simd;
mod storage;

/// The version of candle that this crate's tensors are of.
pub use candle_core;

pub use activation::{relu, relu6, sigmoid, silu, tanh};
pub use attention::attention_pool2d;
pub use channels::{
    add, concat_channels, join_channels, join_samples, samples, shuffle_channels, slice_channels,
};
pub use conv::{Activation, Conv2dConfig, PreparedConv2d, conv2d};
pub use conv_norm::conv_norm_train;
pub use error::{Error, Result};
pub use gate::{add_bias, scale_channels, shift_channels};
#[cfg(feature = "emulator")]
pub use gpu::emulate_gpu;
#[cfg(feature = "cuda")]
pub use gpu::open_gpu;
pub use gpu::{
    ConvWeights, Download, Downloads, GpuSpan, GpuWatch, StepGradients, StepGraph, Tape, Uploads,
    cudnn_choices, gpu_memory_in_use, gpu_notices, has_gpu_kernels, landmark, recall_cudnn_choices,
    rehearse, release_gpu_memory, set_cuda_branches, set_cudnn_benchmark, set_tf32, side_by_side,
    unhurried,
};
pub use images::{DeviceImages, ImageWindow};
pub use linear::linear;
pub use loss::{
    cross_entropy, interpolated_mse, kl_divergence, mix_cross_entropy, mse, soft_cross_entropy,
};
pub use mix::interpolate;
#[cfg(feature = "emulator")]
pub use mixskd_cuda::races;
pub use norm::{BATCH_NORM_EPS, BatchStats, batch_norm_eval, batch_norm_train, move_running};
pub use on_gpu::{
    ParameterUpdate, collect, count_hits, discriminator_loss, judge, sgd_steps, weighted_sum,
};
pub use optim::{SgdConfig, sgd_step};
pub use pool::{Pool2dConfig, avg_pool2d, global_avg_pool2d, global_avg_pool2d_as, max_pool2d};
pub use record::backward;
pub use simd::instruction_set;
