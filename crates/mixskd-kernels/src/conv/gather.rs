//! Implicit matrix multiplication: every output pixel is a sum over taps of an input pixel times a matrix. The forward
//! pass has this form, and so has the input gradient: for a stride of s it splits into s² such sums, one per phase of the
//! input grid, each over the taps that meet it.
//!
//! The input is read in place through pointers (Dukhan 2019, "The indirect convolution algorithm"); pixels outside point to
//! a row of zeros, and a tap that is outside for a whole register tile is left out.

use std::ops::Range;

use crate::gemm::micro::{Active, ROWS, Rows};
use crate::gemm::pack::{Packed, Strides, Width};
use crate::par::{self, Shared};
use crate::simd::Element;

use super::config::Geometry;
use super::epilogue::Epilogue;
use super::{padded, panels};

/// One term of the sum: where to read relative to the output pixel, and which matrix to multiply with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tap {
    pub(super) dy: isize,
    pub(super) dx: isize,
    pub(super) segment: u32,
}

/// A grid of output pixels and the taps they sum over.
pub(super) struct Gather {
    pub(super) batch: usize,
    pub(super) src_h: usize,
    pub(super) src_w: usize,
    pub(super) src_c: usize,
    pub(super) dst_h: usize,
    pub(super) dst_w: usize,
    pub(super) dst_c: usize,
    /// Grid pixel `(i, j)` is output pixel `(y0 + i·dst_step, x0 + j·dst_step)` and reads around `(i·src_step, j·src_step)`.
    pub(super) grid_h: usize,
    pub(super) grid_w: usize,
    pub(super) y0: usize,
    pub(super) x0: usize,
    pub(super) dst_step: usize,
    pub(super) src_step: usize,
    pub(super) taps: Vec<Tap>,
    /// Least and greatest `dy` of the taps, and `dx`.
    reach: ([isize; 2], [isize; 2]),
}

/// Pixels of one task: a multiple of the register tile's rows, small enough for its input and output to stay in cache.
const BLOCK: usize = 8 * ROWS;
/// Rows of a packed panel that are used before going on to the next tile: 128 KiB at most.
const K_BLOCK: usize = 512;
/// Tasks that keep all threads busy.
const FEW_TASKS: usize = 16;
/// Tasks that groups are shared out to make.
const GROUPED_TASKS: usize = 64;
/// Weights that stay in the second-level cache beside a block's input and output.
const CACHED_WEIGHT: usize = 192 * 1024;
/// Maps up to this many pixels go position by position, so that tiles share their outside taps.
const SMALL_MAP: usize = 64;

impl Gather {
    fn pixels(&self) -> usize {
        self.batch * self.grid_h * self.grid_w
    }

    /// Batch index and grid position of a pixel.
    fn locate(&self, pixel: usize) -> (usize, usize, usize) {
        let map = self.grid_h * self.grid_w;
        let (b, at) = if map <= SMALL_MAP {
            (pixel % self.batch, pixel / self.batch)
        } else {
            (pixel / map, pixel % map)
        };
        (b, at / self.grid_w, at % self.grid_w)
    }

    /// Whether no tap leaves the map from a grid position.
    fn is_inside(&self, i: usize, j: usize) -> bool {
        let (y, x) = ((i * self.src_step) as isize, (j * self.src_step) as isize);
        let ([top, bottom], [left, right]) = self.reach;
        y + top >= 0
            && y + bottom < self.src_h as isize
            && x + left >= 0
            && x + right < self.src_w as isize
    }

    /// Offset of the source pixel a tap reads, or none outside the map.
    fn source(&self, b: usize, i: usize, j: usize, tap: Tap) -> Option<usize> {
        let y = (i * self.src_step) as isize + tap.dy;
        let x = (j * self.src_step) as isize + tap.dx;
        let inside = y >= 0 && x >= 0 && (y as usize) < self.src_h && (x as usize) < self.src_w;
        inside.then(|| ((b * self.src_h + y as usize) * self.src_w + x as usize) * self.src_c)
    }

    pub(super) fn destination(&self, b: usize, i: usize, j: usize) -> usize {
        let y = self.y0 + i * self.dst_step;
        let x = self.x0 + j * self.dst_step;
        ((b * self.dst_h + y) * self.dst_w + x) * self.dst_c
    }
}

