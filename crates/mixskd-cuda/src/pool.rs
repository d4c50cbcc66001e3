//! Pooling.

use crate::engine::{ACROSS, Arg, args, blocks, count};
use crate::{Address, Element, Engine, Result};

/// What a window is reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The greatest value; the gradient goes to the first of them, row by row.
    Max,
    /// The mean, padding counted.
    Mean,
}

/// Sizes of a pooling with square windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Samples.
    pub batch: usize,
    /// Input height and width.
    pub input: (usize, usize),
    /// Output height and width.
    pub output: (usize, usize),
    /// Channels.
    pub channels: usize,
    /// Side of the window.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Pixels added on each side.
    pub padding: usize,
    /// Maximum or mean.
    pub reduction: Reduction,
    /// Type of the maps.
    pub element: Element,
}

impl Pool {
    fn inputs(&self) -> usize {
        self.batch * self.input.0 * self.input.1 * self.channels
    }

    fn outputs(&self) -> usize {
        self.batch * self.output.0 * self.output.1 * self.channels
    }

    fn sizes(&self) -> Result<[Arg; 9]> {
        let size = |value| Ok::<_, crate::Error>(Arg::U32(count("map", value)?));
        Ok([
            size(self.input.0)?,
            size(self.input.1)?,
            size(self.output.0)?,
            size(self.output.1)?,
            size(self.channels)?,
            size(self.kernel)?,
            size(self.stride)?,
            size(self.padding)?,
            Arg::from(self.reduction == Reduction::Mean),
        ])
    }

    /// `y` from `x`.
    ///
    /// # Safety
    /// `x` and `y` are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn forward(&self, engine: &dyn Engine, x: Address, y: Address) -> Result<()> {
        let width = self.element.width(self.channels, &[x, y]);
        let name = format!("pool_forward_{}_{width}", self.element.suffix());
        count("map", self.outputs())?;
        let packs = self.outputs() / width;
        let mut all = args![x, y, count("map", packs)?].to_vec();
        all.extend(self.sizes()?);
        // SAFETY: the caller's promise.
        unsafe { engine.launch(&name, blocks("map", packs)?, &all) }
    }

    /// The input's gradient.
    ///
    /// # Safety
    /// `x` and `dx` are as long as the input, `dy` as the output.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn backward(
        &self,
        engine: &dyn Engine,
        x: Address,
        dy: Address,
        dx: Address,
    ) -> Result<()> {
        let width = self.element.width(self.channels, &[x, dy, dx]);
        let name = format!("pool_backward_{}_{width}", self.element.suffix());
        count("map", self.inputs())?;
        let packs = self.inputs() / width;
        let mut all = args![x, dy, dx, count("map", packs)?].to_vec();
        all.extend(self.sizes()?);
        // SAFETY: the caller's promise.
        unsafe { engine.launch(&name, blocks("map", packs)?, &all) }
    }
}

/// Sizes of the mean over whole maps: `[batch, pixels, channels]` → `[batch, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalPool {
    /// Samples.
    pub batch: usize,
    /// Height · width.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Type of the maps.
    pub element: Element,
    /// Type of the means: the maps' or float.
    pub means: Element,
}

impl GlobalPool {
    fn name(&self, kernel: &str) -> String {
        format!("{kernel}_{}_{}", self.element.suffix(), self.means.suffix())
    }

    /// `y` from `x`.
    ///
    /// # Safety
    /// `x` and `y` are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn forward(&self, engine: &dyn Engine, x: Address, y: Address) -> Result<()> {
        let (pixels, channels) = (count("map", self.pixels)?, count("map", self.channels)?);
        let grid = (
            channels.div_ceil(ACROSS as u32),
            count("batch", self.batch)?,
        );
        let name = self.name("global_pool");
        // SAFETY: the caller's promise.
        unsafe { engine.launch(&name, grid, args![x, y, pixels, channels]) }
    }

    /// The input's gradient.
    ///
    /// # Safety
    /// `dy` and `dx` are as long as output and input.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn backward(&self, engine: &dyn Engine, dy: Address, dx: Address) -> Result<()> {
        let width = self.element.width(self.channels, &[dx]);
        let name = format!("{}_{width}", self.name("global_pool_backward"));
        let inputs = self.batch * self.pixels * self.channels;
        count("map", inputs)?;
        let packs = inputs / width;
        let (pixels, channels) = (count("map", self.pixels)?, count("map", self.channels)?);
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &name,
                blocks("map", packs)?,
                args![dy, dx, count("map", packs)?, pixels, channels],
            )
        }
    }
}
