//! Matrix multiplication in register tiles.
//!
//! The right operand of [`micro::Rows`] is packed once per call ([`pack`]); the left one is read where it lies through a
//! table of row pointers, so that a convolution needs no copy of its input.

pub(crate) mod micro;
pub(crate) mod pack;

use crate::par::{self, Scratch, Shared};
use crate::simd::Element;
use micro::{Active, ROWS, Rows};
use pack::{Packed, Panel, Strides, Width};

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
const BLOCK: usize = 8 * ROWS;

/// Computes rows `first..` of a product, as many as a task has, in one panel of columns.
fn block<T: Element>(a: Matrix<'_, T>, b: &Packed<T>, first: usize, panel: Panel, c: Shared<T>) {
    let count = BLOCK.min(a.rows - first);
    // Rows of a transposed matrix are copied out, so that the inner loop finds them in one piece.
    let straight = a.column_stride == 1;
    let mut copy = Scratch::<T>::take(if straight { 0 } else { count * b.k });
    if !straight {
        for k in 0..b.k {
            for m in 0..count {
                copy[m * b.k + k] = a.data[(first + m) * a.row_stride + k * a.column_stride];
            }
        }
    }
    let mut rows = [std::ptr::null::<T>(); BLOCK];
    let mut out = [std::ptr::null_mut::<T>(); BLOCK];
    for m in 0..count {
        rows[m] = if straight {
            a.data[(first + m) * a.row_stride..].as_ptr()
        } else {
            copy[m * b.k..].as_ptr()
        };
        // SAFETY: the row is inside the product.
        out[m] = unsafe { c.at((first + m) * b.n) };
    }
    // SAFETY: rows hold `k` elements; tasks have different rows or panels of the product.
    unsafe {
        Rows {
            pointers: &rows,
            stride: BLOCK,
            offset: 0,
            active: Active::Same(&[0]),
            k: 0..b.k,
            segment_len: b.k,
            b: b.panel(panel),
            panel,
            c: &out[..count],
            c_offset: panel.column,
            accumulate: false,
        }
        .run();
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
    let width = Width::of::<T>();
    let panels = width.panels(b.columns);
    // SAFETY: tasks cover all rows and panels.
    unsafe {
        par::filled(a.rows * b.columns, |c| {
            par::each(a.rows.div_ceil(BLOCK) * panels, |task| {
                let panel = width.panel(b.columns, task % panels);
                block(a, &packed, task / panels * BLOCK, panel, c);
            });
        })
    }
}
