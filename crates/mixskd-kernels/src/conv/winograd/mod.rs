//! 3×3 convolution of stride 1 by Winograd's F(4×4, 3×3): 36 multiplications a tile of sixteen outputs instead of 144.
//!
//! Blocks of tiles are transformed, multiplied point by point, and transformed back without leaving the cache.

mod tiles;
mod transform;
mod weights;

use crate::gemm::micro::{self, Pixels, ROWS, RowTable, Run};
use crate::gemm::{Panels, pack};
use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

use super::config::Geometry;
use tiles::{Tiles, Transformed};
use transform::POINTS;
use weights::{Sums, Weights};

/// Channels below which transforms cost more than the multiplications they save.
const MIN_CHANNELS: usize = 8;
/// Cost of transforming one window, in multiplications of one channel pair: mostly memory traffic.
const WEIGHT_COST: usize = 1000;
/// Elements of transformed tiles that a block may have.
const BLOCK_ELEMENTS: usize = 96 * 1024;
/// Up to this many tiles, all are transformed before any is multiplied, and tasks share out the panels too.
const FEW_TILES: usize = 128;

/// Whether Winograd is the faster way for this shape.
pub(super) fn wins(g: &Geometry) -> bool {
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
    forward_tiles(g).count() * POINTS + WEIGHT_COST < direct
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

/// The output of a convolution.
pub(super) fn forward<T: Element>(g: &Geometry, x: &[T], w: &[T]) -> Vec<T> {
    let weights = Weights {
        data: w,
        k: g.in_c,
        n: g.out_c,
        k_stride: 9,
        n_stride: 9 * g.in_c,
        flipped: false,
    };
    run(&forward_tiles(g), x, weights)
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
    run(&tiles, dy, weights)
}

/// Tiles of a block: whole register tiles, few enough for the cache, and an even number of blocks for two threads.
fn block_tiles(tiles: usize, row: usize) -> usize {
    let fitting = (BLOCK_ELEMENTS / (POINTS * row) / ROWS * ROWS).clamp(4 * ROWS, 16 * ROWS);
    let blocks = tiles.div_ceil(fitting);
    let blocks = if blocks < 64 {
        blocks.next_multiple_of(4)
    } else {
        blocks
    };
    tiles.div_ceil(blocks)
}

fn run<T: Element>(tiles: &Tiles, src: &[T], weights: Weights<'_, T>) -> Vec<T> {
    let u = weights.transformed();
    let (k, n) = (weights.k, weights.n);
    let zeros = vec![T::default(); k];
    let count = tiles.count();
    let row = k.next_multiple_of(16);
    let len = tiles.batch * tiles.dst_h * tiles.dst_w * tiles.dst_c;
    // SAFETY: blocks cover all tiles, tiles all output pixels, and panels all channels.
    unsafe {
        par::filled(len, |dst| {
            if count > FEW_TILES {
                let per_block = block_tiles(count, row + n.min(64));
                par::each(count.div_ceil(per_block), |block| {
                    T::dispatch(Block {
                        tiles,
                        src,
                        zeros: &zeros,
                        u: &u,
                        first: block * per_block,
                        count: per_block.min(count - block * per_block),
                        dst,
                    });
                });
                return;
            }
            let layout = Transformed::new(count, row);
            let mut v = Scratch::<T>::take(layout.len());
            let shared = Shared::new(&mut v);
            par::each(count.div_ceil(2), |pair| {
                T::dispatch(Input {
                    tiles,
                    src,
                    zeros: &zeros,
                    first: pair * 2,
                    count: 2.min(count - pair * 2),
                    // SAFETY: the pair's rows begin inside the buffer.
                    v: shared.at(pair * 2 * row),
                    layout,
                });
            });
            par::each(T::dispatch(Panels(n)), |panel| {
                T::dispatch(Output {
                    tiles,
                    v: &v,
                    layout,
                    u: &u,
                    first: 0,
                    count,
                    panel,
                    dst,
                });
            });
        })
    }
}

/// All of a block of tiles.
struct Block<'a, T> {
    tiles: &'a Tiles,
    src: &'a [T],
    zeros: &'a [T],
    u: &'a [T],
    first: usize,
    count: usize,
    dst: Shared<T>,
}

impl<T: Element> Kernel<T> for Block<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let layout = Transformed::new(self.count, self.tiles.src_c.next_multiple_of(16));
        let mut v = Scratch::<T>::take(layout.len());
        // SAFETY: `v` is as long as its layout says, and this task's own.
        unsafe {
            let v = v.as_mut_ptr();
            let (first, count) = (self.first, self.count);
            self.tiles
                .transform_input(lanes, self.src, self.zeros, first, count, v, layout);
        }
        for panel in 0..pack::panel_count::<L>(self.tiles.dst_c) {
            Output {
                tiles: self.tiles,
                v: &v,
                layout,
                u: self.u,
                first: self.first,
                count: self.count,
                panel,
                dst: self.dst,
            }
            .run(lanes);
        }
    }
}

