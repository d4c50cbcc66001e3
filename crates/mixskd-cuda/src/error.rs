//! What can go wrong on the way to a kernel.

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a launch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A size is beyond what a kernel counts with.
    #[error("{what} of {size} is more than a kernel counts: 2³² − 1\nhint: use a smaller batch")]
    Size {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        size: usize,
    },
    /// A launch did not come about.
    #[error("kernel {kernel}: {message}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// Why not.
        message: String,
    },
    /// A part of a graph was to wait for another, and the driver has it wait for nothing.
    #[cfg(feature = "cuda")]
    #[error("CUDA driver: a branch of a graph does not wait for what it needs")]
    Lane,
    /// The driver refused.
    #[cfg(feature = "cuda")]
    #[error("CUDA driver: {0}")]
    Driver(#[from] cudarc::driver::DriverError),
    /// NCCL refused.
    #[cfg(feature = "nccl")]
    #[error("NCCL, {what}: {status:?}\nhint: NCCL_DEBUG=INFO makes it say more")]
    Nccl {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        status: cudarc::nccl::sys::ncclResult_t,
    },
    /// Whoever waited for other GPUs gave up.
    #[cfg(feature = "nccl")]
    #[error("another process was waited for in vain")]
    GaveUp,
    /// cuDNN refused.
    #[cfg(feature = "cuda")]
    #[error("cuDNN, {what}: {status:?}")]
    Cudnn {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        status: cudarc::cudnn::sys::cudnnStatus_t,
    },
}
