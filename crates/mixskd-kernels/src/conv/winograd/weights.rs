//! Windows into and out of the transformed domain.

use std::ops::Range;

use crate::gemm::pack::{Panel, Width};
use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

use super::transform::{self, Grid, POINTS};

/// Where weight `(k, n, tap)` lies: `k` and `n` are the channels summed over and produced.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    pub(super) data: &'a [T],
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) k_stride: usize,
    pub(super) n_stride: usize,
    /// Taps in reverse, as the input gradient wants them.
    pub(super) flipped: bool,
}

/// Rows of a panel that one task transforms.
const K_CHUNK: usize = 8;

struct Transform<'a, T> {
    weights: Weights<'a, T>,
    panel: Panel,
    /// Rows to transform.
    rows: Range<usize>,
    /// Where `(point, row, column)` goes: `[point][row − base][column]`, `height` rows a point.
    u: *mut T,
    base: usize,
    height: usize,
}

impl<T: Element> Kernel<T> for Transform<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Self {
            weights: w,
            panel,
            rows,
            u: to,
            base,
            height,
        } = self;
        let width = panel.vectors * L::N;
        for k in rows {
            for v in 0..panel.vectors {
                let column = panel.column + v * L::N;
                let mut windows = [[T::default(); 16]; 9];
                for lane in 0..L::N.min(w.n - column) {
                    let at = k * w.k_stride + (column + lane) * w.n_stride;
                    let window = &w.data[at..at + 9];
                    for tap in 0..9 {
                        windows[tap][lane] = window[if w.flipped { 8 - tap } else { tap }];
                    }
                }
                let mut g = [[lanes.splat(T::default()); 3]; 3];
                for tap in 0..9 {
                    // SAFETY: sixteen elements, and no vector is longer.
                    g[tap / 3][tap % 3] = unsafe { lanes.load(windows[tap].as_ptr()) };
                }
                // SAFETY: inside the caller's buffer; tasks differ in panel or rows.
                unsafe {
                    let plane = height * width;
                    let u = Grid {
                        at: to.add((k - base) * width + v * L::N),
                        row: 6 * plane,
                        column: plane,
                    };
                    transform::weight_tile(lanes, &g, &u);
                }
            }
        }
    }
}

impl<T: Element> Weights<'_, T> {
    /// Length of the transformed weights.
    pub(super) fn transformed_len(&self) -> usize {
        POINTS * self.k * self.n.next_multiple_of(16)
    }

    /// [`Weights::transform_into`] scratch memory.
    pub(super) fn transformed(self) -> Scratch<T> {
        let mut u = Scratch::take(self.transformed_len());
        self.transform_into(&mut u);
        u
    }

    /// `G g Gᵀ` of all windows, in panels like [`Packed`](crate::gemm::pack::Packed)'s with a segment per point; `u` is of
    /// [`Weights::transformed_len`].
    pub(super) fn transform_into(self, u: &mut [T]) {
        let shared = Shared::new(u);
        let width = Width::of::<T>();
        let chunks = self.k.div_ceil(K_CHUNK);
        par::each(width.panels(self.n) * chunks, |task| {
            let panel = width.panel(self.n, task / chunks);
            let first = task % chunks * K_CHUNK;
            T::dispatch(Transform {
                weights: self,
                panel,
                rows: first..(first + K_CHUNK).min(self.k),
                // SAFETY: the panel begins inside `u`.
                u: unsafe { shared.at(panel.column * POINTS * self.k) },
                base: 0,
                height: self.k,
            });
        });
    }

    /// `G g Gᵀ` of some rows of one panel: `[point][row][column]`. `u` has room for all of them.
    pub(super) fn transform_block(self, panel: Panel, rows: Range<usize>, u: &mut [T]) {
        T::dispatch(Transform {
            weights: self,
            panel,
            base: rows.start,
            height: rows.len(),
            rows,
            u: u.as_mut_ptr(),
        });
    }
}

/// Sums in the transformed domain, `[slice][point][row][column]`, on their way back to the weight's gradient. A row is an
/// input channel, a column an output channel.
pub(super) struct Sums<'a, T> {
    pub(super) data: &'a [T],
    pub(super) slices: usize,
    pub(super) rows: usize,
    /// Elements from row to row, whole vectors.
    pub(super) ldc: usize,
}

/// A block of columns of [`Sums`] on its way to the weight.
struct Back<'a, T> {
    sums: &'a Sums<'a, T>,
    /// First column in the sums, and the output channels that it and the following ones stand for.
    column: usize,
    channels: Range<usize>,
    /// Input channels of the weight, and the one that the first row stands for.
    in_c: usize,
    first: usize,
    dw: Shared<T>,
}

/// Output channels of a task.
const COLUMNS: usize = 16;

impl<T: Element> Kernel<T> for Back<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let s = self.sums;
        let per_slice = POINTS * s.rows * s.ldc;
        for i in 0..s.rows {
            for channel in self.channels.clone().step_by(L::N) {
                let column = self.column + channel - self.channels.start;
                let mut u = [[lanes.splat(T::default()); 6]; 6];
                for point in 0..POINTS {
                    for slice in 0..s.slices {
                        let at = slice * per_slice + (point * s.rows + i) * s.ldc + column;
                        // SAFETY: rows are padded to whole vectors.
                        let x = unsafe { lanes.load(s.data.as_ptr().add(at)) };
                        u[point / 6][point % 6] = lanes.add(u[point / 6][point % 6], x);
                    }
                }
                let mut values = [[T::default(); 16]; 9];
                let g = Grid {
                    at: values.as_mut_ptr().cast::<T>(),
                    row: 48,
                    column: 16,
                };
                // SAFETY: sixteen elements for each tap, and no vector is longer.
                unsafe { transform::weight_adjoint_tile(lanes, &u, &g) };
                for lane in 0..L::N.min(self.channels.end - channel) {
                    let at = ((channel + lane) * self.in_c + self.first + i) * 9;
                    for tap in 0..9 {
                        // SAFETY: inside the weight; tasks differ in input or output channels.
                        unsafe { *self.dw.at(at + tap) = values[tap][lane] };
                    }
                }
            }
        }
    }
}

impl<T: Element> Sums<'_, T> {
    /// `Gᵀ u G` of the slices' total, `[out, in, 3, 3]`.
    pub(super) fn weight_gradient(&self, in_c: usize, out_c: usize) -> Vec<T> {
        // SAFETY: tasks cover all output channels.
        unsafe {
            par::filled(out_c * in_c * 9, |dw| {
                par::each(out_c.div_ceil(COLUMNS), |task| {
                    T::dispatch(Back {
                        sums: self,
                        column: task * COLUMNS,
                        channels: task * COLUMNS..((task + 1) * COLUMNS).min(out_c),
                        in_c,
                        first: 0,
                        dw,
                    });
                });
            })
        }
    }

    /// The same for sums of one panel and of the input channels from `first` of `in_c` on.
    ///
    /// # Safety
    /// `dw` is the whole weight's gradient, and no other thread writes these channels of it.
    pub(super) unsafe fn write_block(
        &self,
        (in_c, first): (usize, usize),
        panel: Panel,
        dw: Shared<T>,
    ) {
        T::dispatch(Back {
            sums: self,
            column: 0,
            channels: panel.column..panel.column + panel.n,
            in_c,
            first,
            dw,
        });
    }
}
