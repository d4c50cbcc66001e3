//! Mean and variance per channel in one pass.

use candle_core::WithDType;

use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

/// Elements that a task sums.
pub(super) const BLOCK: usize = 32 * 1024;
/// Rows summed in the element's own precision before going on in double precision.
const SHORT: usize = 64;

/// Rows of a task, by channel count.
pub(super) fn block_rows(channels: usize) -> usize {
    (BLOCK / channels.max(1)).max(1)
}

/// Sums of a block of rows: Σ(x − x₀) and Σ(x − x₀)² around the block's first row, which keeps them small and so exact.
struct Block<'a, T> {
    x: &'a [T],
    channels: usize,
    sum: &'a mut [f64],
    square: &'a mut [f64],
}

impl<T: Element> Kernel<T> for Block<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let c = self.channels;
        let rows = self.x.len() / c;
        let zero = lanes.splat(T::default());
        let mut column = 0;
        while column < c {
            let n = L::N.min(c - column);
            // SAFETY: rows and columns stay inside `x`; `n` cuts the last vector.
            unsafe {
                let base = self.x.as_ptr().add(column);
                let shift = lanes.load_part(base, n);
                for start in (0..rows).step_by(SHORT) {
                    let (mut s, mut q) = ([zero; 2], [zero; 2]);
                    let mut row = start;
                    let end = (start + SHORT).min(rows);
                    while row + 2 <= end {
                        for u in 0..2 {
                            let d = lanes.sub(lanes.load_part(base.add((row + u) * c), n), shift);
                            s[u] = lanes.add(s[u], d);
                            q[u] = lanes.fma(d, d, q[u]);
                        }
                        row += 2;
                    }
                    if row < end {
                        let d = lanes.sub(lanes.load_part(base.add(row * c), n), shift);
                        s[0] = lanes.add(s[0], d);
                        q[0] = lanes.fma(d, d, q[0]);
                    }
                    add_to(
                        lanes,
                        lanes.add(s[0], s[1]),
                        &mut self.sum[column..column + n],
                    );
                    add_to(
                        lanes,
                        lanes.add(q[0], q[1]),
                        &mut self.square[column..column + n],
                    );
                }
            }
            column += n;
        }
    }
}

/// Adds a vector to double-precision sums.
#[inline(always)]
pub(super) fn add_to<L: Lanes>(lanes: L, v: L::V, sums: &mut [f64]) {
    let mut values = [L::T::default(); 16];
    // SAFETY: no vector has more than sixteen elements.
    unsafe { lanes.store(values.as_mut_ptr(), v) };
    for (s, x) in sums.iter_mut().zip(values) {
        *s += x.to_f64();
    }
}

/// Mean and biased variance per channel of `[rows, channels]`.
pub(super) fn mean_var<T: Element>(x: &[T], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = x.len() / channels;
    let per_block = block_rows(channels);
    let blocks = rows.div_ceil(per_block);
    let mut sums = Scratch::<f64>::take(blocks * channels * 2);
    sums.fill(0.0);
    let shared = Shared::new(&mut sums);
    par::each(blocks, |block| {
        let first = block * per_block;
        let end = (first + per_block).min(rows);
        // SAFETY: each block has sums of its own.
        let (sum, square) = unsafe {
            let at = block * channels * 2;
            (
                std::slice::from_raw_parts_mut(shared.at(at), channels),
                std::slice::from_raw_parts_mut(shared.at(at + channels), channels),
            )
        };
        T::dispatch(Block {
            x: &x[first * channels..end * channels],
            channels,
            sum,
            square,
        });
    });
    // Blocks are joined in order (Chan, Golub & LeVeque 1979).
    let mut mean = vec![0.0; channels];
    let mut m2 = vec![0.0; channels];
    for (block, sums) in sums.chunks_exact(2 * channels).enumerate() {
        let first = block * per_block;
        let n = (rows.min(first + per_block) - first) as f64;
        let (before, after) = (first as f64, first as f64 + n);
        for c in 0..channels {
            let (sum, square) = (sums[c], sums[channels + c]);
            let block_mean = x[first * channels + c].to_f64() + sum / n;
            let delta = block_mean - mean[c];
            mean[c] += delta * n / after;
            m2[c] += (square - sum * sum / n).max(0.0) + delta * delta * before * n / after;
        }
    }
    let var = m2.into_iter().map(|m| m / rows as f64).collect();
    (mean, var)
}
