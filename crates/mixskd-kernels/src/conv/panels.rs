//! The weight gradient as one product of two matrices for each tap, `dyᵀ · x`, whose rows are output pixels and the input
//! pixels under the tap. The latter are copied, a panel of channels at a time, so that strides and borders cost the inner loop
//! nothing; a 1×1 window's product is the weight as it lies in memory.

use crate::gemm::micro::{Outer, Run};
use crate::gemm::pack::{Panel, Width};
use crate::par::{self, Scratch, Shared};
use crate::simd::Element;

use super::config::Geometry;
use super::padded;

/// Pixels whose panel of input channels, 16 KiB with AVX-512, stays in the first-level cache beside their gradients.
const PIXELS: usize = 64;
/// Most rows of the weight that a task goes through for each block of pixels: they stay in the second-level cache.
const ROWS: usize = 240;
/// Fewest rows worth a task of their own.
const FEW_ROWS: usize = 48;
/// Tasks that keep all threads busy.
const TASKS: usize = 8;
/// Elements of the weight that a task puts into the weight's order.
const TRANSPOSED: usize = 8 * 1024;
/// Pixels worth a slice of their own.
const SLICE_PIXELS: usize = 1024;

/// Elements from one pixel's gradients to the next where they are copied: an odd number of cache lines in float, so that those of many pixels do not lie in the same few sets
/// of the cache.
fn spread(rows: usize) -> usize {
    (rows.div_ceil(16) | 1) * 16
}

/// Whether a convolution's weight gradient is done this way.
pub(super) fn applies(g: &Geometry) -> bool {
    g.config.groups == 1 && !padded::applies(g)
}

/// A window of one pixel and stride 1 does not care where rows and images end: all pixels are one row.
pub(super) fn flat(g: &Geometry) -> Option<Geometry> {
    let config = g.config;
    (g.taps() == 1 && config.padding == 0 && config.stride == 1).then(|| {
        let pixels = g.batch * g.in_h * g.in_w;
        Geometry {
            batch: 1,
            in_h: 1,
            in_w: pixels,
            out_h: 1,
            out_w: pixels,
            ..*g
        }
    })
}

/// How the weight is cut.
struct Plan<'a, T> {
    g: &'a Geometry,
    x: &'a [T],
    dy: &'a [T],
    pixels: usize,
    in_c: usize,
    out_c: usize,
    panels: usize,
    chunks: usize,
    slices: usize,
    /// Row length of the sums.
    ldc: usize,
}

impl<'a, T: Element> Plan<'a, T> {
    fn new(g: &'a Geometry, x: &'a [T], dy: &'a [T]) -> Self {
        let pixels = g.batch * g.out_h * g.out_w;
        let panels = Width::of::<T>().panels(g.in_c);
        let wanted = TASKS
            .div_ceil(panels * g.taps())
            .min((g.out_c / FEW_ROWS).max(1));
        let chunks = wanted.max(g.out_c.div_ceil(ROWS));
        // By shapes alone, so that the order of the sums is the same on every machine.
        let tasks = g.taps() * g.in_c.div_ceil(64) * (g.out_c / FEW_ROWS).max(1);
        let slices = (2 * TASKS / tasks.min(TASKS)).min(pixels / SLICE_PIXELS);
        Self {
            g,
            x,
            dy,
            pixels,
            in_c: g.in_c,
            out_c: g.out_c,
            panels,
            chunks,
            slices: if tasks >= 2 * TASKS { 1 } else { slices.max(1) },
            // Wide enough for whole vectors of every instruction set.
            ldc: g.in_c.next_multiple_of(16),
        }
    }

    fn taps(&self) -> usize {
        self.g.taps()
    }

