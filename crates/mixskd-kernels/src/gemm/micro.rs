//! The register tiles that every multiplication of this crate is made of.

use std::ops::Range;

use crate::simd::{Element, Kernel, Lanes};

use super::pack::Panel;

/// Rows that a register tile may have. Six with [`Lanes::TILE`] vectors side by side fill the register file, and so do
/// twelve with half as many; one alone would leave the multipliers waiting for their own sums.
pub(crate) const ROWS: usize = 12;

/// A run of pixels whose neighbours lie a fixed step apart, in both operands of an outer product.
#[derive(Clone, Copy)]
pub(crate) struct Run<T> {
    /// First pixel of the left operand.
    pub(crate) a: *const T,
    /// First pixel of the right operand.
    pub(crate) b: *const T,
    /// Pixels.
    pub(crate) len: usize,
}

/// `c[m][..n] (+)= Σ_s Σ_k a[s][m][k] · b[s][k][..n]`: all rows of a block, one panel of columns.
pub(crate) struct Rows<'a, T> {
    /// Row `m` of segment `s` is `offset` behind `pointers[s * stride + m]` and holds `segment_len` elements.
    pub(crate) pointers: &'a [*const T],
    pub(crate) stride: usize,
    /// Elements between a pointer and its row.
    pub(crate) offset: usize,
    /// Segments to sum over, for each tile of [`ROWS`] rows; a tile without any is zero, or left alone if accumulating.
    pub(crate) active: Active<'a>,
    /// The part of each row to sum over.
    pub(crate) k: Range<usize>,
    /// Rows of `b` for each segment: a row's elements, all of them.
    pub(crate) segment_len: usize,
    /// A packed panel, all segments of it.
    pub(crate) b: *const T,
    pub(crate) panel: Panel,
    /// Where each row's first column goes.
    pub(crate) c: &'a [*mut T],
    /// Elements to skip in each row of `c`.
    pub(crate) c_offset: usize,
    pub(crate) accumulate: bool,
}

/// Segments that the tiles of [`Rows`] sum over.
#[derive(Clone, Copy)]
pub(crate) enum Active<'a> {
    /// The same for all.
    Same(&'a [u32]),
    /// Tile `i` sums over `segments[ends[i − 1]..ends[i]]`.
    Each {
        segments: &'a [u32],
        ends: &'a [u32],
    },
}

impl<T: Element> Rows<'_, T> {
    /// Runs on the processor's widest vectors.
    ///
    /// # Safety
    /// `k` is inside `segment_len`, and pointers of active segments have that many readable elements behind them and `offset`; `b` is
    /// a packed panel like `panel`; each row of `c` has `panel.n` writable elements after the offset that no other thread touches.
    pub(crate) unsafe fn run(self) {
        T::dispatch(RowsKernel(self));
    }
}

struct RowsKernel<'a, T>(Rows<'a, T>);

impl<T: Element> Kernel<T> for RowsKernel<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let r = self.0;
        match r.panel.vectors {
            1 => r.sweep::<L, 1>(lanes),
            2 if L::TILE >= 2 => r.sweep::<L, 2>(lanes),
            3 if L::TILE >= 4 => r.sweep::<L, 3>(lanes),
            4 if L::TILE >= 4 => r.sweep::<L, 4>(lanes),
            _ => {}
        }
    }
}