struct Block<'a, T> {
    plan: &'a Gather,
    /// Of each group.
    weights: &'a [Packed<T>],
    groups: Range<usize>,
    first: usize,
    /// Panels of a group's output channels.
    panels: Range<usize>,
    src: &'a [T],
    zeros: &'a [T],
    epilogue: Option<Epilogue<'a, T>>,
    dst: Shared<T>,
}

impl<T: Element> Block<'_, T> {
    fn count(&self) -> usize {
        BLOCK.min(self.plan.pixels() - self.first)
    }

    /// Where the channels of each pixel go.
    fn destinations(&self) -> [*mut T; BLOCK] {
        let mut c = [std::ptr::null_mut(); BLOCK];
        for (p, c) in c.iter_mut().enumerate().take(self.count()) {
            let (b, i, j) = self.plan.locate(self.first + p);
            // SAFETY: the pixel is inside the output.
            *c = unsafe { self.dst.at(self.plan.destination(b, i, j)) };
        }
        c
    }

    /// Applies the epilogue to what the block has written, which is still in the cache.
    fn finish(&self) {
        let Some(epilogue) = self.epilogue else {
            return;
        };
        let count = self.count();
        let mut pixels = [0; BLOCK];
        for (p, pixel) in pixels.iter_mut().enumerate().take(count) {
            let (b, i, j) = self.plan.locate(self.first + p);
            *pixel = self.plan.destination(b, i, j);
        }
        let width = Width::of::<T>();
        for group in self.groups.clone() {
            let n = self.weights[group].n;
            for panel in self.panels.clone() {
                let panel = width.panel(n, panel);
                let channel = group * n + panel.column;
                // SAFETY: the pixels and the panel's channels are inside the output, and this block's own.
                unsafe { epilogue.finish(self.dst, &pixels[..count], channel, panel.n) };
            }
        }
    }

    /// Reads the source in place.
    fn in_place(&self) {
        let plan = self.plan;
        let one = &self.weights[self.groups.start];
        let count = self.count();
        let tiles = count.div_ceil(ROWS);
        let taps = plan.taps.len();
        let (k, n) = (one.k, one.n);
        let c = self.destinations();
        // The same for all groups, whose channels lie side by side.
        let mut rows = vec![self.zeros.as_ptr(); one.segments * BLOCK];
        let mut used = vec![false; taps * tiles];
        // Where a tap reads relative to the first element of the pixel at the window's origin.
        let shifts: Vec<isize> = plan
            .taps
            .iter()
            .map(|tap| (tap.dy * plan.src_w as isize + tap.dx) * plan.src_c as isize)
            .collect();
        for p in 0..count {
            let (b, i, j) = plan.locate(self.first + p);
            if plan.is_inside(i, j) {
                let (y, x) = (i * plan.src_step, j * plan.src_step);
                let at = ((b * plan.src_h + y) * plan.src_w + x) * plan.src_c;
                let at = self.src.as_ptr().wrapping_add(at);
                for (t, (tap, &shift)) in plan.taps.iter().zip(&shifts).enumerate() {
                    rows[tap.segment as usize * BLOCK + p] = at.wrapping_offset(shift);
                    used[t * tiles + p / ROWS] = true;
                }
                continue;
            }
            for (t, &tap) in plan.taps.iter().enumerate() {
                if let Some(at) = plan.source(b, i, j, tap) {
                    rows[tap.segment as usize * BLOCK + p] = self.src[at..].as_ptr();
                    used[t * tiles + p / ROWS] = true;
                }
            }
        }
        let width = Width::of::<T>();
        let step = (K_BLOCK / k).max(1);
        let parts = k.div_ceil(K_BLOCK);
        let mut segments = Vec::with_capacity(taps * tiles);
        let mut ends = Vec::with_capacity(tiles);
        // Once even without taps: the sum over none is zero, and must be written.
        for t in (0..taps.max(1)).step_by(step) {
            segments.clear();
            ends.clear();
            for tile in 0..tiles {
                let here = (t..(t + step).min(taps)).filter(|t| used[t * tiles + tile]);
                segments.extend(here.map(|t| plan.taps[t].segment));
                ends.push(segments.len() as u32);
            }
            for group in self.groups.clone() {
                for i in self.panels.clone() {
                    let panel = width.panel(n, i);
                    for part in 0..parts {
                        // SAFETY: rows point to all channels of a source's pixel, or of `zeros`; different blocks, groups and
                        // panels have different output pixels or channels.
                        unsafe {
                            Rows {
                                pointers: &rows,
                                stride: BLOCK,
                                offset: group * k,
                                active: Active::Each {
                                    segments: &segments,
                                    ends: &ends,
                                },
                                k: k * part / parts..k * (part + 1) / parts,
                                segment_len: k,
                                b: self.weights[group].panel(panel),
                                panel,
                                c: &c[..count],
                                c_offset: group * n + panel.column,
                                accumulate: t > 0 || part > 0,
                            }
                            .run();
                        }
                    }
                }
            }
        }
    }
}

