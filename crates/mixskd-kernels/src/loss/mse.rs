//! The mean squared difference of two maps, one of which may be an interpolation that is never written.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use super::logits::scalar;
use crate::par::{self, Shared};
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};

/// Elements of one task.
const BLOCK: usize = 1 << 14;
/// Elements summed in their own precision before going on in double precision.
const SHORT: usize = 1 << 10;
/// Vectors that are summed side by side.
const ROWS: usize = 4;

/// `a·first + b·second − minus` over one block, `second` left out where there is none.
#[derive(Clone, Copy)]
struct Difference<'a, T> {
    first: (T, &'a [T]),
    second: Option<(T, &'a [T])>,
    minus: &'a [T],
}

impl<T: Element> Difference<'_, T> {
    /// Elements `at` to `at + n`.
    ///
    /// # Safety
    /// `at + n` is at most the length of all rows, and `n` at most `L::N`.
    #[inline(always)]
    unsafe fn load<L: Lanes<T = T>>(&self, lanes: L, at: usize, n: usize) -> L::V {
        // SAFETY: the caller's promise.
        unsafe {
            let load = |row: &[T]| lanes.load_part(row.as_ptr().add(at), n);
            let mut sum = lanes.mul(lanes.splat(self.first.0), load(self.first.1));
            if let Some((weight, row)) = self.second {
                sum = lanes.fma(lanes.splat(weight), load(row), sum);
            }
            lanes.sub(sum, load(self.minus))
        }
    }
}

/// The sum of squares of a [`Difference`].
struct SumOfSquares<'a, T>(Difference<'a, T>);

impl<T: Element> Kernel<T> for SumOfSquares<'_, T> {
    type Out = f64;

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) -> f64 {
        let len = self.0.minus.len();
        let mut total = 0.0;
        for start in (0..len).step_by(SHORT) {
            let end = (start + SHORT).min(len);
            let mut sums = [lanes.splat(T::default()); ROWS];
            let mut at = start;
            let mut row = 0;
            while at < end {
                let n = L::N.min(end - at);
                // SAFETY: all rows of a difference are of one length, `len`.
                let d = unsafe { self.0.load(lanes, at, n) };
                sums[row] = lanes.fma(d, d, sums[row]);
                row = (row + 1) % ROWS;
                at += n;
            }
            for sum in sums {
                let mut values = [T::default(); 16];
                // SAFETY: no vector has more than sixteen elements.
                unsafe { lanes.store(values.as_mut_ptr(), sum) };
                total += values.iter().map(|v| v.to_f64()).sum::<f64>();
            }
        }
        total
    }
}

/// `y = scale · difference`.
struct Scaled<'a, T> {
    difference: Difference<'a, T>,
    scale: T,
    y: *mut T,
}

impl<T: Element> Kernel<T> for Scaled<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let len = self.difference.minus.len();
        let scale = lanes.splat(self.scale);
        let mut at = 0;
        while at < len {
            let n = L::N.min(len - at);
            // SAFETY: all rows have `len` elements, and so has the output, which no other task writes.
            unsafe {
                let d = self.difference.load(lanes, at, n);
                lanes.store_part(self.y.add(at), lanes.mul(scale, d), n);
            }
            at += n;
        }
    }
}

/// Blocks of rows: calls `work(row, part)`, `part` a range inside the row.
fn each_block(rows: usize, len: usize, work: impl Fn(usize, std::ops::Range<usize>) + Send + Sync) {
    let per_row = len.div_ceil(BLOCK);
    par::each(rows * per_row, |task| {
        let (row, block) = (task / per_row, task % per_row);
        work(row, block * BLOCK..((block + 1) * BLOCK).min(len));
    });
}

/// Mean of squares over `rows` rows of `len` elements, added up in order.
fn mean_of_squares<'a, T: Element>(
    rows: usize,
    len: usize,
    difference: impl Fn(usize, std::ops::Range<usize>) -> Difference<'a, T> + Send + Sync,
) -> f64 {
    let per_row = len.div_ceil(BLOCK);
    // SAFETY: every block writes its own sum.
    let sums = unsafe {
        par::filled::<f64>(rows * per_row, |out: Shared<f64>| {
            each_block(rows, len, |row, part| {
                let block = row * per_row + part.start / BLOCK;
                let sum = T::dispatch(SumOfSquares(difference(row, part)));
                out.at(block).write(sum);
            });
        })
    };
    sums.iter().sum::<f64>() / (rows * len) as f64
}

