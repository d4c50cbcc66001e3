//! Implicit matrix multiplication: every output pixel is a sum over taps of an input pixel times a matrix. The forward
//! pass has this form, and so has the input gradient: for a stride of s it splits into s² such sums, one per phase of the
//! input grid, each over the taps that meet it.
//!
//! The input is read in place through pointers (Dukhan 2019, "The indirect convolution algorithm"); pixels outside point to
//! a row of zeros, and a tap that is outside for a whole register tile is left out.

use crate::gemm::micro::{Active, ROWS, Rows};
use crate::gemm::pack::{Packed, Strides, Width};
use crate::par::{self, Scratch, Shared};
use crate::simd::Element;

use super::config::Geometry;

/// One term of the sum: where to read relative to the output pixel, and which matrix to multiply with.
#[derive(Debug, Clone, Copy)]
struct Tap {
    dy: isize,
    dx: isize,
    segment: u32,
}

/// A grid of output pixels and the taps they sum over.
pub(super) struct Gather {
    batch: usize,
    src_h: usize,
    src_w: usize,
    src_c: usize,
    dst_h: usize,
    dst_w: usize,
    dst_c: usize,
    /// Grid pixel `(i, j)` is output pixel `(y0 + i·dst_step, x0 + j·dst_step)` and reads around `(i·src_step, j·src_step)`.
    grid_h: usize,
    grid_w: usize,
    y0: usize,
    x0: usize,
    dst_step: usize,
    src_step: usize,
    taps: Vec<Tap>,
    groups: usize,
}

/// Pixels of one task: a multiple of the register tile's rows, small enough for its input and output to stay in cache.
const BLOCK: usize = 16 * ROWS;
/// Rows of a packed panel that are used before going on to the next tile: 128 KiB at most.
const K_BLOCK: usize = 512;
/// Below this many input channels the window is copied out first, so that the inner loop is long enough.
pub(super) const COPY_BELOW: usize = 12;
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

    /// Offset of the source pixel a tap reads, or none outside the map.
    fn source(&self, b: usize, i: usize, j: usize, tap: Tap) -> Option<usize> {
        let y = (i * self.src_step) as isize + tap.dy;
        let x = (j * self.src_step) as isize + tap.dx;
        let inside = y >= 0 && x >= 0 && (y as usize) < self.src_h && (x as usize) < self.src_w;
        inside.then(|| ((b * self.src_h + y as usize) * self.src_w + x as usize) * self.src_c)
    }

    fn destination(&self, b: usize, i: usize, j: usize) -> usize {
        let y = self.y0 + i * self.dst_step;
        let x = self.x0 + j * self.dst_step;
        ((b * self.dst_h + y) * self.dst_w + x) * self.dst_c
    }
}

struct Block<'a, T> {
    plan: &'a Gather,
    weights: &'a Packed<T>,
    group: usize,
    first: usize,
    src: &'a [T],
    zeros: &'a [T],
    dst: Shared<T>,
}

impl<T: Element> Block<'_, T> {
    fn count(&self) -> usize {
        BLOCK.min(self.plan.pixels() - self.first)
    }

    /// Where the group's channels of each pixel go.
    fn destinations(&self) -> [*mut T; BLOCK] {
        let mut c = [std::ptr::null_mut(); BLOCK];
        for (p, c) in c.iter_mut().enumerate().take(self.count()) {
            let (b, i, j) = self.plan.locate(self.first + p);
            let at = self.plan.destination(b, i, j) + self.group * self.weights.n;
            // SAFETY: the pixel and the group's channels are inside the output.
            *c = unsafe { self.dst.at(at) };
        }
        c
    }

    /// Reads the source in place.
    fn in_place(&self) {
        let (plan, weights) = (self.plan, self.weights);
        let count = self.count();
        let tiles = count.div_ceil(ROWS);
        let taps = plan.taps.len();
        let (k, n) = (weights.k, weights.n);
        let c = self.destinations();
        let mut rows = vec![self.zeros.as_ptr(); weights.segments * BLOCK];
        let mut used = vec![false; taps * tiles];
        for p in 0..count {
            let (b, i, j) = plan.locate(self.first + p);
            for (t, &tap) in plan.taps.iter().enumerate() {
                if let Some(at) = plan.source(b, i, j, tap) {
                    let row = self.src[at + self.group * k..].as_ptr();
                    rows[tap.segment as usize * BLOCK + p] = row;
                    used[t * tiles + p / ROWS] = true;
                }
            }
        }
        let width = Width::of::<T>();
        let step = (K_BLOCK / k).max(1);
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
            for i in 0..width.panels(n) {
                let panel = width.panel(n, i);
                // SAFETY: rows point to `k` elements of the source or of `zeros`; different blocks and groups have
                // different output pixels or channels.
                unsafe {
                    Rows {
                        pointers: &rows,
                        stride: BLOCK,
                        active: Active::Each {
                            segments: &segments,
                            ends: &ends,
                        },
                        k,
                        b: weights.panel(panel),
                        panel,
                        c: &c[..count],
                        c_offset: panel.column,
                        accumulate: t > 0,
                    }
                    .run();
                }
            }
        }
    }

    /// For few input channels: copies the windows of the block out, so that one segment holds all taps.
    fn copied(&self) {
        let (plan, weights) = (self.plan, self.weights);
        let count = self.count();
        let (k, n) = (weights.k, weights.n);
        let c = self.destinations();
        let mut windows = Scratch::<T>::take(count * k);
        let offset = self.group * (k / plan.taps.len());
        plan.copy_windows(self.src, self.first, offset, &mut windows);
        let mut rows = [std::ptr::null::<T>(); BLOCK];
        for (row, window) in rows.iter_mut().zip(windows.chunks_exact(k)) {
            *row = window.as_ptr();
        }
        let width = Width::of::<T>();
        for i in 0..width.panels(n) {
            let panel = width.panel(n, i);
            // SAFETY: as `in_place`; rows are `k` elements of `windows`.
            unsafe {
                Rows {
                    pointers: &rows,
                    stride: BLOCK,
                    active: Active::Same(&[0]),
                    k,
                    b: weights.panel(panel),
                    panel,
                    c: &c[..count],
                    c_offset: panel.column,
                    accumulate: false,
                }
                .run();
            }
        }
    }
}