impl<T: Element> Rows<'_, T> {
    #[inline(always)]
    fn sweep<L: Lanes<T = T>, const NV: usize>(&self, lanes: L) {
        for (tile, at) in (0..self.c.len()).step_by(ROWS).enumerate() {
            let active = match self.active {
                Active::Same(segments) => segments,
                Active::Each { segments, ends } => {
                    let start = if tile == 0 { 0 } else { ends[tile - 1] };
                    &segments[start as usize..ends[tile] as usize]
                }
            };
            if active.is_empty() && self.accumulate {
                continue;
            }
            let mut at = at;
            let end = (at + ROWS).min(self.c.len());
            while at < end {
                // SAFETY: the promises of `run`, for a part of the rows.
                unsafe {
                    at += match end - at {
                        12.. if NV * 2 <= L::TILE => self.tile::<L, 12, NV>(lanes, active, at),
                        6.. => self.tile::<L, 6, NV>(lanes, active, at),
                        4 | 5 => self.tile::<L, 4, NV>(lanes, active, at),
                        2 | 3 => self.tile::<L, 2, NV>(lanes, active, at),
                        _ => self.tile::<L, 1, NV>(lanes, active, at),
                    };
                }
            }
        }
    }

    /// Computes `MR` rows from `at` on, and returns their number.
    ///
    /// # Safety
    /// As [`Rows::run`].
    #[inline(always)]
    unsafe fn tile<L: Lanes<T = T>, const MR: usize, const NV: usize>(
        &self,
        lanes: L,
        active: &[u32],
        at: usize,
    ) -> usize {
        let width = NV * L::N;
        let k = self.k.len();
        let mut acc = [[lanes.splat(T::default()); NV]; MR];
        for &segment in active {
            let segment = segment as usize;
            // SAFETY: the caller gives pointers for every active segment; their rows have `segment_len`
            // elements, and the panel has as many rows of `width` for every segment.
            unsafe {
                let table = self.pointers.as_ptr().add(segment * self.stride + at);
                let rows = table.cast::<[*const T; MR]>().read();
                let rows = rows.map(|row| row.add(self.offset + self.k.start));
                let b = (segment * self.segment_len + self.k.start) * width;
                acc = products(lanes, acc, rows, self.b.add(b), k);
            }
        }
        let last = self.panel.n - (NV - 1) * L::N;
        for m in 0..MR {
            for j in 0..NV {
                let n = if j + 1 < NV { L::N } else { last };
                // SAFETY: `panel.n` elements of the row are writable.
                unsafe {
                    let c = self.c[at + m].add(self.c_offset + j * L::N);
                    let mut v = acc[m][j];
                    if self.accumulate {
                        v = lanes.add(lanes.load_part(c, n), v);
                    }
                    lanes.store_part(c, v, n);
                }
            }
        }
        MR
    }
}

/// `c[p][m][..] (+)= Σ_k a[p][m][k] · b[p][k][..]`: several products of matrices whose rows lie a fixed step apart, one panel of
/// whole vectors.
pub(crate) struct Dense<T> {
    /// Products.
    pub(crate) points: usize,
    /// Rows of each.
    pub(crate) rows: usize,
    /// Elements to sum over.
    pub(crate) k: usize,
    /// Vectors of a row of `b` and `c`.
    pub(crate) vectors: usize,
    pub(crate) a: *const T,
    /// Elements from product to product and from row to row of `a`.
    pub(crate) a_step: (usize, usize),
    /// Packed: `[point][k]` of whole vectors.
    pub(crate) b: *const T,
    pub(crate) c: *mut T,
    /// Elements from product to product and from row to row of `c`.
    pub(crate) c_step: (usize, usize),
    pub(crate) accumulate: bool,
}

impl<T: Element> Dense<T> {
    /// Runs on the processor's widest vectors.
    ///
    /// # Safety
    /// For every point, `a` has `rows` rows of `k` readable elements, `b` `k` rows of `vectors` vectors, and `c` `rows` rows of
    /// as many that are writable and that no other thread touches.
    pub(crate) unsafe fn run(self) {
        T::dispatch(DenseKernel(self));
    }
}

struct DenseKernel<T>(Dense<T>);

impl<T: Element> Kernel<T> for DenseKernel<T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let d = self.0;
        match d.vectors {
            1 => d.sweep::<L, 1>(lanes),
            2 if L::TILE >= 2 => d.sweep::<L, 2>(lanes),
            3 if L::TILE >= 4 => d.sweep::<L, 3>(lanes),
            4 if L::TILE >= 4 => d.sweep::<L, 4>(lanes),
            _ => {}
        }
    }
}