impl Gather {
    /// The taps of the forward pass.
    pub(super) fn forward(g: &Geometry) -> Self {
        let c = g.config;
        let taps: Vec<Tap> = (0..g.taps())
            .map(|tap| {
                let (ky, kx) = (tap / g.kernel_w, tap % g.kernel_w);
                Tap {
                    dy: (ky * c.dilation) as isize - c.padding as isize,
                    dx: (kx * c.dilation) as isize - c.padding as isize,
                    segment: tap as u32,
                }
            })
            .collect();
        Self {
            batch: g.batch,
            src_h: g.in_h,
            src_w: g.in_w,
            src_c: g.in_c,
            dst_h: g.out_h,
            dst_w: g.out_w,
            dst_c: g.out_c,
            grid_h: g.out_h,
            grid_w: g.out_w,
            y0: 0,
            x0: 0,
            dst_step: 1,
            src_step: c.stride,
            reach: reach(&taps),
            taps,
        }
    }

    /// The same sum with one tap for each row of a window: its taps are neighbours in memory where there is no dilation,
    /// a single group, and no padding to leave the map by.
    fn by_row(mut self) -> Self {
        self.taps.retain(|tap| tap.dx == 0);
        for (row, tap) in self.taps.iter_mut().enumerate() {
            tap.segment = row as u32;
        }
        self
    }

    /// The plans that make up the input gradient.
    pub(super) fn phases(g: &Geometry) -> impl Iterator<Item = Self> {
        let (rows, columns) = (g.config.stride.min(g.in_h), g.config.stride.min(g.in_w));
        (0..rows * columns).map(move |i| Self::input_gradient(g, i / columns, i % columns))
    }

    /// The input gradient at the input pixels `(y0 + i·stride, x0 + j·stride)`: input pixel y meets output pixel
    /// (y + padding − tap·dilation) / stride wherever that is whole.
    fn input_gradient(g: &Geometry, y0: usize, x0: usize) -> Self {
        let c = g.config;
        let meets = |at: usize, tap: usize| {
            let from = (at + c.padding) as isize - (tap * c.dilation) as isize;
            let stride = c.stride as isize;
            (from.rem_euclid(stride) == 0).then(|| from.div_euclid(stride))
        };
        let taps: Vec<Tap> = (0..g.taps())
            .filter_map(|tap| {
                let (ky, kx) = (tap / g.kernel_w, tap % g.kernel_w);
                Some(Tap {
                    dy: meets(y0, ky)?,
                    dx: meets(x0, kx)?,
                    segment: tap as u32,
                })
            })
            .collect();
        Self {
            batch: g.batch,
            src_h: g.out_h,
            src_w: g.out_w,
            src_c: g.out_c,
            dst_h: g.in_h,
            dst_w: g.in_w,
            dst_c: g.in_c,
            grid_h: (g.in_h - y0).div_ceil(c.stride),
            grid_w: (g.in_w - x0).div_ceil(c.stride),
            y0,
            x0,
            dst_step: c.stride,
            src_step: 1,
            reach: reach(&taps),
            taps,
        }
    }