    /// One slice's sums for one tap, one panel of columns and some rows.
    fn run(&self, task: usize, sums: Shared<T>) {
        let width = Width::of::<T>();
        let (task, panel) = (
            task / self.panels,
            width.panel(self.in_c, task % self.panels),
        );
        let (task, chunk) = (task / self.chunks, task % self.chunks);
        let (slice, tap) = (task / self.taps(), task % self.taps());
        let rows = self.out_c * chunk / self.chunks..self.out_c * (chunk + 1) / self.chunks;
        let pixels = self.pixels * slice / self.slices..self.pixels * (slice + 1) / self.slices;
        let row_len = panel.vectors * width.lanes;
        // SAFETY: the rows are this task's own, and `ldc` holds whole vectors.
        let c = unsafe {
            let row = (slice * self.taps() + tap) * self.out_c + rows.start;
            sums.at(row * self.ldc + panel.column)
        };
        for row in 0..rows.len() {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(c.add(row * self.ldc), row_len) }
                .fill(T::default());
        }
        let mut packed = Scratch::<T>::take(PIXELS * row_len);
        let step = spread(rows.len());
        let mut gradients = Scratch::<T>::take(PIXELS * step);
        for start in pixels.clone().step_by(PIXELS) {
            let len = PIXELS.min(pixels.end - start);
            self.pack(tap, start, panel, row_len, &mut packed[..len * row_len]);
            for (pixel, to) in gradients.chunks_exact_mut(step).take(len).enumerate() {
                let from = (start + pixel) * self.out_c + rows.start;
                to[..rows.len()].copy_from_slice(&self.dy[from..from + rows.len()]);
            }
            let run = Run {
                a: gradients.as_ptr(),
                b: packed.as_ptr(),
                len,
            };
            // SAFETY: `dy` has `out_c` elements for every pixel and `packed` whole vectors; the sums are this task's own.
            unsafe {
                Outer {
                    runs: &[run],
                    a_step: step,
                    b_step: row_len,
                    a_offset: 0,
                    b_offset: 0,
                    k: rows.len(),
                    panel: Panel {
                        n: row_len,
                        ..panel
                    },
                    c,
                    ldc: self.ldc,
                }
                .run();
            }
        }
    }

    /// Copies a panel of the input pixels under a tap, for some output pixels, so that its rows follow one another.
    fn pack(&self, tap: usize, start: usize, panel: Panel, row_len: usize, to: &mut [T]) {
        let (g, c) = (self.g, self.g.config);
        let copy = |to: &mut [T], pixel: usize| {
            let from = pixel * self.in_c + panel.column;
            to[..panel.n].copy_from_slice(&self.x[from..from + panel.n]);
            to[panel.n..].fill(T::default());
        };
        if flat(g).is_some() {
            for (to, pixel) in to.chunks_exact_mut(row_len).zip(start..) {
                copy(to, pixel);
            }
            return;
        }
        let (down, right) = (tap / g.kernel_w * c.dilation, tap % g.kernel_w * c.dilation);
        let (mut row, mut column) = (start / g.out_w, start % g.out_w);
        let mut rest = to;
        while !rest.is_empty() {
            let here = (g.out_w - column).min(rest.len() / row_len);
            let (line, after) = rest.split_at_mut(here * row_len);
            let (b, y) = (row / g.out_h, row % g.out_h * c.stride + down);
            let y = y.wrapping_sub(c.padding);
            for (to, j) in line.chunks_exact_mut(row_len).zip(column..) {
                let x = (j * c.stride + right).wrapping_sub(c.padding);
                if y < g.in_h && x < g.in_w {
                    copy(to, (b * g.in_h + y) * g.in_w + x);
                } else {
                    to.fill(T::default());
                }
            }
            (row, column, rest) = (row + 1, 0, after);
        }
    }

    /// All slices' sums into `sums`, `[slices][taps][out][ldc]`.
    fn run_all(&self, sums: Shared<T>) {
        let tasks = self.slices * self.taps() * self.panels * self.chunks;
        par::each(tasks, |task| self.run(task, sums));
    }
}

/// The gradient of a convolution's weight, `[out, in, kernel_h, kernel_w]`.
pub(super) fn weight_gradient<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    let plan = &Plan::new(g, x, dy);
    let (ldc, row, taps) = (plan.ldc, plan.in_c, plan.taps());
    if plan.slices == 1 && ldc == row && taps == 1 {
        // SAFETY: tasks cover all rows and panels.
        return unsafe { par::filled(plan.out_c * row, |out| plan.run_all(out)) };
    }
    let per_tap = plan.out_c * ldc;
    let mut sums = Scratch::<T>::take(plan.slices * taps * per_tap);
    plan.run_all(Shared::new(&mut sums));
    let rows = (TRANSPOSED / (row * taps)).clamp(1, FEW_ROWS);
    // SAFETY: every row is written by one task.
    unsafe {
        par::filled(plan.out_c * row * taps, |out| {
            par::each(plan.out_c.div_ceil(rows), |task| {
                for o in task * rows..((task + 1) * rows).min(plan.out_c) {
                    let to = std::slice::from_raw_parts_mut(out.at(o * row * taps), row * taps);
                    for tap in 0..taps {
                        let part = &sums[tap * per_tap + o * ldc..][..row];
                        let to = to[tap..].iter_mut().step_by(taps);
                        to.zip(part).for_each(|(t, &s)| *t = s);
                    }
                    for slice in 1..plan.slices {
                        for tap in 0..taps {
                            let part = &sums[(slice * taps + tap) * per_tap + o * ldc..][..row];
                            let to = to[tap..].iter_mut().step_by(taps);
                            to.zip(part).for_each(|(t, &s)| *t += s);
                        }
                    }
                }
            });
        })
    }
}
