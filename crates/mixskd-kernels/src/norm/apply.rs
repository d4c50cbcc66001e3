//! `act(scale · (x − centre) + shift + residual)`, channel by channel, and what its gradient needs.
//!
//! The centre is taken off first: where the mean is large beside the deviation, `scale · x` alone would lose digits.

use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

use super::stats::{add_to, block_rows};

/// Rows summed in the element's own precision before going on in double precision.
const SHORT: usize = 64;

/// A line per channel: `scale · (x − centre) + shift`.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a, T> {
    pub(super) centre: &'a [T],
    pub(super) scale: &'a [T],
    pub(super) shift: &'a [T],
}

impl<T: Element> Lines<'_, T> {
    /// The lines' values at a vector of channels.
    ///
    /// # Safety
    /// `column + n` channels exist.
    #[inline(always)]
    unsafe fn at<L: Lanes<T = T>>(self, lanes: L, x: L::V, column: usize, n: usize) -> L::V {
        // SAFETY: the caller's promise.
        unsafe {
            let centre = lanes.load_part(self.centre.as_ptr().add(column), n);
            let scale = lanes.load_part(self.scale.as_ptr().add(column), n);
            let shift = lanes.load_part(self.shift.as_ptr().add(column), n);
            lanes.fma(lanes.sub(x, centre), scale, shift)
        }
    }
}

struct Forward<'a, T> {
    x: &'a [T],
    residual: Option<&'a [T]>,
    lines: Lines<'a, T>,
    relu: bool,
    y: *mut T,
}

impl<T: Element> Kernel<T> for Forward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        match (self.residual.is_some(), self.relu) {
            (false, false) => self.pass::<L, false, false>(lanes),
            (false, true) => self.pass::<L, false, true>(lanes),
            (true, false) => self.pass::<L, true, false>(lanes),
            (true, true) => self.pass::<L, true, true>(lanes),
        }
    }
}

impl<T: Element> Forward<'_, T> {
    #[inline(always)]
    fn pass<L: Lanes<T = T>, const RESIDUAL: bool, const RELU: bool>(self, lanes: L) {
        let c = self.lines.scale.len();
        let zero = lanes.splat(T::default());
        let residual = self.residual.unwrap_or(self.x).as_ptr();
        let x = self.x.as_ptr();
        for row in 0..self.x.len() / c {
            let mut column = 0;
            while column < c {
                let n = L::N.min(c - column);
                let at = row * c + column;
                // SAFETY: rows and columns stay inside the slices and the equally long output.
                unsafe {
                    let mut v = self
                        .lines
                        .at(lanes, lanes.load_part(x.add(at), n), column, n);
                    if RESIDUAL {
                        v = lanes.add(v, lanes.load_part(residual.add(at), n));
                    }
                    if RELU {
                        v = lanes.max(zero, v);
                    }
                    lanes.store_part(self.y.add(at), v, n);
                }
                column += n;
            }
        }
    }
}

/// `act(line(x) + residual)` of `[rows, channels]`.
pub(super) fn forward<T: Element>(
    x: &[T],
    residual: Option<&[T]>,
    lines: Lines<'_, T>,
    relu: bool,
) -> Vec<T> {
    let per_block = block_rows(lines.scale.len()) * lines.scale.len();
    // SAFETY: blocks are disjoint, and each writes all of its part.
    unsafe {
        par::filled(x.len(), |y| {
            par::each(x.len().div_ceil(per_block), |block| {
                let part = block * per_block..((block + 1) * per_block).min(x.len());
                T::dispatch(Forward {
                    x: &x[part.clone()],
                    residual: residual.map(|r| &r[part.clone()]),
                    lines,
                    relu,
                    y: y.at(part.start),
                });
            });
        })
    }
}

/// What flows back into a normalised map: the output's gradient where the output is above zero.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a, T> {
    /// Gradient of the output.
    pub(super) dy: &'a [T],
    /// The output, where a ReLU made it.
    pub(super) y: Option<&'a [T]>,
}

impl<T> Incoming<'_, T> {
    fn part(self, range: std::ops::Range<usize>) -> Self {
        Self {
            dy: &self.dy[range.clone()],
            y: self.y.map(|y| &y[range]),
        }
    }
}

/// `n` elements of the masked gradient.
///
/// # Safety
/// `at + n` is inside the slices.
#[inline(always)]
unsafe fn masked<L: Lanes, const RELU: bool>(
    lanes: L,
    g: Incoming<'_, L::T>,
    at: usize,
    n: usize,
) -> L::V {
    // SAFETY: the caller's promise.
    unsafe {
        let dy = lanes.load_part(g.dy.as_ptr().add(at), n);
        match g.y {
            Some(y) if RELU => lanes.gate(lanes.load_part(y.as_ptr().add(at), n), dy),
            _ => dy,
        }
    }
}

struct Reduce<'a, T> {
    g: Incoming<'a, T>,
    x: &'a [T],
    centre: &'a [T],
    sum: &'a mut [f64],
    product: &'a mut [f64],
    /// Where the masked gradient goes, if anywhere.
    kept: Option<*mut T>,
}

impl<T: Element> Kernel<T> for Reduce<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        match (self.g.y.is_some(), self.kept.is_some()) {
            (false, false) => self.pass::<L, false, false>(lanes),
            (false, true) => self.pass::<L, false, true>(lanes),
            (true, false) => self.pass::<L, true, false>(lanes),
            (true, true) => self.pass::<L, true, true>(lanes),
        }
    }
}