    /// Runs the plan; `weights` has one entry per group.
    fn run<T: Element>(
        &self,
        src: &[T],
        weights: &[Packed<T>],
        epilogue: Option<Epilogue<'_, T>>,
        dst: Shared<T>,
    ) {
        let blocks = self.pixels().div_ceil(BLOCK);
        let Some(one) = weights.first() else {
            return;
        };
        let groups = weights.len();
        let zeros = vec![T::default(); one.k * groups];
        let panels = Width::of::<T>().panels(one.n);
        let weight = self.taps.len() * one.k * one.n;
        // Some groups, or one panel of a group, after the other where all of them would push one another out of the cache, or blocks are few.
        let (some, split) = if blocks * groups < FEW_TASKS || weight > CACHED_WEIGHT {
            (groups, true)
        } else {
            let some = GROUPED_TASKS.div_ceil(blocks.max(1));
            let some = some.max((groups * weight).div_ceil(CACHED_WEIGHT));
            (some.min(groups), false)
        };
        let parts = if split { some * panels } else { some };
        par::each(parts * blocks, |task| {
            let (part, block) = (task / blocks, task % blocks);
            let (part, panel) = if split {
                (part / panels, part % panels)
            } else {
                (part, 0)
            };
            let block = Block {
                plan: self,
                weights,
                groups: groups * part / some..groups * (part + 1) / some,
                first: block * BLOCK,
                panels: if split { panel..panel + 1 } else { 0..panels },
                src,
                zeros: &zeros,
                epilogue,
                dst,
            };
            block.in_place();
            block.finish();
        });
    }
}

/// How far taps reach along each axis.
fn reach(taps: &[Tap]) -> ([isize; 2], [isize; 2]) {
    let along = |of: fn(&Tap) -> isize| {
        let least = taps.iter().map(of).min().unwrap_or(0);
        [least, taps.iter().map(of).max().unwrap_or(0)]
    };
    (along(|tap| tap.dy), along(|tap| tap.dx))
}

/// A forward pass's weights, packed group by group.
#[derive(Debug)]
pub(super) struct Weights<T>(Vec<Packed<T>>);

impl<T: Element> Weights<T> {
    /// Packs `[out, in / groups, kernel_h, kernel_w]`.
    pub(super) fn new(g: &Geometry, w: &[T]) -> Self {
        let (taps, k, n) = (g.taps(), g.in_group(), g.out_group());
        let at = Strides {
            segment: 1,
            k: taps,
            n: k * taps,
        };
        let by_row = padded::applies(g);
        let groups = w
            .chunks_exact(n * k * taps)
            .map(|w| Packed::new(w, at, taps, k, n))
            .map(|p| if by_row { p.joined(g.kernel_w) } else { p })
            .collect();
        Self(groups)
    }
}

/// The output of a convolution.
pub(super) fn forward<T: Element>(
    g: &Geometry,
    x: &[T],
    weights: &Weights<T>,
    epilogue: Option<Epilogue<'_, T>>,
) -> Vec<T> {
    let g = &panels::flat(g).unwrap_or(*g);
    // SAFETY: every output pixel is in the grid, and every group of channels in `weights`.
    unsafe {
        par::filled(g.output_len(), |dst| {
            if padded::applies(g) {
                let wide = padded::geometry(g);
                let x = padded::pad(g, x);
                Gather::forward(&wide)
                    .by_row()
                    .run(&x, &weights.0, epilogue, dst);
            } else {
                Gather::forward(g).run(x, &weights.0, epilogue, dst);
            }
        })
    }
}

/// The gradient of a convolution's input.
pub(super) fn input_gradient<T: Element>(g: &Geometry, dy: &[T], w: &[T]) -> Vec<T> {
    let g = &panels::flat(g).unwrap_or(*g);
    let (taps, k, n) = (g.taps(), g.out_group(), g.in_group());
    let at = Strides {
        segment: 1,
        k: n * taps,
        n: taps,
    };
    let packed: Vec<_> = w
        .chunks_exact(n * k * taps)
        .map(|w| Packed::new(w, at, taps, k, n))
        .collect();
    // SAFETY: the phases cover all input pixels; a phase that no tap meets writes zeros.
    unsafe {
        par::filled(g.input_len(), |dst| {
            for plan in Gather::phases(g) {
                plan.run(dy, &packed, None, dst);
            }
        })
    }
}
