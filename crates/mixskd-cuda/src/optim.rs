//! The optimiser's update of many parameters in few launches, and what a step is judged by before it.

use crate::engine::{args, count, word};
use crate::loss::scaled_sum;
use crate::{Address, Engine, Result};

/// Elements of a block, as the kernels have it.
const CHUNK: usize = 2048;
/// Entries of a launch's table of parameters.
const SLOTS: usize = 96;
/// Entries of a launch's table of arrays.
const VIEWS: usize = 240;

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
    /// Updates every parameter, by the learning rate at `lr`; where `verdict` is there and its second float is 0, none.
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
            // SAFETY: the caller's promise.
            unsafe {
                engine.launch(
                    "sgd",
                    (count("parameter", blocks)?, 1),
                    args![
                        table,
                        count("parameter", slots.len())?,
                        lr,
                        verdict,
                        self.momentum,
                        self.decay,
                        self.nesterov
                    ],
                )?;
            }
        }
        Ok(())
    }
}

/// Doubles of scratch memory that [`judge`] takes for arrays of these lengths.
pub fn judge_scratch(lengths: impl IntoIterator<Item = usize>) -> usize {
    lengths.into_iter().map(|len| len.div_ceil(CHUNK)).sum()
}

/// `verdict = {Σ x², 1 or 0}` over all values of all arrays, given as address and length: 1 where the sum, and so every value, is finite.
///
/// # Safety
/// Arrays are as long as they are said to be, `scratch` has [`judge_scratch`] doubles, `verdict` two floats.
///
/// # Errors
/// When a launch fails.
pub unsafe fn judge(
    engine: &dyn Engine,
    arrays: &[(Address, usize)],
    scratch: Address,
    verdict: Address,
) -> Result<()> {
    let mut done = 0;
    for arrays in arrays.chunks(VIEWS) {
        let mut table = Vec::with_capacity(VIEWS * 2);
        let mut blocks = 0;
        for &(at, len) in arrays {
            table.extend([
                at,
                word(count("gradient", len)?, count("gradient", blocks)?),
            ]);
            blocks += len.div_ceil(CHUNK);
        }
        table.resize(VIEWS * 2, 0);
        let entries = count("gradient", arrays.len())?;
        // SAFETY: the caller's promise; the parts of the scratch memory are disjoint.
        unsafe {
            engine.launch(
                "squares",
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
            args![scratch, count("gradient", done)?, verdict],
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