impl<T: Element> Dense<T> {
    #[inline(always)]
    fn sweep<L: Lanes<T = T>, const NV: usize>(&self, lanes: L) {
        for point in 0..self.points {
            let mut at = 0;
            while at < self.rows {
                // SAFETY: the promises of `run`, for a part of one product's rows.
                unsafe {
                    let a = self.a.add(point * self.a_step.0 + at * self.a_step.1);
                    let b = self.b.add(point * self.k * NV * L::N);
                    let c = self.c.add(point * self.c_step.0 + at * self.c_step.1);
                    at += match self.rows - at {
                        12.. if NV * 2 <= L::TILE => self.tile::<L, 12, NV>(lanes, a, b, c),
                        6.. => self.tile::<L, 6, NV>(lanes, a, b, c),
                        4 | 5 => self.tile::<L, 4, NV>(lanes, a, b, c),
                        2 | 3 => self.tile::<L, 2, NV>(lanes, a, b, c),
                        _ => self.tile::<L, 1, NV>(lanes, a, b, c),
                    };
                }
            }
        }
    }

    /// Computes `MR` rows, and returns their number.
    ///
    /// # Safety
    /// As [`Dense::run`].
    #[inline(always)]
    unsafe fn tile<L: Lanes<T = T>, const MR: usize, const NV: usize>(
        &self,
        lanes: L,
        a: *const T,
        b: *const T,
        c: *mut T,
    ) -> usize {
        let mut rows = [a; MR];
        for (m, row) in rows.iter_mut().enumerate() {
            *row = a.wrapping_add(m * self.a_step.1);
        }
        let acc = [[lanes.splat(T::default()); NV]; MR];
        // SAFETY: the caller's promises.
        unsafe {
            let acc = products(lanes, acc, rows, b, self.k);
            for m in 0..MR {
                for j in 0..NV {
                    let c = c.add(m * self.c_step.1 + j * L::N);
                    let mut v = acc[m][j];
                    if self.accumulate {
                        v = lanes.add(lanes.load(c), v);
                    }
                    lanes.store(c, v);
                }
            }
        }
        MR
    }
}

/// `acc[m][..] + Σ_k rows[m][k] · b[k][..]`. By value in and out, which keeps the sums in registers.
///
/// # Safety
/// Rows have `k` elements, and `b` `k` rows of `NV` vectors.
#[inline(always)]
unsafe fn products<L: Lanes, const MR: usize, const NV: usize>(
    lanes: L,
    mut acc: [[L::V; NV]; MR],
    rows: [*const L::T; MR],
    mut b: *const L::T,
    k: usize,
) -> [[L::V; NV]; MR] {
    for i in 0..k {
        let mut bv = [lanes.splat(L::T::default()); NV];
        for j in 0..NV {
            // SAFETY: inside row `i` of `b`.
            bv[j] = unsafe { lanes.load(b.add(j * L::N)) };
        }
        for m in 0..MR {
            // SAFETY: `i < k`.
            let x = lanes.splat(unsafe { *rows[m].add(i) });
            for j in 0..NV {
                acc[m][j] = lanes.fma(x, bv[j], acc[m][j]);
            }
        }
        b = b.wrapping_add(NV * L::N);
    }
    acc
}

/// `c[i][..] += Σ_pixel a[pixel][i] · b[pixel][..]` for rows `i < k`, one panel of columns.
pub(crate) struct Outer<'a, T> {
    pub(crate) runs: &'a [Run<T>],
    /// Elements from one pixel of the left operand to the next.
    pub(crate) a_step: usize,
    /// Elements from one pixel of the right operand to the next.
    pub(crate) b_step: usize,
    /// First element of the left operand's pixels.
    pub(crate) a_offset: usize,
    /// First element of the right operand's pixels.
    pub(crate) b_offset: usize,
    pub(crate) k: usize,
    pub(crate) panel: Panel,
    /// Rows of whole vectors, `ldc` apart.
    pub(crate) c: *mut T,
    pub(crate) ldc: usize,
}

