//! Kernels of NVIDIA's GPUs, where the build has them: every function gives its result, or nothing where it has no kernel for the
//! tensors it was given.

#[cfg(not(feature = "cuda"))]
mod disabled;
#[cfg(feature = "cuda")]
mod enabled;

#[cfg(not(feature = "cuda"))]
pub(crate) use disabled::*;
#[cfg(feature = "cuda")]
pub use enabled::set_tf32;
#[cfg(feature = "cuda")]
pub(crate) use enabled::*;
