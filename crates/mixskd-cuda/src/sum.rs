//! Sums: of gradients that come from several sides, of single numbers, and what surrounds a matrix product. Joined channels.

use crate::engine::{ACROSS, args, blocks, count, word};
use crate::loss::Gradient;
use crate::{Address, Element, Engine, Error, Result};

/// Arrays that one launch adds up or joins.
pub const MOST_PARTS: usize = 16;
/// Numbers that one launch takes: a thread each, in a table of less than 4096 bytes.
pub const MOST_NUMBERS: usize = 240;

/// An array of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub x: Address,
    /// The element of the sum that its first belongs to; of joined maps, its first channel.
    pub first: usize,
    /// Its elements; of joined maps, its channels.
    pub len: usize,
}

fn too_many(kernel: &str, what: &str, got: usize, most: usize) -> Error {
    Error::Launch {
        kernel: kernel.into(),
        message: format!("{got} {what}, {most} at most"),
    }
}

/// The table of a launch, of `most` parts, and the widest packs that suit them all beside `to`.
pub(crate) fn table(
    kernel: &str,
    parts: &[Part],
    most: usize,
    element: Element,
    (to, len): (Address, usize),
) -> Result<(Vec<u64>, usize)> {
    if parts.len() > most {
        return Err(too_many(kernel, "arrays", parts.len(), most));
    }
    let mut words = Vec::with_capacity(2 * MOST_PARTS);
    let mut width = element.width(len, &[to]);
    for part in parts {
        for size in [part.first, part.len] {
            width = width.min(element.width(size, &[part.x]));
        }
        words.push(part.x);
        words.push(word(count("sum", part.first)?, count("sum", part.len)?));
    }
    words.resize(2 * MOST_PARTS, 0);
    Ok((words, width))
}

/// `y = Σ parts`, of `len` elements; 0 where there is none. Added in float, in their order.
///
/// # Safety
/// Each part has its length, and ends within the sum.
///
/// # Errors
/// When there are more than [`MOST_PARTS`] or the launch fails.
pub unsafe fn parts(
    engine: &dyn Engine,
    element: Element,
    parts: &[Part],
    y: Address,
    len: usize,
) -> Result<()> {
    let (words, width) = table("sum_parts", parts, MOST_PARTS, element, (y, len))?;
    count("sum", len)?;
    let packs = len / width;
    let name = format!("sum_parts_{}_{width}", element.suffix());
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            &name,
            blocks("sum", packs)?,
            args![words, parts.len() as u32, y, count("sum", packs)?],
        )
    }
}

/// Maps of `pixels` pixels to one with all their channels, or `back` from it.
///
/// # Safety
/// Parts are `[pixels, len]`, `joined` has `channels`, and every one of these is one part's.
///
/// # Errors
/// When there are more than [`MOST_PARTS`] or the launch fails.
pub unsafe fn join(
    engine: &dyn Engine,
    element: Element,
    parts: &[Part],
    joined: Address,
    (pixels, channels): (usize, usize),
    back: bool,
) -> Result<()> {
    let (words, width) = table("join", parts, MOST_PARTS, element, (joined, channels))?;
    count("map", pixels * channels)?;
    let packs = pixels * channels / width;
    let name = format!("join_{}_{width}", element.suffix());
    let (entries, channels) = (parts.len() as u32, count("map", channels)?);
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            &name,
            blocks("map", packs)?,
            args![words, entries, joined, count("map", packs)?, channels, back],
        )
    }
}

/// The table of numbers and weights.
fn numbers(kernel: &str, all: &[(Address, f32)]) -> Result<Vec<u64>> {
    if all.len() > MOST_NUMBERS {
        return Err(too_many(kernel, "numbers", all.len(), MOST_NUMBERS));
    }
    let mut words: Vec<u64> = all
        .iter()
        .flat_map(|&(x, weight)| [x, word(weight.to_bits(), 0)])
        .collect();
    words.resize(2 * MOST_NUMBERS, 0);
    Ok(words)
}

