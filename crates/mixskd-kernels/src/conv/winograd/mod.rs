//! 3×3 convolution of stride 1 by Winograd's F(4×4, 3×3): 36 multiplications a tile of sixteen outputs instead of 144.
//!
//! Blocks of tiles are transformed, multiplied point by point, and transformed back without leaving the cache.

mod tiles;
mod transform;
mod weights;

use crate::gemm::micro::{Dense, Outer, ROWS, Run};
use crate::gemm::pack::{Panel, Width};
use crate::par::{self, Scratch, Shared};
use crate::simd::Element;

use super::config::Geometry;
use super::epilogue::Epilogue;
use tiles::{Gradient, Input, Output, Tiles, Transformed};
use transform::POINTS;
use weights::{Sums, Weights};

/// Channels below which transforms cost more than the multiplications they save.
const MIN_CHANNELS: usize = 8;
/// Cost of transforming one window, in multiplications of one channel pair: mostly memory traffic.
const WEIGHT_COST: usize = 1000;
/// Cost of reading 36 transformed weights instead of nine.
const PREPARED_COST: usize = 150;
/// Elements of transformed tiles that a block may have.
const BLOCK_ELEMENTS: usize = 256 * 1024;
/// Up to this many tiles, all are transformed before any is multiplied, and tasks share out the panels of weights.
const FEW_TILES: usize = 128;
/// Rows of weights that are transformed at a time where there are few tiles: with a panel's columns and all points they
/// fill about a third of a second-level cache, and so do the sums of a hundred tiles.
const K_BLOCK: usize = 64;

/// Whether Winograd is the faster way for this shape.
pub(super) fn wins(g: &Geometry) -> bool {
    saves(g, WEIGHT_COST)
}

/// Whether it is where the weights are [`prepare`]d.
pub(super) fn wins_prepared(g: &Geometry) -> bool {
    saves(g, PREPARED_COST)
}

/// Whether Winograd saves more multiplications of channel pairs than `cost`.
fn saves(g: &Geometry, cost: usize) -> bool {
    let c = g.config;
    let fits = g.kernel_h == 3
        && g.kernel_w == 3
        && c.stride == 1
        && c.dilation == 1
        && c.groups == 1
        && c.padding <= 2
        && g.in_c.min(g.out_c) >= MIN_CHANNELS;
    if !fits {
        return false;
    }
    // Taps that fall inside the map, summed over output pixels along each axis.
    let inside = |size: usize, out: usize| -> usize {
        (0..out)
            .map(|o| {
                (0..3)
                    .filter(|t| (o + t).wrapping_sub(c.padding) < size)
                    .count()
            })
            .sum()
    };
    let direct = g.batch * inside(g.in_h, g.out_h) * inside(g.in_w, g.out_w);
    forward_tiles(g).count() * POINTS + cost < direct
}

fn forward_tiles(g: &Geometry) -> Tiles {
    Tiles {
        batch: g.batch,
        src_h: g.in_h,
        src_w: g.in_w,
        src_c: g.in_c,
        dst_h: g.out_h,
        dst_w: g.out_w,
        dst_c: g.out_c,
        padding: g.config.padding,
    }
}

/// Where the forward pass finds its weights.
fn forward_weights<'a, T>(g: &Geometry, w: &'a [T]) -> Weights<'a, T> {
    Weights {
        data: w,
        k: g.in_c,
        n: g.out_c,
        k_stride: 9,
        n_stride: 9 * g.in_c,
        flipped: false,
    }
}

/// The output of a convolution.
pub(super) fn forward<T: Element>(g: &Geometry, x: &[T], w: &[T]) -> Vec<T> {
    let tiles = forward_tiles(g);
    let weights = forward_weights(g, w);
    if tiles.count() <= FEW_TILES {
        return run_few(&tiles, x, weights);
    }
    run(&tiles, x, &weights.transformed(), None)
}

