//! Kernels of NVIDIA's GPUs, where the build has them: every function gives its result, or nothing where it has no kernel for the
//! tensors it was given.

#[cfg(not(any(feature = "cuda", feature = "emulator")))]
mod disabled;
#[cfg(any(feature = "cuda", feature = "emulator"))]
mod enabled;
#[cfg(not(feature = "cuda"))]
mod no_graph;
mod span;

#[cfg(not(any(feature = "cuda", feature = "emulator")))]
pub(crate) use disabled::*;
#[cfg(not(any(feature = "cuda", feature = "emulator")))]
pub use disabled::{
    ConvWeights, Download, Downloads, StepGradients, Tape, Uploads, cudnn_choices, gpu_notices,
    has_gpu_kernels, landmark, recall_cudnn_choices, set_cuda_branches, set_cudnn_benchmark,
    set_tf32, side_by_side, unhurried,
};
#[cfg(feature = "emulator")]
pub use enabled::emulate_gpu;
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub(crate) use enabled::*;
#[cfg(any(feature = "cuda", feature = "emulator"))]
pub use enabled::{
    ConvWeights, Download, Downloads, StepGradients, Tape, Uploads, cudnn_choices, gpu_notices,
    has_gpu_kernels, landmark, recall_cudnn_choices, set_cuda_branches, set_cudnn_benchmark,
    set_tf32, side_by_side, unhurried,
};
#[cfg(feature = "cuda")]
pub use enabled::{GpuWatch, StepGraph, gpu_memory_in_use, open_gpu, rehearse, release_gpu_memory};
#[cfg(not(feature = "cuda"))]
pub use no_graph::{GpuWatch, StepGraph, gpu_memory_in_use, rehearse, release_gpu_memory};
pub use span::GpuSpan;