/// `y = Σ weight · x` of single floats, added in double precision.
///
/// # Safety
/// Every address is one float's.
///
/// # Errors
/// When there are more than [`MOST_NUMBERS`] or the launch fails.
pub unsafe fn weighted_sum(engine: &dyn Engine, all: &[(Address, f32)], y: Address) -> Result<()> {
    let table = numbers("weighted_sum", all)?;
    // SAFETY: the caller's promise.
    unsafe { engine.launch("weighted_sum", (1, 1), args![table, all.len() as u32, y]) }
}

/// `y_i = weight_i · x_i` of single floats.
///
/// # Safety
/// Every address is one float's, and `y` has as many.
///
/// # Errors
/// When there are more than [`MOST_NUMBERS`] or the launch fails.
pub unsafe fn weighted(engine: &dyn Engine, all: &[(Address, f32)], y: Address) -> Result<()> {
    let table = numbers("weighted", all)?;
    // SAFETY: the caller's promise.
    unsafe { engine.launch("weighted", (1, 1), args![table, all.len() as u32, y]) }
}

/// `y = x + bias` of `[rows, channels]` floats; `bias` may be [`NULL`](crate::NULL).
///
/// # Safety
/// The arrays are as long as the sizes say.
///
/// # Errors
/// When the launch fails.
pub unsafe fn add_row(
    engine: &dyn Engine,
    (rows, channels): (usize, usize),
    x: Address,
    bias: Address,
    y: Address,
) -> Result<()> {
    let all = count("map", rows * channels)?;
    let grid = blocks("map", rows * channels)?;
    let channels = count("map", channels)?;
    // SAFETY: the caller's promise.
    unsafe { engine.launch("add_row", grid, args![x, bias, y, all, channels]) }
}

/// `y_c = Σ_r x_rc` of floats.
///
/// # Safety
/// The arrays are as long as the sizes say.
///
/// # Errors
/// When the launch fails.
pub unsafe fn columns(
    engine: &dyn Engine,
    (rows, channels): (usize, usize),
    x: Address,
    y: Address,
) -> Result<()> {
    count("map", rows * channels)?;
    let (rows, channels) = (count("map", rows)?, count("map", channels)?);
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            "column_sum",
            (channels.div_ceil(ACROSS as u32), 1),
            args![x, y, rows, channels],
        )
    }
}

/// What a discriminator says of two batches, `[rows, answers]` floats each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwoSides {
    /// Samples of a batch.
    pub rows: usize,
    /// Logits of a sample: the first says yes to `a`, a second one to `b`.
    pub answers: usize,
}

impl TwoSides {
    /// The binary cross-entropy, a mean over all, into `loss`.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn forward(
        self,
        engine: &dyn Engine,
        [a, b]: [Address; 2],
        loss: Address,
    ) -> Result<()> {
        let all = count("batch", self.rows * self.answers)?;
        let answers = self.answers as u32;
        // SAFETY: the caller's promise.
        unsafe { engine.launch("two_sides", (1, 1), args![a, b, loss, all, answers]) }
    }

    /// Both gradients, given the loss's.
    ///
    /// # Safety
    /// The arrays are as long as the sizes say.
    ///
    /// # Errors
    /// When the launch fails.
    pub unsafe fn backward(
        self,
        engine: &dyn Engine,
        [a, b]: [Address; 2],
        gradient: Gradient,
        [da, db]: [Address; 2],
    ) -> Result<()> {
        let len = self.rows * self.answers;
        let all = count("batch", len)?;
        let answers = self.answers as u32;
        // SAFETY: the caller's promise.
        unsafe {
            engine.launch(
                "two_sides_backward",
                blocks("batch", len)?,
                args![a, b, gradient.at, gradient.factor, da, db, all, answers],
            )
        }
    }
}