/// A forward pass's weights, transformed once.
pub(super) fn prepare<T: Element>(g: &Geometry, w: &[T]) -> Vec<T> {
    let weights = forward_weights(g, w);
    let mut u = vec![T::default(); weights.transformed_len()];
    weights.transform_into(&mut u);
    u
}

/// [`forward`] with [`prepare`]d weights.
pub(super) fn forward_prepared<T: Element>(
    g: &Geometry,
    x: &[T],
    u: &[T],
    epilogue: Option<Epilogue<'_, T>>,
) -> Vec<T> {
    run(&forward_tiles(g), x, u, epilogue)
}

/// The gradient of a convolution's input: a convolution with the taps reversed and the channels exchanged.
pub(super) fn input_gradient<T: Element>(g: &Geometry, dy: &[T], w: &[T]) -> Vec<T> {
    let weights = Weights {
        data: w,
        k: g.out_c,
        n: g.in_c,
        k_stride: 9 * g.in_c,
        n_stride: 9,
        flipped: true,
    };
    let tiles = Tiles {
        batch: g.batch,
        src_h: g.out_h,
        src_w: g.out_w,
        src_c: g.out_c,
        dst_h: g.in_h,
        dst_w: g.in_w,
        dst_c: g.in_c,
        padding: 2 - g.config.padding,
    };
    if tiles.count() <= FEW_TILES {
        return run_few(&tiles, dy, weights);
    }
    run(&tiles, dy, &weights.transformed(), None)
}

/// Tiles of a block: whole register tiles, few enough for the cache, and an even number of blocks for two threads.
fn block_tiles(tiles: usize, row: usize) -> usize {
    let fitting = (BLOCK_ELEMENTS / (POINTS * row) / ROWS * ROWS).clamp(4 * ROWS, 8 * ROWS);
    let blocks = tiles.div_ceil(fitting);
    let blocks = if blocks < 64 {
        blocks.next_multiple_of(4)
    } else {
        blocks
    };
    tiles.div_ceil(blocks)
}

fn run<T: Element>(tiles: &Tiles, src: &[T], u: &[T], epilogue: Option<Epilogue<'_, T>>) -> Vec<T> {
    let (k, n) = (tiles.src_c, tiles.dst_c);
    let zeros = vec![T::default(); k];
    let count = tiles.count();
    let row = k.next_multiple_of(16);
    let width = Width::of::<T>();
    let len = tiles.batch * tiles.dst_h * tiles.dst_w * tiles.dst_c;
    let input = |first: usize, count: usize, v: *mut T, layout: Transformed| {
        // SAFETY: the callers below give rows of their task's own.
        unsafe {
            Input {
                tiles,
                src,
                zeros: &zeros,
                first,
                count,
                v,
                layout,
            }
            .run();
        }
    };
    let products = |first, count, v: &[T], layout, panel, dst| {
        Products {
            tiles,
            v,
            layout,
            u,
            epilogue,
            first,
            count,
            panel: width.panel(n, panel),
            dst,
        }
        .run();
    };
    // SAFETY: blocks cover all tiles, tiles all output pixels, and panels all channels.
    unsafe {
        par::filled(len, |dst| {
            if count > FEW_TILES {
                let per_block = block_tiles(count, row + n.min(width.panel));
                par::each(count.div_ceil(per_block), |block| {
                    let first = block * per_block;
                    let here = per_block.min(count - first);
                    let layout = Transformed::new(here, row);
                    let mut v = Scratch::<T>::take(layout.len());
                    input(first, here, v.as_mut_ptr(), layout);
                    for panel in 0..width.panels(n) {
                        products(first, here, &v, layout, panel, dst);
                    }
                });
                return;
            }
            let layout = Transformed::new(count, row);
            let mut v = Scratch::<T>::take(layout.len());
            let shared = Shared::new(&mut v);
            par::each(count.div_ceil(2), |pair| {
                let first = pair * 2;
                let at = shared.at(first * row);
                input(first, 2.min(count - first), at, layout);
            });
            par::each(width.panels(n), |panel| {
                products(0, count, &v, layout, panel, dst);
            });
        })
    }
}