/// The input transform of some tiles.
struct Input<'a, T> {
    tiles: &'a Tiles,
    src: &'a [T],
    zeros: &'a [T],
    first: usize,
    count: usize,
    v: *mut T,
    layout: Transformed,
}

impl<T: Element> Kernel<T> for Input<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        // SAFETY: the maker of `Input` gives rows of this task's own.
        unsafe {
            self.tiles.transform_input(
                lanes,
                self.src,
                self.zeros,
                self.first,
                self.count,
                self.v,
                self.layout,
            );
        }
    }
}

/// Products and output transform of some tiles and one panel of output channels.
struct Output<'a, T> {
    tiles: &'a Tiles,
    v: &'a [T],
    layout: Transformed,
    u: &'a [T],
    first: usize,
    count: usize,
    panel: usize,
    dst: Shared<T>,
}

impl<T: Element> Kernel<T> for Output<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Self {
            tiles,
            v,
            layout,
            u,
            first,
            count,
            panel,
            dst,
        } = self;
        let k = tiles.src_c;
        let panel = pack::panel::<L>(tiles.dst_c, panel);
        let width = panel.vectors * L::N;
        let u = u[panel.column * POINTS * k..].as_ptr();
        let products = Transformed::new(count, width);
        let mut m = Scratch::<T>::take(products.len());
        for point in 0..POINTS {
            for at in (0..count).step_by(ROWS) {
                let mr = ROWS.min(count - at);
                let mut rows = [std::ptr::null::<T>(); ROWS];
                let mut out = [std::ptr::null_mut::<T>(); ROWS];
                for i in 0..mr {
                    rows[i] = v[point * layout.plane + (at + i) * layout.row..].as_ptr();
                    out[i] = m[point * products.plane + (at + i) * width..].as_mut_ptr();
                }
                let table = RowTable {
                    active: &[0],
                    pointers: rows.as_ptr(),
                    stride: ROWS,
                };
                // SAFETY: rows hold `k` elements, products `width`, and the panel a segment of `k` rows per point.
                unsafe {
                    let b = u.add(point * k * width);
                    micro::rows(lanes, mr, panel.vectors, table, k, b, &out, width, false);
                }
            }
        }
        // SAFETY: tasks differ in tiles or in panels, so they write different parts of the output.
        unsafe {
            let (m, dst) = (m.as_ptr(), dst.at(0));
            tiles.transform_output(lanes, m, products, first, count, panel.column, panel.n, dst);
        }
    }
}

/// Transformed sums that fit into a core's cache: slices of the batch have sums of their own.
const SMALL_SUMS: usize = 192 * 1024;
/// Largest number of slices.
const SLICES: usize = 8;
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
        (count / (4 * ROWS)).clamp(1, SLICES)
    } else {
        1
    };
    let mut sums = Scratch::<T>::take(slices * len);
    sums.fill(T::default());
    let shared = Shared::new(&mut sums);
    let gradient = Gradient {
        tiles: &tiles,
        x,
        dy,
        zeros: &zeros,
        ldc,
    };
    if sliced {
        par::each(slices, |slice| {
            T::dispatch(Slice {
                gradient: &gradient,
                tiles: count * slice / slices..count * (slice + 1) / slices,
                per_block: (BLOCK_ELEMENTS / (POINTS * rows)).clamp(24, 96),
                // SAFETY: every slice has sums of its own.
                sums: unsafe { shared.at(slice * len) },
            });
        });
    } else {
        let per_chunk = (CHUNK_ELEMENTS / (POINTS * rows)).clamp(32, count.max(32));
        for first in (0..count).step_by(per_chunk) {
            gradient.chunk(first, per_chunk.min(count - first), shared);
        }
    }
    Sums {
        data: &sums,
        slices,
        in_c: g.in_c,
        out_c: g.out_c,
        ldc,
    }
    .weight_gradient()
}

/// What a weight gradient is made of.
struct Gradient<'a, T> {
    tiles: &'a Tiles,
    x: &'a [T],
    dy: &'a [T],
    zeros: &'a [T],
    ldc: usize,
}

