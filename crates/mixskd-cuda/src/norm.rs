//! Batch norm with the residual sum and ReLU that follow it.

use crate::engine::{BLOCK, args, blocks, count, word};
use crate::sum::{Part, table};
use crate::{Address, Element, Engine, Error, NULL, Result};

/// Slabs of rows that are summed side by side, at most: as many as the finishing kernels have room for.
const SLABS: usize = 256;
/// Blocks of a kernel that adds up, about.
const SUMMING: usize = 512;
/// Packs of channels side by side in a block, at most.
const LANES: usize = 32;
/// Channels that a block of the finishing kernels has.
const WIDTH: usize = 8;
/// Blocks of a kernel that goes over a map element by element, about.
const BLOCKS: usize = 1024;

/// `[rows, channels]`, rows being batch · height · width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Samples of each channel.
    pub rows: usize,
    /// Channels.
    pub channels: usize,
    /// Type of the maps.
    pub element: Element,
}

/// How the sums over rows are cut.
struct Cut {
    lanes: usize,
    tiles: usize,
    slab: usize,
    slabs: usize,
}

/// Packs of channels side by side in a block.
fn lanes(packs: usize) -> usize {
    packs.next_power_of_two().min(LANES)
}

impl Shape {
    /// Floats of scratch memory that [`statistics`] and [`backward`] need.
    pub fn scratch(self) -> usize {
        2 * self.slabs() * self.channels
    }

    /// Depends on the shape alone, as the order of sums does.
    fn slab(self) -> usize {
        let packs = self.channels / self.element.width(self.channels, &[]);
        let lanes = lanes(packs);
        let blocks = (self.rows * packs.div_ceil(lanes)).div_ceil(SUMMING);
        // Two rows for a thread, at least.
        let least = 2 * BLOCK / lanes;
        self.rows.div_ceil(SLABS).max(blocks).max(least)
    }

    fn slabs(self) -> usize {
        self.rows.div_ceil(self.slab())
    }

    fn cut(self, width: usize) -> Cut {
        let packs = self.channels / width;
        let lanes = lanes(packs);
        Cut {
            lanes,
            tiles: packs.div_ceil(lanes),
            slab: self.slab(),
            slabs: self.slabs(),
        }
    }

    /// The same for kernels that only go over the map: slabs are whole lines of a block.
    fn pieces(self, width: usize) -> Cut {
        let mut cut = self.cut(width);
        let lines = BLOCK / cut.lanes;
        let slab = (self.rows * cut.tiles).div_ceil(BLOCKS);
        cut.slab = slab.next_multiple_of(lines);
        cut.slabs = self.rows.div_ceil(cut.slab);
        cut
    }

    fn packed(self, name: &str, width: usize) -> String {
        format!("{name}_{}_{width}", self.element.suffix())
    }
}

/// Mean, biased variance and `1 / √(variance + eps)` per channel.
///
/// # Safety
/// Arrays: `x` `[rows, channels]`; `scratch` [`Shape::scratch`] floats; `mean`, `var`, `inv_std` `[channels]` floats. No dimension
/// is 0.
///
/// # Errors
/// When a launch fails.
pub unsafe fn statistics(
    engine: &dyn Engine,
    shape: Shape,
    x: Address,
    eps: f32,
    scratch: Address,
    [mean, var, inv_std]: [Address; 3],
) -> Result<()> {
    let width = shape.element.width(shape.channels, &[x]);
    let cut = shape.cut(width);
    let (rows, channels) = (count("map", shape.rows)?, count("map", shape.channels)?);
    let (slab, slabs) = (cut.slab as u32, cut.slabs as u32);
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            &shape.packed("norm_partial", width),
            (cut.tiles as u32, slabs),
            args![x, scratch, rows, channels, slab, cut.lanes as u32],
        )?;
        engine.launch(
            "norm_finish",
            (channels.div_ceil(WIDTH as u32), 1),
            args![
                scratch, mean, var, inv_std, rows, channels, slab, slabs, eps
            ],
        )
    }
}

