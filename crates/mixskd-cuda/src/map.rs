//! Maps element by element: activations, a number for each channel, channels taken and shuffled, pooling by attention.

use crate::engine::{ACROSS, Arg, args, blocks, count};
use crate::{Address, Element, Engine, Result};

/// A function of single values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x · σ(x)`.
    Silu,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// `y` from `x`, both of `len` elements.
    ///
    /// # Safety
    /// The arrays are as long.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn forward(
        self,
        engine: &dyn Engine,
        element: Element,
        len: usize,
        x: Address,
        y: Address,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.launch(engine, "activate", element, len, &[x, y]) }
    }

    /// The input's gradient.
    ///
    /// # Safety
    /// The arrays are as long.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn backward(
        self,
        engine: &dyn Engine,
        element: Element,
        len: usize,
        [x, dy]: [Address; 2],
        dx: Address,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.launch(engine, "activate_backward", element, len, &[x, dy, dx]) }
    }

    /// A kernel over arrays of `len` elements.
    ///
    /// # Safety
    /// They are as long, and as many as the kernel takes.
    unsafe fn launch(
        self,
        engine: &dyn Engine,
        kernel: &str,
        element: Element,
        len: usize,
        arrays: &[Address],
    ) -> Result<()> {
        let width = element.width(len, arrays);
        let name = format!("{kernel}_{}_{width}", element.suffix());
        count("map", len)?;
        let packs = len / width;
        let mut all: Vec<Arg> = arrays.iter().copied().map(Arg::from).collect();
        all.extend([Arg::from(count("map", packs)?), Arg::from(self as u32)]);
        // SAFETY: the caller's promise.
        unsafe { engine.launch(&name, blocks("map", packs)?, &all) }
    }
}

/// Sizes of maps that have a number for each channel of some pixels: `[sets, pixels, channels]` and `[sets, channels]`. A bias is one set for all
/// samples, a factor of each sample a set for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerChannel {
    /// How many numbers a channel has.
    pub sets: usize,
    /// Pixels that share one.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Type of the maps.
    pub element: Element,
    /// Type of the numbers: the maps' or float.
    pub numbers: Element,
}

impl PerChannel {
    fn name(&self, kernel: &str) -> String {
        format!(
            "{kernel}_{}_{}",
            self.element.suffix(),
            self.numbers.suffix()
        )
    }

    /// `y`: every element of `x` times its number, or plus it.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn forward(
        &self,
        engine: &dyn Engine,
        [x, numbers]: [Address; 2],
        times: bool,
        y: Address,
    ) -> Result<()> {
        let width = self.element.width(self.channels, &[x, y]);
        let name = format!("{}_{width}", self.name("per_channel"));
        let len = self.sets * self.pixels * self.channels;
        count("map", len)?;
        let (packs, grid) = (count("map", len / width)?, blocks("map", len / width)?);
        let (pixels, channels) = (count("map", self.pixels)?, count("map", self.channels)?);
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &name,
                grid,
                args![x, numbers, y, packs, pixels, channels, times],
            )
        }
    }

    /// The numbers' gradients: `Σ dy·x`, or `Σ dy` where `x` is [`NULL`](crate::NULL), added in float.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn sums(
        &self,
        engine: &dyn Engine,
        [x, dy]: [Address; 2],
        sums: Address,
    ) -> Result<()> {
        count("map", self.sets * self.pixels * self.channels)?;
        let (pixels, channels) = (count("map", self.pixels)?, count("map", self.channels)?);
        let grid = (channels.div_ceil(ACROSS as u32), count("batch", self.sets)?);
        let name = self.name("per_channel_sums");
        // SAFETY: the caller's promise.
        unsafe { engine.launch(&name, grid, args![x, dy, sums, pixels, channels]) }
    }
}

/// Some channels of a map: `count` of `channels`, from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Pixels of all samples.
    pub pixels: usize,
    /// Channels that the map has.
    pub channels: usize,
    /// The first that is taken.
    pub first: usize,
    /// How many are.
    pub count: usize,
    /// Type of the maps.
    pub element: Element,
}

