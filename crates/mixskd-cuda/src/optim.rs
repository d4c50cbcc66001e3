//! The optimiser's update of many parameters in few launches, and what a step is judged by before it.

use crate::engine::{args, count, word};
use crate::loss::scaled_sum;
use crate::update::share_of;
use crate::{Address, Element, Engine, Result};

/// Elements of a block, as the kernels have it.
const CHUNK: usize = 2048;
/// Entries of a launch's table of parameters.
const SLOTS: usize = 96;
/// Entries of a launch's table of convolutions' weights, and words of one.
const TURNED_SLOTS: usize = 70;
const TURNED_WORDS: usize = 7;
/// Entries of a launch's table of arrays.
const VIEWS: usize = 240;
/// Elements of a block that looks for what is not finite.
const LOOKED_AT: usize = 8192;

/// One parameter of an update: arrays of `len` floats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// Changed in place.
    pub parameter: Address,
    /// Read.
    pub gradient: Address,
    /// Changed in place.
    pub velocity: Address,
    /// Elements.
    pub len: usize,
    /// Of the learning rate.
    pub factor: f32,
}

/// A convolution's weight of an update whose gradient is as convolutions make it: parameter and velocity `[out, in, height · width]` in float,
/// gradient and weight in convolutions' order `[out, height · width, in]`, in the maps' type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnedSlot {
    /// Changed in place.
    pub parameter: Address,
    /// Read.
    pub gradient: Address,
    /// Changed in place.
    pub velocity: Address,
    /// The parameter in convolutions' order, written.
    pub turned: Address,
    /// Output channels.
    pub out: usize,
    /// Input channels of a group.
    pub input: usize,
    /// Height · width of the window.
    pub taps: usize,
    /// Of the learning rate.
    pub factor: f32,
}

/// Settings of an update of stochastic gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Momentum.
    pub momentum: f32,
    /// L2 penalty.
    pub decay: f32,
    /// Nesterov momentum.
    pub nesterov: bool,
}

impl Sgd {
    /// Updates every parameter, by the learning rate at `lr`; where `verdict` is there and 0, none.
    ///
    /// # Safety
    /// Arrays are as long as the slots say, `lr` is one float, `verdict` is null or [`judge`]'s.
    ///
    /// # Errors
    /// When a launch fails.
    pub unsafe fn step(
        self,
        engine: &dyn Engine,
        slots: &[Slot],
        lr: Address,
        verdict: Address,
    ) -> Result<()> {
        for slots in slots.chunks(SLOTS) {
            let mut table = Vec::with_capacity(SLOTS * 5);
            let mut blocks = 0;
            for slot in slots {
                table.extend([slot.parameter, slot.gradient, slot.velocity]);
                table.push(word(
                    count("parameter", slot.len)?,
                    count("parameter", blocks)?,
                ));
                table.push(word(slot.factor.to_bits(), 0));
                blocks += slot.len.div_ceil(CHUNK);
            }
            table.resize(SLOTS * 5, 0);
            let sizes = [blocks, slots.len()];
            // SAFETY: the caller's promise.
            unsafe { self.launch(engine, "sgd", sizes, table, [lr, verdict]) }?;
        }
        Ok(())
    }

    /// The same of convolutions' weights, which are brought into convolutions' order too; where `verdict` forbids the update, those that are there stay.
    ///
    /// # Safety
    /// Arrays are as long as the slots say, gradients and weights in convolutions' order are of type `element`; else as in [`Self::step`].
    ///
    /// # Errors
    /// When a launch fails.
    pub unsafe fn step_turned(
        self,
        engine: &dyn Engine,
        element: Element,
        slots: &[TurnedSlot],
        lr: Address,
        verdict: Address,
    ) -> Result<()> {
        let name = format!("sgd_turned_{}", element.suffix());
        let size = |size| count("weight", size);
        for slots in slots.chunks(TURNED_SLOTS) {
            let mut table = Vec::with_capacity(TURNED_SLOTS * TURNED_WORDS);
            let mut blocks = 0;
            for slot in slots {
                let share = share_of(&name, slot.taps)?;
                let pairs = slot.out * slot.input;
                table.extend([slot.parameter, slot.velocity, slot.gradient, slot.turned]);
                table.push(word(size(pairs)?, size(slot.input)?));
                table.push(word(size(slot.taps)?, size(blocks)?));
                table.push(word(size(share)?, slot.factor.to_bits()));
                size(pairs * slot.taps)?;
                blocks += pairs.div_ceil(share);
            }
            table.resize(TURNED_SLOTS * TURNED_WORDS, 0);
            let sizes = [blocks, slots.len()];
            // SAFETY: the caller's promise.
            unsafe { self.launch(engine, &name, sizes, table, [lr, verdict]) }?;
        }
        Ok(())
    }

