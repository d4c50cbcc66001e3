//! CUDA kernels for training convolutional networks, and what launches them.
//!
//! Kernels are the `.cu` files of `kernels/`. Each module here knows the grid, the arguments and the scratch memory of some of
//! them, and speaks of memory by address alone: who owns it is the [`Engine`]'s business. With feature `cuda` an engine
//! puts them on a GPU's stream, and convolutions are cuDNN's; with feature `emulator` one runs the same text on the processor,
//! which is how indices, barriers and arguments are tested on machines that have no GPU. Without either nothing is compiled but
//! the tables of arguments.
//!
//! Activations are channels-last in float or bfloat16; parameters, statistics, losses and gradients of parameters are float.

pub mod convolution;
mod engine;
mod error;
mod lanes;
pub mod loss;
pub mod map;
pub mod norm;
pub mod optim;
pub mod pool;
mod span;
pub mod sum;
pub mod update;

#[cfg(feature = "emulator")]
mod emulator;
#[cfg(feature = "nccl")]
pub mod nccl;
#[cfg(feature = "emulator")]
pub mod races;
#[cfg(feature = "cuda")]
mod stream;
#[cfg(feature = "cuda")]
mod watch;

#[cfg(feature = "emulator")]
pub use emulator::{Emulator, Known, racecheck};
pub use engine::{Address, Arg, Element, Engine, NULL};
pub use error::{Error, Result};
pub use lanes::{Lanes, Place, SIDE_LANES};
pub use span::Span;
#[cfg(feature = "cuda")]
pub use stream::Stream;
#[cfg(feature = "cuda")]
pub use watch::Watch;
