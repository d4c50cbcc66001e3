//! The weight gradient of 1×1 windows: one product of two matrices whose rows are pixels, `dyᵀ · x`, which is the weight as
//! it lies in memory.

use crate::gemm::micro::{Outer, Run};
use crate::gemm::pack::{Panel, Width};
use crate::par::{self, Scratch, Shared};
use crate::simd::Element;

use super::config::Geometry;

/// Pixels whose panel of input channels stays in the first-level cache: 32 KiB with AVX-512.
const PIXELS: usize = 128;
/// Most rows of the weight that a task goes through for each block of pixels: they stay in the second-level cache.
const ROWS: usize = 240;
/// Fewest rows worth a task of their own.
const FEW_ROWS: usize = 48;
/// Tasks that keep all threads busy.
const TASKS: usize = 8;
/// Pixels worth a slice of their own.
const SLICE_PIXELS: usize = 1024;

/// Whether a convolution's weight gradient is done this way.
pub(super) fn applies(g: &Geometry) -> bool {
    g.taps() == 1 && g.config.padding == 0 && g.config.groups == 1
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
    fn new(g: &Geometry, x: &'a [T], dy: &'a [T]) -> Self {
        let pixels = g.batch * g.out_h * g.out_w;
        let panels = Width::of::<T>().panels(g.in_c);
        let wanted = TASKS.div_ceil(panels).min((g.out_c / FEW_ROWS).max(1));
        let chunks = wanted.max(g.out_c.div_ceil(ROWS));
        // By shapes alone, so that the order of the sums is the same on every machine.
        let tasks = g.in_c.div_ceil(64) * (g.out_c / FEW_ROWS).max(1);
        let slices = (2 * TASKS / tasks.min(TASKS)).min(pixels / SLICE_PIXELS);
        Self {
            x,
            dy,
            pixels,
            in_c: g.in_c,
            out_c: g.out_c,
            panels,
            chunks,
            slices: if tasks >= TASKS { 1 } else { slices.max(1) },
            // Wide enough for whole vectors of every instruction set.
            ldc: g.in_c.next_multiple_of(16),
        }
    }

    /// One slice's sums for one panel of columns and some rows.
    fn run(&self, task: usize, sums: Shared<T>) {
        let width = Width::of::<T>();
        let (slice, task) = (
            task / (self.panels * self.chunks),
            task % (self.panels * self.chunks),
        );
        let (chunk, panel) = (
            task / self.panels,
            width.panel(self.in_c, task % self.panels),
        );
        let rows = self.out_c * chunk / self.chunks..self.out_c * (chunk + 1) / self.chunks;
        let pixels = self.pixels * slice / self.slices..self.pixels * (slice + 1) / self.slices;
        let row_len = panel.vectors * width.lanes;
        // SAFETY: the rows are this task's own, and `ldc` holds whole vectors.
        let c = unsafe { sums.at((slice * self.out_c + rows.start) * self.ldc + panel.column) };
        for row in 0..rows.len() {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(c.add(row * self.ldc), row_len) }
                .fill(T::default());
        }
        let mut packed = Scratch::<T>::take(PIXELS * row_len);
        for start in pixels.clone().step_by(PIXELS) {
            let len = PIXELS.min(pixels.end - start);
            self.pack(start, panel, row_len, &mut packed[..len * row_len]);
            let run = Run {
                a: self.dy[start * self.out_c..].as_ptr(),
                b: packed.as_ptr(),
                len,
            };
            // SAFETY: `dy` has `out_c` elements for every pixel and `packed` whole vectors; the sums are this task's own.
            unsafe {
                Outer {
                    runs: &[run],
                    a_step: self.out_c,
                    b_step: row_len,
                    a_offset: rows.start,
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

    /// Copies a panel of some pixels' input, so that its rows follow one another.
    fn pack(&self, start: usize, panel: Panel, row_len: usize, to: &mut [T]) {
        for (to, pixel) in to.chunks_exact_mut(row_len).zip(start..) {
            let from = pixel * self.in_c + panel.column;
            to[..panel.n].copy_from_slice(&self.x[from..from + panel.n]);
            to[panel.n..].fill(T::default());
        }
    }

    /// All slices' sums into `sums`, `[slices][out][ldc]`.
    fn run_all(&self, sums: Shared<T>) {
        par::each(self.slices * self.panels * self.chunks, |task| {
            self.run(task, sums);
        });
    }
}

/// The gradient of a convolution's weight, `[out, in, 1, 1]`.
pub(super) fn weight_gradient<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    if g.config.stride == 1 {
        return product(&Plan::new(g, x, dy));
    }
    product(&Plan::new(g, &sampled(g, x), dy))
}

fn product<T: Element>(plan: &Plan<'_, T>) -> Vec<T> {
    let (ldc, row) = (plan.ldc, plan.in_c);
    if plan.slices == 1 && ldc == row {
        // SAFETY: tasks cover all rows and panels.
        return unsafe { par::filled(plan.out_c * row, |out| plan.run_all(out)) };
    }
    let per_slice = plan.out_c * ldc;
    let mut sums = Scratch::<T>::take(plan.slices * per_slice);
    plan.run_all(Shared::new(&mut sums));
    // SAFETY: every row is written by one task.
    unsafe {
        par::filled(plan.out_c * row, |out| {
            par::each(plan.out_c.div_ceil(FEW_ROWS), |task| {
                for o in task * FEW_ROWS..((task + 1) * FEW_ROWS).min(plan.out_c) {
                    let to = std::slice::from_raw_parts_mut(out.at(o * row), row);
                    to.copy_from_slice(&sums[o * ldc..][..row]);
                    for slice in 1..plan.slices {
                        let part = &sums[slice * per_slice + o * ldc..][..row];
                        to.iter_mut().zip(part).for_each(|(t, &s)| *t += s);
                    }
                }
            });
        })
    }
}

/// The input's pixels that a stride does not leave out.
fn sampled<T: Element>(g: &Geometry, x: &[T]) -> Vec<T> {
    let (stride, c) = (g.config.stride, g.in_c);
    // SAFETY: every pixel of every output row is written.
    unsafe {
        par::filled(g.batch * g.out_h * g.out_w * c, |to| {
            par::each(g.batch * g.out_h, |row| {
                let (b, y) = (row / g.out_h, row % g.out_h * stride);
                let to = std::slice::from_raw_parts_mut(to.at(row * g.out_w * c), g.out_w * c);
                for (i, to) in to.chunks_exact_mut(c).enumerate() {
                    let from = ((b * g.in_h + y) * g.in_w + i * stride) * c;
                    to.copy_from_slice(&x[from..from + c]);
                }
            });
        })
    }
}
