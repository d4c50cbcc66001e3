//! Interpolation between samples, weights in the convolution's order, and batches of images.

use crate::engine::{args, blocks, count, parts, word};
use crate::{Address, Element, Engine, Error, Result};

/// Samples of a batch, at most, that [`interpolate_backward`] finds partners in.
pub const MOST_SAMPLES: usize = 1024;

/// Pairs of a batch: samples of `length` elements, π as u32 and λ as floats.
#[derive(Debug, Clone, Copy)]
pub struct Pairs {
    /// Samples.
    pub batch: usize,
    /// Elements of a sample.
    pub length: usize,
    /// π.
    pub partner: Address,
    /// λ.
    pub lambda: Address,
    /// Type of the samples.
    pub element: Element,
}

/// `y_i = λ_i·x_i + (1 − λ_i)·x_π(i)`.
///
/// # Safety
/// `x` and `y` are `[batch, length]`; partners are samples.
///
/// # Errors
/// When the launch fails.
pub unsafe fn interpolate(engine: &dyn Engine, pairs: Pairs, x: Address, y: Address) -> Result<()> {
    let name = format!("interpolate_{}", pairs.element.suffix());
    let grid = parts(pairs.batch, pairs.length)?;
    let length = count("sample", pairs.length)?;
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            &name,
            grid,
            args![x, pairs.partner, pairs.lambda, y, length],
        )
    }
}

/// `dx_j = scale · (λ_j·dy_j + Σ_{i: π(i) = j} (1 − λ_i)·dy_i)`.
///
/// # Safety
/// `dy` and `dx` are `[batch, length]` and not the same memory.
///
/// # Errors
/// When there are more than [`MOST_SAMPLES`] samples or the launch fails.
pub unsafe fn interpolate_backward(
    engine: &dyn Engine,
    pairs: Pairs,
    dy: Address,
    scale: f32,
    dx: Address,
) -> Result<()> {
    let name = format!("interpolate_backward_{}", pairs.element.suffix());
    if pairs.batch > MOST_SAMPLES {
        return Err(Error::Launch {
            kernel: name,
            message: format!("{} samples, {MOST_SAMPLES} at most", pairs.batch),
        });
    }
    let grid = parts(pairs.batch, pairs.length)?;
    let (batch, length) = (grid.1, count("sample", pairs.length)?);
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            &name,
            grid,
            args![dy, pairs.partner, pairs.lambda, dx, batch, length, scale],
        )
    }
}

/// One convolution's weight in its two orders: a parameter's `[out, in, height · width]` in float, a convolution's
/// `[out, height · width, in]` in the maps' type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Output channels.
    pub out: usize,
    /// Input channels of a group.
    pub input: usize,
    /// Height · width of the window.
    pub taps: usize,
    /// What is read.
    pub from: Address,
    /// What is written.
    pub to: Address,
}

/// Entries of a launch's table of weights.
const TURNS: usize = 96;
/// Words of an entry.
const WORDS: usize = 5;
/// Elements of a block, at most, as the kernels have it.
const TURNED: usize = 2304;

/// Pairs of output and input channel of a block of the kernel called `name`.
pub(crate) fn share_of(name: &str, taps: usize) -> Result<usize> {
    if taps > TURNED {
        return Err(Error::Launch {
            kernel: name.into(),
            message: format!("a window of {taps} pixels, {TURNED} at most"),
        });
    }
    Ok(TURNED / taps.max(1))
}

fn turn(engine: &dyn Engine, name: &str, element: Element, all: &[Turn]) -> Result<()> {
    let name = format!("{name}_{}", element.suffix());
    let size = |size| count("weight", size);
    for turns in all.chunks(TURNS) {
        let mut table = Vec::with_capacity(TURNS * WORDS);
        let mut blocks = 0;
        for turn in turns {
            let (pairs, share) = (turn.out * turn.input, share_of(&name, turn.taps)?);
            table.extend([turn.from, turn.to]);
            table.push(word(size(pairs)?, size(turn.input)?));
            table.push(word(size(turn.taps)?, size(blocks)?));
            table.push(word(size(share)?, 0));
            size(pairs * turn.taps)?;
            blocks += pairs.div_ceil(share);
        }
        table.resize(TURNS * WORDS, 0);
        // SAFETY: the promise of both callers' callers.
        unsafe { engine.launch(&name, (size(blocks)?, 1), args![table, size(turns.len())?]) }?;
    }
    Ok(())
}

/// From parameters' order to convolutions', all weights in as few launches as there is room for.
///
/// # Safety
/// The arrays are as long as the sizes say; none is empty.
///
/// # Errors
/// When a launch fails.
pub unsafe fn taps_first(engine: &dyn Engine, element: Element, all: &[Turn]) -> Result<()> {
    turn(engine, "taps_first", element, all)
}

/// From convolutions' order to parameters', for gradients.
///
/// # Safety
/// The arrays are as long as the sizes say; none is empty.
///
/// # Errors
/// When a launch fails.
pub unsafe fn taps_last(engine: &dyn Engine, element: Element, all: &[Turn]) -> Result<()> {
    turn(engine, "taps_last", element, all)
}

/// A data set in the engine's memory, bytes `[image, height, width, channel]`.
#[derive(Debug, Clone, Copy)]
pub struct Images {
    /// The bytes.
    pub pixels: Address,
    /// Height and width of an image.
    pub size: (usize, usize),
    /// Channels of an image.
    pub channels: usize,
    /// Mean of each channel, floats.
    pub mean: Address,
    /// `1 / standard deviation` of each channel, floats.
    pub inv_std: Address,
}

/// Which images, and what becomes of them: one entry a sample.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// Samples.
    pub batch: usize,
    /// Image of the set, u32.
    pub index: Address,
    /// Row of the image that the output's first shows, i32, possibly outside.
    pub top: Address,
    /// The same of columns.
    pub left: Address,
    /// 1 to mirror, u32.
    pub flip: Address,
    /// Whether outside is black before normalisation; else it is 0 after it.
    pub black: bool,
}

impl Images {
    /// A normalised batch `[batch, height, width, channel]` of `size` into `to`.
    ///
    /// # Safety
    /// The arrays are as their fields say, and indices are images of the set.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn batch(
        &self,
        engine: &dyn Engine,
        draws: Draws,
        size: (usize, usize),
        element: Element,
        to: Address,
    ) -> Result<()> {
        let all = draws.batch * size.0 * size.1 * self.channels;
        let name = format!("batch_images_{}", element.suffix());
        let pixels = |value| count("image", value);
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                &name,
                blocks("batch", all)?,
                args![
                    self.pixels,
                    draws.index,
                    draws.top,
                    draws.left,
                    draws.flip,
                    self.mean,
                    self.inv_std,
                    to,
                    count("batch", all)?,
                    pixels(self.size.0)?,
                    pixels(self.size.1)?,
                    pixels(size.0)?,
                    pixels(size.1)?,
                    pixels(self.channels)?,
                    draws.black
                ],
            )
        }
    }
}
