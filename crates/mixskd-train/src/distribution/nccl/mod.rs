//! Collectives between GPUs, where the build has them.

#[cfg(not(feature = "nccl"))]
mod disabled;
#[cfg(feature = "nccl")]
mod enabled;

#[cfg(not(feature = "nccl"))]
pub(super) use disabled::over;
#[cfg(feature = "nccl")]
pub(super) use enabled::over;
