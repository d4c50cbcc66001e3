//! A build with CUDA, or with the emulator: mixskd-cuda's launches on candle's tensors.
//!
//! Maps are float or bfloat16; parameters, statistics and losses are float. Nothing here waits for the GPU.

mod algorithms;
mod conv;
#[cfg(feature = "cuda")]
mod copies;
#[cfg(feature = "cuda")]
mod device;
mod downloads;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "emulator")]
mod host;
mod images;
mod inference;
mod joined;
mod lanes;
mod later;
mod loss;
mod maps;
mod memory;
mod norm;
mod optim;
mod other;
#[cfg(feature = "cuda")]
mod page_locked;
mod recorded;
mod sum;
mod tape;
mod uploads;
#[cfg(feature = "cuda")]
mod watch;
mod weights;

pub use algorithms::{cudnn_choices, recall_cudnn_choices, set_cudnn_benchmark};
pub(crate) use conv::conv2d;
pub use conv::{gpu_notices, set_tf32};
#[cfg(feature = "cuda")]
pub use device::open as open_gpu;
pub use downloads::{Download, Downloads};
#[cfg(feature = "cuda")]
pub use graph::{StepGraph, gpu_memory_in_use, rehearse, release_gpu_memory};
#[cfg(feature = "emulator")]
pub use host::emulate_gpu;
#[cfg(feature = "emulator")]
pub(crate) use host::is_emulating;
pub(crate) use images::batch_images;
pub(crate) use inference::{GpuForms, conv2d_infer};
pub(crate) use joined::{add, join_channels, join_samples};
pub use lanes::{landmark, set_cuda_branches, side_by_side, unhurried};
pub(crate) use loss::{
    discriminator_loss, divergence, interpolate, label_loss, mean_square, soft_loss,
};
pub(crate) use maps::{activate, attention_pool2d, per_channel, shuffle_channels, slice_channels};
pub(crate) use norm::move_running;
pub(crate) use norm::{batch_norm_eval, batch_norm_train};
pub(crate) use optim::{count_hits, judge, sgd_step, sgd_steps};
pub(crate) use other::{global_avg_pool2d, linear, pool2d};
pub(crate) use sum::{collect, samples, weighted_sum};
pub use tape::Tape;
pub use uploads::Uploads;
#[cfg(feature = "cuda")]
pub use watch::GpuWatch;
pub use weights::{ConvWeights, StepGradients};

/// Whether the CPU stands in for a GPU.
#[cfg(not(feature = "emulator"))]
pub(crate) fn is_emulating() -> bool {
    false
}

/// Whether tensors of `device` are computed with by a GPU's kernels.
pub fn has_gpu_kernels(device: &candle_core::Device) -> bool {
    device.is_cuda() || (is_emulating() && device.is_cpu())
}
