//! Convolutions: forward, data gradient, filter gradient, all arrays channels-last.

#[cfg(feature = "cuda")]
mod backend;
#[cfg(feature = "cuda")]
mod beside;
#[cfg(feature = "cuda")]
mod choice;
mod chosen;
#[cfg(feature = "cuda")]
mod cudnn;
#[cfg(feature = "cuda")]
mod descriptors;
#[cfg(feature = "emulator")]
mod emulated;
#[cfg(feature = "cuda")]
mod engines;
#[cfg(feature = "cuda")]
mod legacy;
#[cfg(feature = "cuda")]
mod notices;

pub use chosen::{Choices, Chosen, Pass};
#[cfg(feature = "cuda")]
pub use cudnn::Cudnn;
#[cfg(feature = "emulator")]
pub use emulated::EmulatedConvolutions;
#[cfg(feature = "cuda")]
pub use notices::take_notices;

use serde::{Deserialize, Serialize};

use crate::{Address, Element, Place, Result};

/// How floats are multiplied; bfloat16 is always summed in float.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// IEEE 754 single precision.
    #[default]
    Exact,
    /// Factors cut to TensorFloat-32's ten bits, which tensor cores multiply.
    Tf32,
}

/// All sizes of a convolution, the same step, padding and dilation along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Convolution {
    /// Samples, height, width, channels of the input.
    pub input: [usize; 4],
    /// The same of the output.
    pub output: [usize; 4],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Distance of neighbouring taps.
    pub dilation: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Type of maps and weight.
    pub element: Element,
    /// How floats are multiplied.
    pub arithmetic: Arithmetic,
}

/// Something that runs convolutions, in turn with its engine's kernels.
pub trait Convolve {
    /// `y = x ⋆ w`. Weights are `[out, kernel_h, kernel_w, in / groups]` in the maps' type.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// cuDNN's, and that it knows no algorithm.
    unsafe fn forward(&self, c: Convolution, x: Address, w: Address, y: Address) -> Result<()>;

    /// The input's gradient `dx` from the output's.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// cuDNN's, and that it knows no algorithm.
    unsafe fn data_gradient(
        &self,
        c: Convolution,
        w: Address,
        dy: Address,
        dx: Address,
    ) -> Result<()>;

    /// The weight's gradient `dw`, laid out as the weight.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// cuDNN's, and that it knows no algorithm.
    unsafe fn filter_gradient(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<()>;

    /// The weight's gradient beside what the engine is given from here on, where there is a second stream: then where that stream stands afterwards. It is
    /// there once a lane has [waited](crate::Lanes::wait) for it; until then the arrays stay as they are.
    ///
    /// # Safety
    /// As [`Self::filter_gradient`].
    ///
    /// # Errors
    /// cuDNN's, and that it knows no algorithm.
    unsafe fn filter_gradient_beside(
        &self,
        c: Convolution,
        x: Address,
        dy: Address,
        dw: Address,
    ) -> Result<Option<Place>>;

    /// Whether a captured step may have [lanes](crate::Lanes). Nothing is captured while that changes.
    fn set_lanes(&self, on: bool);

    /// How an algorithm is chosen when a convolution comes up for the first time: by the library's own guess, or, `timed`, by trying
    /// out which is the fastest. Where that changes, choices made before are dropped.
    fn set_timed(&self, timed: bool);

    /// The choices made so far.
    fn choices(&self) -> Choices;

    /// From here on the choices are these, as far as they go. False, and nothing is changed, where they are not of this GPU and library.
    fn recall(&self, choices: &Choices) -> bool;
}