    /// One launch of so many blocks over a table of so many entries.
    unsafe fn launch(
        self,
        engine: &dyn Engine,
        name: &str,
        [blocks, entries]: [usize; 2],
        table: Vec<u64>,
        [lr, verdict]: [Address; 2],
    ) -> Result<()> {
        let (blocks, entries) = (count("parameter", blocks)?, count("parameter", entries)?);
        let (momentum, decay, nesterov) = (self.momentum, self.decay, self.nesterov);
        let all = args![table, entries, lr, verdict, momentum, decay, nesterov];
        // SAFETY: the promise of the callers' callers.
        unsafe { engine.launch(name, (blocks, 1), all) }
    }
}

/// An array that a step is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Where it begins.
    pub at: Address,
    /// Elements.
    pub len: usize,
    /// Their type.
    pub element: Element,
}

/// Floats of scratch memory that [`judge`] takes for arrays of these lengths.
pub fn judge_scratch(lengths: impl IntoIterator<Item = usize>) -> usize {
    lengths.into_iter().map(|len| len.div_ceil(LOOKED_AT)).sum()
}

/// `verdict`: 1 where every value of all arrays is finite, or else 0. Those of one type are one launch where there is room for them. With `broken`, a float that is 0 at first, every verdict after a bad one is bad.
///
/// # Safety
/// Arrays are as long as they are said to be, `scratch` has [`judge_scratch`] floats, `verdict` is one; `broken` is null or one.
///
/// # Errors
/// When a launch fails.
pub unsafe fn judge(
    engine: &dyn Engine,
    arrays: &[View],
    scratch: Address,
    verdict: Address,
    broken: Address,
) -> Result<()> {
    let mut done = 0;
    let alike = [Element::F32, Element::Bf16].map(|element| {
        let alike = arrays.iter().filter(|array| array.element == element);
        alike.copied().collect::<Vec<_>>()
    });
    for arrays in alike.iter().flat_map(|arrays| arrays.chunks(VIEWS)) {
        let mut table = Vec::with_capacity(VIEWS * 2);
        let mut blocks = 0;
        for array in arrays {
            table.push(array.at);
            let len = count("gradient", array.len)?;
            table.push(word(len, count("gradient", blocks)?));
            blocks += array.len.div_ceil(LOOKED_AT);
        }
        table.resize(VIEWS * 2, 0);
        let entries = count("gradient", arrays.len())?;
        // SAFETY: the caller's promise; the parts of the scratch memory are disjoint.
        unsafe {
            engine.launch(
                &format!("look_{}", arrays[0].element.suffix()),
                (count("gradient", blocks)?, 1),
                args![table, entries, scratch, count("gradient", done)?],
            )?;
        }
        done += blocks;
    }
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            "judge",
            (1, 1),
            args![scratch, count("gradient", done)?, verdict, broken],
        )
    }
}

/// `hits`, one float: the rows of `logits` (`[rows, classes]` floats) whose largest, the first of equals, is the target's.
///
/// # Safety
/// Arrays are as long as the sizes say, `scratch` has a float for each row.
///
/// # Errors
/// When a launch fails.
pub unsafe fn count_hits(
    engine: &dyn Engine,
    [rows, classes]: [usize; 2],
    [logits, targets]: [Address; 2],
    scratch: Address,
    hits: Address,
) -> Result<()> {
    let (rows, classes) = (count("row", rows)?, count("class", classes)?);
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            "row_hits",
            (rows, 1),
            args![logits, targets, scratch, classes],
        )?;
        scaled_sum(engine, scratch, rows, 1.0, hits)
    }
}