/// `1 / √(var + eps)` of given variances.
///
/// # Safety
/// Arrays: `var` and `inv_std` of `channels` floats.
///
/// # Errors
/// When the launch fails.
pub unsafe fn inverse(
    engine: &dyn Engine,
    channels: usize,
    var: Address,
    eps: f32,
    inv_std: Address,
) -> Result<()> {
    let grid = blocks("channels", channels)?;
    let channels = count("channels", channels)?;
    // SAFETY: the caller's promise.
    unsafe { engine.launch("norm_inverse", grid, args![var, inv_std, channels, eps]) }
}

/// `y = act(weight · (x − mean) · inv_std + bias + residual)`.
///
/// # Safety
/// Arrays: `x`, `y` and, unless [`NULL`], `residual` `[rows, channels]`; `params` (weight and bias),
/// `mean` and `inv_std` `[channels]`.
///
/// # Errors
/// When the launch fails.
pub unsafe fn forward(
    engine: &dyn Engine,
    shape: Shape,
    x: Address,
    residual: Address,
    [weight, bias]: [Address; 2],
    [mean, inv_std]: [Address; 2],
    relu: bool,
    y: Address,
) -> Result<()> {
    // Parameters are read in packs of 16 bytes too.
    let all = [x, residual, y, weight, bias, mean, inv_std];
    let width = shape.element.width(shape.channels, &all);
    let cut = shape.pieces(width);
    let (rows, channels) = (count("map", shape.rows)?, count("map", shape.channels)?);
    let (slab, lanes) = (cut.slab as u32, cut.lanes as u32);
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            &shape.packed("norm_apply", width),
            (cut.tiles as u32, cut.slabs as u32),
            args![
                x, residual, weight, bias, mean, inv_std, y, rows, channels, slab, lanes, relu
            ],
        )
    }
}

/// Parts that [`backward`] adds up on its way, at most.
pub const MOST_GATHERED: usize = 4;

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The input, `[rows, channels]`.
    pub x: Address,
    /// The output where a ReLU followed and it is to be read, else [`NULL`].
    pub y: Address,
    /// The output's gradient: the sum of these, in their order. Where there is one it is the whole.
    pub dy: &'a [Part],
    /// Weight of each channel.
    pub weight: Address,
    /// Bias of each channel where a ReLU followed whose output is made again instead of read, else [`NULL`]. There was no
    /// residual then.
    pub bias: Address,
    /// Mean of each channel.
    pub mean: Address,
    /// `1 / √(variance + eps)` of each channel.
    pub inv_std: Address,
    /// Whether the statistics are those of `x`, so that its gradient flows through them too.
    pub own: bool,
}

/// Where the backward pass writes.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    /// Scratch memory, [`Shape::scratch`] floats.
    pub scratch: Address,
    /// Scratch memory, three floats a channel.
    pub coefficients: Address,
    /// Gradients of weights and biases, `[2, channels]`.
    pub d_params: Address,
    /// Gradient of the input, or [`NULL`].
    pub dx: Address,
    /// The gradient behind the ReLU, `[rows, channels]`, where [`Incoming::gathers`]. It is that of a residual.
    pub behind: Address,
}

impl Incoming<'_> {
    /// Whether the gradient behind the ReLU is written down and read again. Otherwise it is made twice, of the same two maps; that of a residual, which
    /// no ReLU followed, is then the output's.
    pub fn gathers(&self) -> bool {
        self.dy.len() != 1 || self.y != NULL
    }
}

