//! Windows into and out of the transformed domain.

use crate::gemm::pack::{Panel, Width};
use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

use super::transform::{self, POINTS};

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
    u: Shared<T>,
    panel: Panel,
    first: usize,
}

impl<T: Element> Kernel<T> for Transform<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Self {
            weights: w,
            panel,
            first,
            ..
        } = self;
        let width = panel.vectors * L::N;
        let base = panel.column * POINTS * w.k;
        for k in first..(first + K_CHUNK).min(w.k) {
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
                let u = transform::weight_tile(lanes, &g);
                for point in 0..POINTS {
                    let at = base + (point * w.k + k) * width + v * L::N;
                    // SAFETY: inside `u`; tasks differ in panel or rows.
                    unsafe { lanes.store(self.u.at(at), u[point / 6][point % 6]) };
                }
            }
        }
    }
}

impl<T: Element> Weights<'_, T> {
    /// `G g Gᵀ` of all windows, in panels like [`Packed`](crate::gemm::pack::Packed)'s with a segment per point.
    pub(super) fn transformed(self) -> Scratch<T> {
        let mut u = Scratch::take(POINTS * self.k * self.n.next_multiple_of(16));
        let shared = Shared::new(&mut u);
        let width = Width::of::<T>();
        let chunks = self.k.div_ceil(K_CHUNK);
        par::each(width.panels(self.n) * chunks, |task| {
            T::dispatch(Transform {
                weights: self,
                u: shared,
                panel: width.panel(self.n, task / chunks),
                first: task % chunks * K_CHUNK,
            });
        });
        u
    }
}

/// Sums in the transformed domain, `[slice][point][in][out padded to ldc]`, on their way back to the weight's gradient.
pub(super) struct Sums<'a, T> {
    pub(super) data: &'a [T],
    pub(super) slices: usize,
    pub(super) in_c: usize,
    pub(super) out_c: usize,
    pub(super) ldc: usize,
}

struct Back<'a, T> {
    sums: &'a Sums<'a, T>,
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
        let per_slice = POINTS * s.in_c * s.ldc;
        for i in 0..s.in_c {
            for column in (self.first..(self.first + COLUMNS).min(s.out_c)).step_by(L::N) {
                let mut u = [[lanes.splat(T::default()); 6]; 6];
                for point in 0..POINTS {
                    for slice in 0..s.slices {
                        let at = slice * per_slice + (point * s.in_c + i) * s.ldc + column;
                        // SAFETY: rows are padded to whole vectors.
                        let x = unsafe { lanes.load(s.data.as_ptr().add(at)) };
                        u[point / 6][point % 6] = lanes.add(u[point / 6][point % 6], x);
                    }
                }
                let g = transform::weight_adjoint_tile(lanes, &u);
                for tap in 0..9 {
                    let mut values = [T::default(); 16];
                    // SAFETY: sixteen elements, and no vector is longer.
                    unsafe { lanes.store(values.as_mut_ptr(), g[tap / 3][tap % 3]) };
                    for lane in 0..L::N.min(s.out_c - column) {
                        let at = ((column + lane) * s.in_c + i) * 9 + tap;
                        // SAFETY: inside the weight; tasks differ in output channels.
                        unsafe { *self.dw.at(at) = values[lane] };
                    }
                }
            }
        }
    }
}

impl<T: Element> Sums<'_, T> {
    /// `Gᵀ u G` of the slices' total, `[out, in, 3, 3]`.
    pub(super) fn weight_gradient(&self) -> Vec<T> {
        // SAFETY: tasks cover all output channels.
        unsafe {
            par::filled(self.out_c * self.in_c * 9, |dw| {
                par::each(self.out_c.div_ceil(COLUMNS), |task| {
                    T::dispatch(Back {
                        sums: self,
                        first: task * COLUMNS,
                        dw,
                    });
                });
            })
        }
    }
}