impl Taken {
    /// The taken channels, `y`, of `x`; with `back` the whole map `y` of the taken ones, `x`, with zeros for the others.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn copy(
        &self,
        engine: &dyn Engine,
        x: Address,
        back: bool,
        y: Address,
    ) -> Result<()> {
        let written = if back { self.channels } else { self.count };
        count("map", self.pixels * self.channels)?;
        let sizes = [self.channels, self.first, self.count];
        let width = sizes
            .map(|size| self.element.width(size, &[x, y]))
            .into_iter()
            .fold(usize::MAX, usize::min);
        let name = format!("take_channels_{}_{width}", self.element.suffix());
        let packs = self.pixels * written / width;
        let [channels, first, taken] = sizes.map(|size| count("map", size));
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &name,
                blocks("map", packs)?,
                args![x, y, count("map", packs)?, channels?, first?, taken?, back],
            )
        }
    }
}

/// Channel `g · channels / groups + i` of each pixel to channel `i · groups + g`; `groups` divides them. The way back is the same with
/// `channels / groups` groups.
///
/// # Safety
/// The arrays are as long as the sizes say.
///
/// # Errors
/// When the launch fails.
pub unsafe fn shuffle_channels(
    engine: &dyn Engine,
    element: Element,
    (pixels, channels, groups): (usize, usize, usize),
    x: Address,
    y: Address,
) -> Result<()> {
    let len = count("map", pixels * channels)?;
    let grid = blocks("map", pixels * channels)?;
    let name = format!("shuffle_channels_{}", element.suffix());
    let (channels, groups) = (count("map", channels)?, count("map", groups)?);
    // SAFETY: the caller's promise.
    unsafe { engine.launch(&name, grid, args![x, y, len, channels, groups]) }
}

/// Sizes of a pooling by attention: maps `[batch, pixels, channels]`, scores and shares `[batch, pixels]`, means `[batch, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionPool {
    /// Samples.
    pub batch: usize,
    /// Height · width.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Type of maps, scores and means; shares are float.
    pub element: Element,
}

impl AttentionPool {
    fn name(&self, kernel: &str) -> String {
        format!("{kernel}_{}", self.element.suffix())
    }

    fn sizes(&self) -> Result<[u32; 3]> {
        count("map", self.batch * self.pixels * self.channels)?;
        Ok([
            count("batch", self.batch)?,
            count("map", self.pixels)?,
            count("map", self.channels)?,
        ])
    }

    /// The means `y`, and the shares that pixels have of them: the softmax of `scores`.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When a launch fails.
    pub unsafe fn forward(
        &self,
        engine: &dyn Engine,
        [x, scores]: [Address; 2],
        shares: Address,
        y: Address,
    ) -> Result<()> {
        let [batch, pixels, channels] = self.sizes()?;
        let grid = (channels.div_ceil(ACROSS as u32), batch);
        let names = ["attention_shares", "attention_pool"].map(|kernel| self.name(kernel));
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(&names[0], (batch, 1), args![scores, shares, pixels])?;
            engine.launch(&names[1], grid, args![x, shares, y, pixels, channels])
        }
    }

    /// The gradients of map and scores; `products` is scratch memory of a float for each pixel.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When a launch fails.
    pub unsafe fn backward(
        &self,
        engine: &dyn Engine,
        [x, dy, shares]: [Address; 3],
        products: Address,
        [dx, d_scores]: [Address; 2],
    ) -> Result<()> {
        let [batch, pixels, channels] = self.sizes()?;
        let width = self.element.width(self.channels, &[dx]);
        let packs = self.batch * self.pixels * self.channels / width;
        let names = [
            self.name("attention_scores_backward"),
            format!("{}_{width}", self.name("attention_backward")),
        ];
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &names[0],
                (batch, 1),
                args![x, dy, shares, products, d_scores, pixels, channels],
            )?;
            engine.launch(
                &names[1],
                blocks("map", packs)?,
                args![dy, shares, dx, count("map", packs)?, pixels, channels],
            )
        }
    }
}
