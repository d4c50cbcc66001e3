//! Lanes: parts of one step that do not need each other's results.
//!
//! A stream gives its GPU one kernel after the other. While a step is captured as a CUDA graph, however, a stream may be told what its next launch has to wait
//! for: the graph then has several paths from its beginning to its end, which a GPU runs side by side. A lane is such a path. Lane 0 is the
//! stream's own, which begins and ends every step.

use crate::Result;

/// Lanes beside the first one.
pub const SIDE_LANES: usize = 3;

/// Where a lane stood: all that was launched in it before, and all that this had waited for.
#[derive(Debug, Default)]
pub struct Place {
    #[cfg(feature = "cuda")]
    pub(crate) event: Option<cudarc::driver::CudaEvent>,
    #[cfg(feature = "emulator")]
    pub(crate) nodes: Vec<usize>,
}

impl Place {
    #[cfg(feature = "cuda")]
    pub(crate) fn at(event: cudarc::driver::CudaEvent) -> Self {
        Self {
            event: Some(event),
            #[cfg(feature = "emulator")]
            nodes: Vec::new(),
        }
    }

    #[cfg(feature = "emulator")]
    pub(crate) fn behind(nodes: Vec<usize>) -> Self {
        Self {
            #[cfg(feature = "cuda")]
            event: None,
            nodes,
        }
    }
}

/// Something whose work may go several ways.
pub trait Lanes {
    /// Whether there are lanes for what is launched now. Outside a capture they are gone through in turn, so that what belongs to each of them is used before.
    fn are_there(&self) -> bool;

    /// Where the current lane stands.
    ///
    /// # Errors
    /// The driver's.
    fn place(&self) -> Result<Place>;

    /// From here on what is launched belongs to `lane` and waits for what `behind` stands for, and not for anything else. Memory is given back in
    /// the lane in which it happens to be dropped: whoever drops some sees to it that this lane has waited for all that used it.
    ///
    /// # Errors
    /// The driver's.
    fn go(&self, lane: usize, behind: &Place) -> Result<()>;

    /// The current lane waits for what `place` stands for, too.
    ///
    /// # Errors
    /// The driver's.
    fn wait(&self, place: &Place) -> Result<()>;

    /// Whatever comes next is lane 0's: a capture has come to its end, maybe too early.
    fn leave(&self);
}

impl<L: Lanes + ?Sized> Lanes for std::sync::Arc<L> {
    fn are_there(&self) -> bool {
        (**self).are_there()
    }

    fn place(&self) -> Result<Place> {
        (**self).place()
    }

    fn go(&self, lane: usize, behind: &Place) -> Result<()> {
        (**self).go(lane, behind)
    }

    fn wait(&self, place: &Place) -> Result<()> {
        (**self).wait(place)
    }

    fn leave(&self) {
        (**self).leave();
    }
}