/// [`run`] for few tiles: weights are then the larger operand, so they are transformed where they are multiplied, a block
/// at a time, and never leave the cache.
fn run_few<T: Element>(tiles: &Tiles, src: &[T], weights: Weights<'_, T>) -> Vec<T> {
    let (k, n, count) = (weights.k, weights.n, tiles.count());
    let zeros = vec![T::default(); k];
    let width = Width::of::<T>();
    let layout = Transformed::new(count, k.next_multiple_of(16));
    let mut v = Scratch::<T>::take(layout.len());
    let shared = Shared::new(&mut v);
    par::each(count.div_ceil(2), |pair| {
        let first = pair * 2;
        // SAFETY: these tiles' rows are this task's own.
        unsafe {
            Input {
                tiles,
                src,
                zeros: &zeros,
                first,
                count: 2.min(count - first),
                v: shared.at(first * layout.row),
                layout,
            }
            .run();
        }
    });
    let len = tiles.batch * tiles.dst_h * tiles.dst_w * tiles.dst_c;
    // SAFETY: tiles cover all output pixels, and panels all channels.
    unsafe {
        par::filled(len, |dst| {
            par::each(width.panels(n), |panel| {
                let panel = width.panel(n, panel);
                let row = panel.vectors * width.lanes;
                let mut u = Scratch::<T>::take(POINTS * K_BLOCK * row);
                let m_layout = Transformed::new(count, row);
                let mut m = Scratch::<T>::take(m_layout.len());
                for first in (0..k).step_by(K_BLOCK) {
                    let part = first..(first + K_BLOCK).min(k);
                    weights.transform_block(panel, part.clone(), &mut u);
                    multiply(&v, layout, part, &u, &mut m, m_layout, panel);
                }
                Output {
                    tiles,
                    m: &m,
                    layout: m_layout,
                    first: 0,
                    count,
                    column: panel.column,
                    n: panel.n,
                    epilogue: None,
                    dst,
                }
                .run();
            });
        })
    }
}

/// Products, point by point, of the transformed tiles' channels `part` with a block `[point][part][panel]` of transformed
/// weights: written to `m` where the part is the first, added to it where it is not.
fn multiply<T: Element>(
    v: &[T],
    layout: Transformed,
    part: std::ops::Range<usize>,
    u: &[T],
    m: &mut [T],
    m_layout: Transformed,
    panel: Panel,
) {
    let row = m_layout.row;
    // SAFETY: both layouts have rows for as many tiles, `u` has a block of `k` rows for every point.
    unsafe {
        Dense {
            points: POINTS,
            rows: layout.tiles(),
            k: part.len(),
            vectors: panel.vectors,
            a: v[part.start..].as_ptr(),
            a_step: (layout.plane, layout.row),
            b: u.as_ptr(),
            c: m.as_mut_ptr(),
            c_step: (m_layout.plane, row),
            accumulate: part.start > 0,
        }
        .run();
    }
}

/// Products and output transform of some tiles and one panel of output channels.
struct Products<'a, T> {
    tiles: &'a Tiles,
    v: &'a [T],
    layout: Transformed,
    u: &'a [T],
    epilogue: Option<Epilogue<'a, T>>,
    first: usize,
    count: usize,
    panel: Panel,
    dst: Shared<T>,
}

impl<T: Element> Products<'_, T> {
    fn run(self) {
        let Self {
            tiles,
            v,
            layout,
            u,
            epilogue,
            first,
            count,
            panel,
            dst,
        } = self;
        let k = tiles.src_c;
        let row = panel.vectors * Width::of::<T>().lanes;
        let m_layout = Transformed::new(count, row);
        let mut m = Scratch::<T>::take(m_layout.len());
        let u = &u[panel.column * POINTS * k..];
        multiply(v, layout, 0..k, u, &mut m, m_layout, panel);
        // SAFETY: tasks differ in tiles or in panels, so they write different parts of the output.
        unsafe {
            Output {
                tiles,
                m: &m,
                layout: m_layout,
                first,
                count,
                column: panel.column,
                n: panel.n,
                epilogue,
                dst,
            }
            .run();
        }
    }
}