impl<T: Element> Outer<'_, T> {
    /// Runs on the processor's widest vectors.
    ///
    /// # Safety
    /// After the offsets, every pixel of the runs has `k` elements of the left and `panel.n` of the right operand; `c` has
    /// `k` rows of `panel.vectors` whole vectors that no other thread touches.
    pub(crate) unsafe fn run(self) {
        T::dispatch(OuterKernel(self));
    }
}

struct OuterKernel<'a, T>(Outer<'a, T>);

impl<T: Element> Kernel<T> for OuterKernel<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let o = self.0;
        let whole = o.panel.n == o.panel.vectors * L::N;
        match (o.panel.vectors, whole) {
            (1, true) => o.sweep::<L, 1, true>(lanes),
            (1, false) => o.sweep::<L, 1, false>(lanes),
            (2, true) if L::TILE >= 2 => o.sweep::<L, 2, true>(lanes),
            (2, false) if L::TILE >= 2 => o.sweep::<L, 2, false>(lanes),
            (3, true) if L::TILE >= 4 => o.sweep::<L, 3, true>(lanes),
            (3, false) if L::TILE >= 4 => o.sweep::<L, 3, false>(lanes),
            (4, true) if L::TILE >= 4 => o.sweep::<L, 4, true>(lanes),
            (4, false) if L::TILE >= 4 => o.sweep::<L, 4, false>(lanes),
            _ => {}
        }
    }
}

impl<T: Element> Outer<'_, T> {
    #[inline(always)]
    fn sweep<L: Lanes<T = T>, const NV: usize, const WHOLE: bool>(&self, lanes: L) {
        let mut i = 0;
        while i < self.k {
            // SAFETY: the promises of `run`, for a part of the rows.
            unsafe {
                i += match self.k - i {
                    12.. if NV * 2 <= L::TILE => self.tile::<L, 12, NV, WHOLE>(lanes, i),
                    6.. => self.tile::<L, 6, NV, WHOLE>(lanes, i),
                    4 | 5 => self.tile::<L, 4, NV, WHOLE>(lanes, i),
                    2 | 3 => self.tile::<L, 2, NV, WHOLE>(lanes, i),
                    _ => self.tile::<L, 1, NV, WHOLE>(lanes, i),
                };
            }
        }
    }

    /// Adds to `MR` rows from `i` on, and returns their number.
    ///
    /// # Safety
    /// As [`Outer::run`].
    #[inline(always)]
    unsafe fn tile<L: Lanes<T = T>, const MR: usize, const NV: usize, const WHOLE: bool>(
        &self,
        lanes: L,
        i: usize,
    ) -> usize {
        let last = self.panel.n - (NV - 1) * L::N;
        let mut acc = [[lanes.splat(T::default()); NV]; MR];
        for run in self.runs {
            let mut a = run.a.wrapping_add(self.a_offset + i);
            let mut b = run.b.wrapping_add(self.b_offset);
            for _ in 0..run.len {
                // SAFETY: the pixels of a run are wide enough after the offsets.
                unsafe {
                    let mut bv = [lanes.splat(T::default()); NV];
                    for (j, v) in bv.iter_mut().enumerate() {
                        let p = b.add(j * L::N);
                        *v = if WHOLE || j + 1 < NV {
                            lanes.load(p)
                        } else {
                            lanes.load_n(p, last)
                        };
                    }
                    for m in 0..MR {
                        let x = lanes.splat(*a.add(m));
                        for j in 0..NV {
                            acc[m][j] = lanes.fma(x, bv[j], acc[m][j]);
                        }
                    }
                }
                a = a.wrapping_add(self.a_step);
                b = b.wrapping_add(self.b_step);
            }
        }
        for m in 0..MR {
            for j in 0..NV {
                // SAFETY: rows of `c` are whole vectors.
                unsafe {
                    let c = self.c.add((i + m) * self.ldc + j * L::N);
                    lanes.store(c, lanes.add(lanes.load(c), acc[m][j]));
                }
            }
        }
        MR
    }
}