/// `scale · difference` over `rows` rows of `len` elements.
fn scaled<'a, T: Element>(
    rows: usize,
    len: usize,
    scale: f64,
    difference: impl Fn(usize, std::ops::Range<usize>) -> Difference<'a, T> + Send + Sync,
) -> Vec<T> {
    // SAFETY: every block writes its own part of the output.
    unsafe {
        par::filled(rows * len, |out: Shared<T>| {
            each_block(rows, len, |row, part| {
                let y = out.at(row * len + part.start);
                T::dispatch(Scaled {
                    difference: difference(row, part),
                    scale: T::of(scale),
                    y,
                });
            });
        })
    }
}

/// The mean squared difference of two inputs.
pub(super) struct Mse;

impl Mse {
    fn difference<'a, T: Element>(
        a: &'a [T],
        b: &'a [T],
        part: std::ops::Range<usize>,
    ) -> Difference<'a, T> {
        Difference {
            first: (T::of(1.0), &a[part.clone()]),
            second: None,
            minus: &b[part],
        }
    }
}

impl CustomOp2 for Mse {
    fn name(&self) -> &'static str {
        "mixskd-mse"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(a.dtype(), T => {
            let (a, b) = (storage::slice::<T>(a, a_layout)?, storage::slice::<T>(b, b_layout)?);
            let value = mean_of_squares(1, a.len(), |_, part| Self::difference(a, b, part));
            Ok(storage::own(vec![T::of(value)], ()))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        by_dtype!(a.dtype(), T => {
            let scale = 2.0 * scalar::<T>(dy)? / a.elem_count() as f64;
            let side = |wanted: &Tensor, scale: f64| {
                if !wanted.track_op() {
                    return Ok(None);
                }
                let data = storage::with_slice::<T, _>(a, |a| {
                    storage::with_slice::<T, _>(b, |b| {
                        Ok(scaled(1, a.len(), scale, |_, part| Self::difference(a, b, part)))
                    })
                })?;
                Ok::<_, candle_core::Error>(Some(Tensor::from_vec(data, a.shape(), a.device())?))
            };
            Ok((side(a, scale)?, side(b, -scale)?))
        })
    }
}

/// The mean squared difference of the first input's interpolation with its permutation, and the second input.
pub(super) struct InterpolatedMse {
    pub(super) partner: Vec<u32>,
    pub(super) lambda: Vec<f64>,
}

impl InterpolatedMse {
    fn difference<'a, T: Element>(
        &self,
        x: &'a [T],
        y: &'a [T],
        row: usize,
        part: std::ops::Range<usize>,
    ) -> Difference<'a, T> {
        let len = x.len() / self.partner.len();
        let of = |data: &'a [T], row: usize| &data[row * len..(row + 1) * len][part.clone()];
        let (l, p) = (self.lambda[row], self.partner[row] as usize);
        Difference {
            first: (T::of(l), of(x, row)),
            second: Some((T::of(1.0 - l), of(x, p))),
            minus: of(y, row),
        }
    }
}

impl CustomOp2 for InterpolatedMse {
    fn name(&self) -> &'static str {
        "mixskd-interpolated-mse"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let rows = self.partner.len();
        by_dtype!(x.dtype(), T => {
            let (x, y) = (storage::slice::<T>(x, x_layout)?, storage::slice::<T>(y, y_layout)?);
            let value = mean_of_squares(rows, x.len() / rows, |row, part| {
                self.difference(x, y, row, part)
            });
            Ok(storage::own(vec![T::of(value)], ()))
        })
    }

    /// With `d = ∂L/∂(interpolated − y)`: `∂L/∂y = −d`, and `∂L/∂x` is `d` sent back through the interpolation.
    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let rows = self.partner.len();
        by_dtype!(x.dtype(), T => {
            let scale = 2.0 * scalar::<T>(dy)? / x.elem_count() as f64;
            let to_y = storage::with_slice::<T, _>(x, |x| {
                storage::with_slice::<T, _>(y, |y| {
                    Ok(scaled(rows, x.len() / rows, -scale, |row, part| self.difference(x, y, row, part)))
                })
            })?;
            let to_x = if x.track_op() {
                let data = crate::mix::backward(&self.partner, &self.lambda, &to_y, -1.0);
                Some(Tensor::from_vec(data, x.shape(), x.device())?)
            } else {
                None
            };
            let to_y = if y.track_op() {
                Some(Tensor::from_vec(to_y, y.shape(), y.device())?)
            } else {
                None
            };
            Ok((to_x, to_y))
        })
    }
}