/// Transformed sums that fit into a core's cache: slices of the batch have sums of their own.
const SMALL_SUMS: usize = 192 * 1024;
/// Largest number of slices.
const SLICES: usize = 8;
/// Up to this many tiles, all are transformed first, and the sums are made and transformed back block by block.
const FEW_GRADIENT_TILES: usize = 512;
/// Elements of transformed tiles that are made at a time when the sums are large.
const CHUNK_ELEMENTS: usize = 2 * 1024 * 1024;

/// The gradient of a convolution's weight, `[out, in, 3, 3]`.
pub(super) fn weight_gradient<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    let tiles = forward_tiles(g);
    let count = tiles.count();
    let ldc = g.out_c.next_multiple_of(16);
    let len = POINTS * g.in_c * ldc;
    let zeros = vec![T::default(); g.in_c];
    let rows = g.in_c.next_multiple_of(16) + ldc;
    let sliced = len <= SMALL_SUMS;
    let slices = if sliced {
        (count / (2 * ROWS)).clamp(1, SLICES)
    } else {
        1
    };
    let gradient = WeightGradient {
        tiles: &tiles,
        x,
        dy,
        zeros: &zeros,
        ldc,
    };
    if count <= FEW_GRADIENT_TILES && !sliced {
        return gradient.few();
    }
    let mut sums = Scratch::<T>::take(slices * len);
    sums.fill(T::default());
    let shared = Shared::new(&mut sums);
    if sliced {
        let per_block = (BLOCK_ELEMENTS / (POINTS * rows)).clamp(24, 96);
        par::each(slices, |slice| {
            let part = count * slice / slices..count * (slice + 1) / slices;
            for first in part.clone().step_by(per_block) {
                let here = per_block.min(part.end - first);
                gradient.block(first, here, shared, slice * len, false);
            }
        });
    } else {
        let per_chunk = (CHUNK_ELEMENTS / (POINTS * rows)).clamp(32, count.max(32));
        for first in (0..count).step_by(per_chunk) {
            gradient.block(first, per_chunk.min(count - first), shared, 0, true);
        }
    }
    Sums {
        data: &sums,
        slices,
        rows: g.in_c,
        ldc,
    }
    .weight_gradient(g.in_c, g.out_c)
}

/// What a weight gradient is made of.
struct WeightGradient<'a, T> {
    tiles: &'a Tiles,
    x: &'a [T],
    dy: &'a [T],
    zeros: &'a [T],
    ldc: usize,
}

/// Tiles that a task transforms where a block is shared out.
const STEP: usize = 4;