/// All gradients.
///
/// # Safety
/// The arrays are as their fields say.
///
/// # Errors
/// When there are more parts than [`MOST_GATHERED`], or a launch fails.
pub unsafe fn backward(
    engine: &dyn Engine,
    shape: Shape,
    from: Incoming,
    to: Outgoing,
) -> Result<()> {
    let Shape { rows, channels, .. } = shape;
    let gathered = if from.gathers() { to.behind } else { NULL };
    if from.gathers() && gathered == NULL {
        return Err(Error::Launch {
            kernel: "norm_backward_gather".into(),
            message: "there is no memory for the gradient behind the ReLU".into(),
        });
    }
    let maps = [from.x, from.y, to.dx, gathered];
    let floats = [
        from.weight,
        from.bias,
        from.mean,
        from.inv_std,
        to.coefficients,
    ];
    let all: Vec<Address> = maps.into_iter().chain(floats).collect();
    let (name, most) = ("norm_backward_gather", MOST_GATHERED);
    let (parts, width) = table(name, from.dy, most, shape.element, (NULL, rows * channels))?;
    let width = width.min(shape.element.width(channels, &all));
    let cut = shape.cut(width);
    count("map", rows * channels)?;
    let (rows, channels) = (count("map", rows)?, count("map", channels)?);
    let (slab, slabs) = (cut.slab as u32, cut.slabs as u32);
    let Incoming { x, y, mean, .. } = from;
    let (weight, inv_std, bias) = (from.weight, from.inv_std, from.bias);
    let (scratch, coefficients) = (to.scratch, to.coefficients);
    let (grid, lanes) = ((cut.tiles as u32, slabs), cut.lanes as u32);
    // What is left to do once the sums are there.
    let (dy, bias) = match from.dy {
        [whole] if gathered == NULL => {
            let name = shape.packed("norm_backward_partial", width);
            let dy = whole.x;
            let all = args![
                x, dy, mean, weight, inv_std, bias, scratch, rows, channels, slab, lanes
            ];
            // SAFETY: the caller's promise.
            unsafe { engine.launch(&name, grid, all) }?;
            (dy, bias)
        }
        _ => {
            let entries = from.dy.len() as u32;
            let all = args![
                x, y, parts, entries, mean, weight, inv_std, bias, gathered, scratch, rows,
                channels, slab, lanes
            ];
            // SAFETY: the caller's promise.
            unsafe { engine.launch(&shape.packed(name, width), grid, all) }?;
            (gathered, NULL)
        }
    };
    // SAFETY: the caller's promise.
    unsafe {
        engine.launch(
            "norm_backward_finish",
            (channels.div_ceil(WIDTH as u32), 1),
            args![
                scratch,
                from.weight,
                from.inv_std,
                to.d_params,
                coefficients,
                rows,
                channels,
                slabs,
                from.own
            ],
        )?;
        if to.dx == NULL {
            return Ok(());
        }
        let cut = shape.pieces(width);
        engine.launch(
            &shape.packed("norm_backward_apply", width),
            (cut.tiles as u32, cut.slabs as u32),
            args![
                x,
                dy,
                mean,
                weight,
                inv_std,
                bias,
                coefficients,
                to.dx,
                rows,
                channels,
                cut.slab as u32,
                cut.lanes as u32
            ],
        )
    }
}

/// One layer's statistics of a batch, and the running ones that are moved towards them: arrays of `channels` floats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    /// Channels.
    pub channels: usize,
    /// Weight of the newest batch.
    pub momentum: f32,
    /// What its biased variance is multiplied by.
    pub unbiased: f32,
    /// The batch's mean and variance.
    pub batch: [Address; 2],
    /// The running ones.
    pub running: [Address; 2],
}

/// Entries of a launch's table of layers.
const LAYERS: usize = 96;

/// `running ← (1 − momentum) · running + momentum · batch`, in place, for mean and variance of all `layers`, which have arrays of their own.
///
/// # Safety
/// The arrays have a float for each channel.
///
/// # Errors
/// When a launch fails.
pub unsafe fn advance(engine: &dyn Engine, layers: &[Running]) -> Result<()> {
    for layers in layers.chunk_by(|a, b| a.momentum.to_bits() == b.momentum.to_bits()) {
        for layers in layers.chunks(LAYERS) {
            let mut table = Vec::with_capacity(LAYERS * 5);
            let mut widest = 0;
            for layer in layers {
                table.extend(layer.batch);
                table.extend(layer.running);
                table.push(word(
                    count("channels", layer.channels)?,
                    layer.unbiased.to_bits(),
                ));
                widest = widest.max(layer.channels);
            }
            table.resize(LAYERS * 5, 0);
            let grid = (
                blocks("channels", widest)?.0,
                count("layers", layers.len())?,
            );
            // SAFETY: the caller's promise.
            unsafe { engine.launch("norm_running", grid, args![table, layers[0].momentum]) }?;
        }
    }
    Ok(())
}
