//! Matrix multiplication in register tiles.
//!
//! The right operand of [`micro::rows`] is packed once per call ([`pack`]); the left one is read where it lies through a
//! table of row pointers, so that a convolution needs no copy of its input.

pub(crate) mod micro;
pub(crate) mod pack;

use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};
use micro::{ROWS, RowTable};
use pack::{Packed, Strides};

/// A matrix in memory, by its strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `columns` elements, one after the other.
    pub(crate) fn rows(data: &'a [T], columns: usize) -> Self {
        Self {
            data,
            rows: data.len() / columns,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// Rows of one task.
const BLOCK: usize = 16 * ROWS;

struct Product<'a, T> {
    a: Matrix<'a, T>,
    b: &'a Packed<T>,
    first: usize,
    panel: usize,
    c: Shared<T>,
}

impl<T: Element> Kernel<T> for Product<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Self {
            a,
            b,
            first,
            panel,
            c,
        } = self;
        if panel >= pack::panel_count::<L>(b.n) {
            return;
        }
        let panel = pack::panel::<L>(b.n, panel);
        let count = BLOCK.min(a.rows - first);
        // Rows of a transposed matrix are copied out, so that the inner loop finds them in one piece.
        let mut copy = Scratch::<T>::take(if a.column_stride == 1 { 0 } else { count * b.k });
        if a.column_stride != 1 {
            for k in 0..b.k {
                for m in 0..count {
                    copy[m * b.k + k] = a.data[(first + m) * a.row_stride + k * a.column_stride];
                }
            }
        }
        for at in (0..count).step_by(ROWS) {
            let mr = ROWS.min(count - at);
            let mut rows = [std::ptr::null::<T>(); ROWS];
            let mut out = [std::ptr::null_mut::<T>(); ROWS];
            for m in 0..mr {
                rows[m] = if a.column_stride == 1 {
                    a.data[(first + at + m) * a.row_stride..].as_ptr()
                } else {
                    copy[(at + m) * b.k..].as_ptr()
                };
                // SAFETY: the row and the panel's columns are inside the product.
                out[m] = unsafe { c.at((first + at + m) * b.n + panel.column) };
            }
            let table = RowTable {
                active: &[0],
                pointers: rows.as_ptr(),
                stride: ROWS,
            };
            // SAFETY: rows hold `k` elements; tasks have different rows or panels of the product.
            unsafe {
                let packed = b.panel(panel);
                micro::rows(
                    lanes,
                    mr,
                    panel.vectors,
                    table,
                    b.k,
                    packed,
                    &out,
                    panel.n,
                    false,
                );
            }
        }
    }
}

/// Number of panels that `.0` columns make on this processor.
pub(crate) struct Panels(pub(crate) usize);

impl<T: Element> Kernel<T> for Panels {
    type Out = usize;

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, _: L) -> usize {
        pack::panel_count::<L>(self.0)
    }
}

/// `a · b`, row by row.
pub(crate) fn multiply<T: Element>(a: Matrix<'_, T>, b: Matrix<'_, T>) -> Vec<T> {
    let at = Strides {
        segment: 0,
        k: b.row_stride,
        n: b.column_stride,
    };
    let packed = Packed::new(b.data, at, 1, b.rows, b.columns);
    let panels = T::dispatch(Panels(b.columns));
    // SAFETY: tasks cover all rows and panels.
    unsafe {
        par::filled(a.rows * b.columns, |c| {
            par::each(a.rows.div_ceil(BLOCK) * panels, |task| {
                T::dispatch(Product {
                    a,
                    b: &packed,
                    first: task / panels * BLOCK,
                    panel: task % panels,
                    c,
                });
            });
        })
    }
}