impl<T: Element> WeightGradient<'_, T> {
    /// How transformed input and gradient tiles lie.
    fn layouts(&self, count: usize) -> (Transformed, Transformed) {
        let row = self.tiles.src_c.next_multiple_of(16);
        (
            Transformed::new(count, row),
            Transformed::new(count, self.ldc),
        )
    }

    /// Transforms tiles `first..first + count` of the input into `v` and of the gradient into `z`.
    fn transform(
        &self,
        first: usize,
        count: usize,
        v: &mut Scratch<T>,
        z: &mut Scratch<T>,
        parallel: bool,
    ) {
        let (v_layout, z_layout) = self.layouts(count);
        let (v, z) = (Shared::new(v), Shared::new(z));
        par::each_if(parallel, count.div_ceil(STEP), |step| {
            let at = step * STEP;
            let here = STEP.min(count - at);
            // SAFETY: these tiles' rows begin inside the buffers, and are this step's own.
            unsafe {
                Input {
                    tiles: self.tiles,
                    src: self.x,
                    zeros: self.zeros,
                    first: first + at,
                    count: here,
                    v: v.at(at * v_layout.row),
                    layout: v_layout,
                }
                .run();
                Gradient {
                    tiles: self.tiles,
                    dy: self.dy,
                    first: first + at,
                    count: here,
                    z: z.at(at * z_layout.row),
                    layout: z_layout,
                }
                .run();
            }
        });
    }

    /// The gradient where there are few tiles: sums of a block of weights are made over all tiles and transformed back
    /// before they leave the cache.
    fn few(&self) -> Vec<T> {
        let count = self.tiles.count();
        let (k, n) = (self.tiles.src_c, self.tiles.dst_c);
        let (v_layout, z_layout) = self.layouts(count);
        let mut v = Scratch::<T>::take(v_layout.len());
        let mut z = Scratch::<T>::take(z_layout.len());
        self.transform(0, count, &mut v, &mut z, true);
        let width = Width::of::<T>();
        let parts = k.div_ceil(K_BLOCK);
        // SAFETY: blocks cover all rows and panels.
        unsafe {
            par::filled(9 * k * n, |dw| {
                par::each(width.panels(n) * parts, |task| {
                    let panel = width.panel(n, task / parts);
                    let first = task % parts * K_BLOCK;
                    let rows = K_BLOCK.min(k - first);
                    let ldc = panel.vectors * width.lanes;
                    let mut sums = Scratch::<T>::take(POINTS * rows * ldc);
                    sums.fill(T::default());
                    for point in 0..POINTS {
                        let runs = [Run {
                            a: v[point * v_layout.plane..].as_ptr(),
                            b: z[point * z_layout.plane..].as_ptr(),
                            len: count,
                        }];
                        Outer {
                            runs: &runs,
                            a_step: v_layout.row,
                            b_step: z_layout.row,
                            a_offset: first,
                            b_offset: panel.column,
                            k: rows,
                            panel: Panel { n: ldc, ..panel },
                            c: sums[point * rows * ldc..].as_mut_ptr(),
                            ldc,
                        }
                        .run();
                    }
                    let sums = Sums {
                        data: &sums,
                        slices: 1,
                        rows,
                        ldc,
                    };
                    sums.write_block((k, first), panel, dw);
                });
            })
        }
    }

    /// Transforms some tiles, then adds their outer products to the sums from `offset` on. In parallel, tasks share out the
    /// tiles, then the points and panels; else the caller is one of several tasks with sums of their own.
    fn block(&self, first: usize, count: usize, sums: Shared<T>, offset: usize, parallel: bool) {
        let (v_layout, z_layout) = self.layouts(count);
        let mut v = Scratch::<T>::take(v_layout.len());
        let mut z = Scratch::<T>::take(z_layout.len());
        self.transform(first, count, &mut v, &mut z, parallel);

        let width = Width::of::<T>();
        let (k, n) = (self.tiles.src_c, self.tiles.dst_c);
        let panels = width.panels(n);
        par::each_if(parallel, POINTS * panels, |task| {
            let (point, panel) = (task / panels, width.panel(n, task % panels));
            let runs = [Run {
                a: v[point * v_layout.plane..].as_ptr(),
                b: z[point * z_layout.plane..].as_ptr(),
                len: count,
            }];
            // SAFETY: transformed rows hold `k` elements and whole vectors of output channels; tasks differ in point or
            // panel, so they add to different sums.
            unsafe {
                Outer {
                    runs: &runs,
                    a_step: v_layout.row,
                    b_step: z_layout.row,
                    a_offset: 0,
                    b_offset: panel.column,
                    k,
                    panel: Panel {
                        n: panel.vectors * width.lanes,
                        ..panel
                    },
                    c: sums.at(offset + point * k * self.ldc + panel.column),
                    ldc: self.ldc,
                }
                .run();
            }
        });
    }
}