impl<T: Element> Gradient<'_, T> {
    /// Transforms some tiles, then adds their outer products to the sums, points and panels in parallel.
    fn chunk(&self, first: usize, count: usize, sums: Shared<T>) {
        let v_layout = Transformed::new(count, self.tiles.src_c.next_multiple_of(16));
        let z_layout = Transformed::new(count, self.ldc);
        let mut v = Scratch::<T>::take(v_layout.len());
        let mut z = Scratch::<T>::take(z_layout.len());
        let (v_shared, z_shared) = (Shared::new(&mut v), Shared::new(&mut z));
        const STEP: usize = 4;
        par::each(count.div_ceil(STEP), |step| {
            let at = step * STEP;
            T::dispatch(Both {
                gradient: self,
                first: first + at,
                count: STEP.min(count - at),
                // SAFETY: these tiles' rows begin inside the buffers.
                v: unsafe { v_shared.at(at * v_layout.row) },
                z: unsafe { z_shared.at(at * z_layout.row) },
                v_layout,
                z_layout,
            });
        });
        let panels = T::dispatch(Panels(self.tiles.dst_c));
        par::each(POINTS * panels, |task| {
            T::dispatch(Products {
                gradient: self,
                count,
                v: &v,
                z: &z,
                v_layout,
                z_layout,
                point: task / panels,
                panel: task % panels,
                // SAFETY: the start of the sums.
                sums: unsafe { sums.at(0) },
            });
        });
    }
}

/// Both transforms of some tiles.
struct Both<'a, T> {
    gradient: &'a Gradient<'a, T>,
    first: usize,
    count: usize,
    v: *mut T,
    z: *mut T,
    v_layout: Transformed,
    z_layout: Transformed,
}

impl<T: Element> Kernel<T> for Both<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let g = self.gradient;
        let (first, count) = (self.first, self.count);
        // SAFETY: the maker of `Both` gives rows of this task's own.
        unsafe {
            g.tiles
                .transform_input(lanes, g.x, g.zeros, first, count, self.v, self.v_layout);
            g.tiles
                .transform_gradient(lanes, g.dy, first, count, self.z, self.z_layout);
        }
    }
}

/// Outer products of some tiles at one point, for one panel of output channels.
struct Products<'a, T> {
    gradient: &'a Gradient<'a, T>,
    count: usize,
    v: &'a [T],
    z: &'a [T],
    v_layout: Transformed,
    z_layout: Transformed,
    point: usize,
    panel: usize,
    sums: *mut T,
}

impl<T: Element> Kernel<T> for Products<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let g = self.gradient;
        let k = g.tiles.src_c;
        let panel = pack::panel::<L>(g.tiles.dst_c, self.panel);
        let runs = [Run {
            a: self.v[self.point * self.v_layout.plane..].as_ptr(),
            b: self.z[self.point * self.z_layout.plane..].as_ptr(),
            len: self.count,
        }];
        let pixels = Pixels {
            runs: &runs,
            a_step: self.v_layout.row,
            b_step: self.z_layout.row,
        };
        for i in (0..k).step_by(ROWS) {
            let mr = ROWS.min(k - i);
            // SAFETY: transformed rows hold `k` and whole vectors of output channels; tasks differ in point or panel, so
            // they add to different sums.
            unsafe {
                let c = self.sums.add((self.point * k + i) * g.ldc + panel.column);
                let width = panel.vectors * L::N;
                micro::outer(
                    lanes,
                    mr,
                    panel.vectors,
                    pixels,
                    i,
                    panel.column,
                    width,
                    c,
                    g.ldc,
                );
            }
        }
    }
}

/// All of a slice of the batch.
struct Slice<'a, T> {
    gradient: &'a Gradient<'a, T>,
    tiles: std::ops::Range<usize>,
    per_block: usize,
    sums: *mut T,
}

impl<T: Element> Kernel<T> for Slice<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let g = self.gradient;
        let v_layout = Transformed::new(self.per_block, g.tiles.src_c.next_multiple_of(16));
        let z_layout = Transformed::new(self.per_block, g.ldc);
        let mut v = Scratch::<T>::take(v_layout.len());
        let mut z = Scratch::<T>::take(z_layout.len());
        let mut first = self.tiles.start;
        while first < self.tiles.end {
            let count = self.per_block.min(self.tiles.end - first);
            Both {
                gradient: g,
                first,
                count,
                v: v.as_mut_ptr(),
                z: z.as_mut_ptr(),
                v_layout,
                z_layout,
            }
            .run(lanes);
            for point in 0..POINTS {
                for panel in 0..pack::panel_count::<L>(g.tiles.dst_c) {
                    Products {
                        gradient: g,
                        count,
                        v: &v,
                        z: &z,
                        v_layout,
                        z_layout,
                        point,
                        panel,
                        sums: self.sums,
                    }
                    .run(lanes);
                }
            }
            first += count;
        }
    }
}