impl<T: Element> Reduce<'_, T> {
    #[inline(always)]
    fn pass<L: Lanes<T = T>, const RELU: bool, const KEEP: bool>(self, lanes: L) {
        let c = self.centre.len();
        let rows = self.x.len() / c;
        let zero = lanes.splat(T::default());
        let kept = self.kept.unwrap_or(std::ptr::null_mut());
        let mut column = 0;
        while column < c {
            let n = L::N.min(c - column);
            // SAFETY: rows and columns stay inside the slices and the equally long kept gradient.
            unsafe {
                let centre = lanes.load_part(self.centre.as_ptr().add(column), n);
                for start in (0..rows).step_by(SHORT) {
                    let (mut s, mut p) = ([zero; 2], [zero; 2]);
                    for row in start..(start + SHORT).min(rows) {
                        let at = row * c + column;
                        let g = masked::<L, RELU>(lanes, self.g, at, n);
                        let d = lanes.sub(lanes.load_part(self.x.as_ptr().add(at), n), centre);
                        s[row & 1] = lanes.add(s[row & 1], g);
                        p[row & 1] = lanes.fma(g, d, p[row & 1]);
                        if KEEP {
                            lanes.store_part(kept.add(at), g, n);
                        }
                    }
                    add_to(
                        lanes,
                        lanes.add(s[0], s[1]),
                        &mut self.sum[column..column + n],
                    );
                    add_to(
                        lanes,
                        lanes.add(p[0], p[1]),
                        &mut self.product[column..column + n],
                    );
                }
            }
            column += n;
        }
    }
}

/// `Σ g` and `Σ g · (x − centre)` per channel, `g` being the masked gradient, which is written to `kept` if given.
pub(super) fn reduce<T: Element>(
    g: Incoming<'_, T>,
    x: &[T],
    centre: &[T],
    kept: Option<Shared<T>>,
) -> (Vec<f64>, Vec<f64>) {
    let channels = centre.len();
    let per_block = block_rows(channels) * channels;
    let blocks = x.len().div_ceil(per_block);
    let mut sums = Scratch::<f64>::take(blocks * channels * 2);
    sums.fill(0.0);
    let shared = Shared::new(&mut sums);
    par::each(blocks, |block| {
        let part = block * per_block..((block + 1) * per_block).min(x.len());
        // SAFETY: each block has sums of its own, and its own part of the kept gradient.
        unsafe {
            let at = block * channels * 2;
            T::dispatch(Reduce {
                g: g.part(part.clone()),
                x: &x[part.clone()],
                centre,
                sum: std::slice::from_raw_parts_mut(shared.at(at), channels),
                product: std::slice::from_raw_parts_mut(shared.at(at + channels), channels),
                kept: kept.map(|k| k.at(part.start)),
            });
        }
    });
    let mut sum = vec![0.0; channels];
    let mut product = vec![0.0; channels];
    for part in sums.chunks_exact(2 * channels) {
        for c in 0..channels {
            sum[c] += part[c];
            product[c] += part[channels + c];
        }
    }
    (sum, product)
}

struct Backward<'a, T> {
    g: Incoming<'a, T>,
    x: &'a [T],
    scale: &'a [T],
    lines: Lines<'a, T>,
    dx: *mut T,
}

impl<T: Element> Kernel<T> for Backward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        if self.g.y.is_some() {
            self.pass::<L, true>(lanes);
        } else {
            self.pass::<L, false>(lanes);
        }
    }
}

impl<T: Element> Backward<'_, T> {
    #[inline(always)]
    fn pass<L: Lanes<T = T>, const RELU: bool>(self, lanes: L) {
        let c = self.scale.len();
        for row in 0..self.x.len() / c {
            let mut column = 0;
            while column < c {
                let n = L::N.min(c - column);
                let at = row * c + column;
                // SAFETY: rows and columns stay inside the slices and the equally long output.
                unsafe {
                    let g = masked::<L, RELU>(lanes, self.g, at, n);
                    let x = lanes.load_part(self.x.as_ptr().add(at), n);
                    let line = self.lines.at(lanes, x, column, n);
                    let scale = lanes.load_part(self.scale.as_ptr().add(column), n);
                    let dx = lanes.fma(g, scale, line);
                    lanes.store_part(self.dx.add(at), dx, n);
                }
                column += n;
            }
        }
    }
}

/// `scale · g + line(x)` per channel, `g` being the masked gradient.
pub(super) fn backward<T: Element>(
    g: Incoming<'_, T>,
    x: &[T],
    scale: &[T],
    lines: Lines<'_, T>,
) -> Vec<T> {
    let channels = scale.len();
    let per_block = block_rows(channels) * channels;
    // SAFETY: blocks are disjoint, and each writes all of its part.
    unsafe {
        par::filled(x.len(), |dx| {
            par::each(x.len().div_ceil(per_block), |block| {
                let part = block * per_block..((block + 1) * per_block).min(x.len());
                T::dispatch(Backward {
                    g: g.part(part.clone()),
                    x: &x[part.clone()],
                    scale,
                    lines,
                    dx: dx.at(part.start),
                });
            });
        })
    }
}