impl Gather {
    /// Copies the windows of the pixels from `first` on, `[pixel][tap][channel]`, as many as fit into `to`.
    fn copy_windows<T: Element>(&self, src: &[T], first: usize, offset: usize, to: &mut [T]) {
        self.copy_each_window(src, offset, to, |p| self.locate(first + p));
    }

    /// The same with pixels in the order of memory.
    pub(super) fn copy_windows_in_order<T: Element>(
        &self,
        src: &[T],
        first: usize,
        offset: usize,
        to: &mut [T],
    ) {
        let map = self.grid_h * self.grid_w;
        self.copy_each_window(src, offset, to, |p| {
            let (b, at) = ((first + p) / map, (first + p) % map);
            (b, at / self.grid_w, at % self.grid_w)
        });
    }

    fn copy_each_window<T: Element>(
        &self,
        src: &[T],
        offset: usize,
        to: &mut [T],
        locate: impl Fn(usize) -> (usize, usize, usize),
    ) {
        let taps = self.taps.len();
        let k = self.src_c / self.groups;
        // Neighbouring taps are neighbours in memory when the window is dense and has all channels.
        let dense = self.groups == 1
            && self
                .taps
                .windows(2)
                .all(|t| t[1].dy != t[0].dy || t[1].dx == t[0].dx + 1);
        let row = self
            .taps
            .iter()
            .take_while(|t| t.dy == self.taps[0].dy)
            .count();
        for (p, window) in to.chunks_exact_mut(taps * k).enumerate() {
            let (b, i, j) = locate(p);
            for (part, taps) in window
                .chunks_exact_mut(row * k)
                .zip(self.taps.chunks_exact(row))
            {
                let (head, tail) = (taps[0], taps[row - 1]);
                match (self.source(b, i, j, head), self.source(b, i, j, tail)) {
                    (Some(at), Some(_)) if dense => part.copy_from_slice(&src[at..at + row * k]),
                    _ => {
                        for (part, &tap) in part.chunks_exact_mut(k).zip(taps) {
                            match self.source(b, i, j, tap) {
                                Some(at) => {
                                    part.copy_from_slice(&src[at + offset..at + offset + k]);
                                }
                                None => part.fill(T::default()),
                            }
                        }
                    }
                }
            }
        }
    }

    /// The taps of the forward pass.
    pub(super) fn forward(g: &Geometry) -> Self {
        let c = g.config;
        let taps = (0..g.taps())
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
            taps,
            groups: c.groups,
        }
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
        let taps = (0..g.taps())
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
            taps,
            groups: c.groups,
        }
    }

    /// Runs the plan; `weights` has one entry per group.
    fn run<T: Element>(&self, src: &[T], weights: &[Packed<T>], copied: bool, dst: Shared<T>) {
        let blocks = self.pixels().div_ceil(BLOCK);
        let zeros = vec![T::default(); weights.first().map_or(0, |w| w.k)];
        par::each(blocks * weights.len(), |task| {
            let group = task % weights.len();
            let block = Block {
                plan: self,
                weights: &weights[group],
                group,
                first: task / weights.len() * BLOCK,
                src,
                zeros: &zeros,
                dst,
            };
            if copied {
                block.copied();
            } else {
                block.in_place();
            }
        });
    }
}

/// The output of a convolution.
pub(super) fn forward<T: Element>(g: &Geometry, x: &[T], w: &[T]) -> Vec<T> {
    let (taps, k, n) = (g.taps(), g.in_group(), g.out_group());
    let at = Strides {
        segment: 1,
        k: taps,
        n: k * taps,
    };
    let copied = k < COPY_BELOW && taps > 1;
    let packed: Vec<_> = w
        .chunks_exact(n * k * taps)
        .map(|w| Packed::new(w, at, taps, k, n))
        .map(|p| if copied { p.flattened() } else { p })
        .collect();
    // SAFETY: every output pixel is in the grid, and every group of channels in `packed`.
    unsafe {
        par::filled(g.output_len(), |dst| {
            Gather::forward(g).run(x, &packed, copied, dst);
        })
    }
}

/// The gradient of a convolution's input.
pub(super) fn input_gradient<T: Element>(g: &Geometry, dy: &[T], w: &[T]) -> Vec<T> {
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
    let s = g.config.stride;
    // SAFETY: the phases cover all input pixels; a phase that no tap meets writes zeros.
    unsafe {
        par::filled(g.input_len(), |dst| {
            for phase in 0..s.min(g.in_h) * s.min(g.in_w) {
                let (y0, x0) = (phase / s.min(g.in_w), phase % s.min(g.in_w));
                Gather::input_gradient(g, y0, x0).run(dy, &packed, false, dst);
            }
        })
    }
}
