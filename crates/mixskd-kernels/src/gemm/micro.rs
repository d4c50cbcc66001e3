//! The two register tiles that every multiplication of this crate is made of.

use crate::simd::Lanes;

/// Rows of a register tile: with [`Lanes::TILE`] vectors side by side it fills the register file.
pub(crate) const ROWS: usize = 6;

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

/// Left operand of [`rows`]: pointers to rows, one column of pointers per segment.
#[derive(Clone, Copy)]
pub(crate) struct RowTable<'a, T> {
    /// Segments to sum over.
    pub(crate) active: &'a [u32],
    /// Row `m` of segment `s` is at `pointers[s * stride + m]`.
    pub(crate) pointers: *const *const T,
    pub(crate) stride: usize,
}

/// `c[m][..n] (+)= Σ_s Σ_k a[s][m][k] · b[s][k][..n]` for the first `mr ≤ 6` rows.
///
/// # Safety
/// Every active row holds `k` elements; `b` is a packed panel of `nv` vectors; every `c[m]` holds `n` elements that no
/// other thread touches, with `(nv − 1)·N < n ≤ nv·N`.
#[inline(always)]
pub(crate) unsafe fn rows<L: Lanes>(
    lanes: L,
    mr: usize,
    nv: usize,
    a: RowTable<'_, L::T>,
    k: usize,
    b: *const L::T,
    c: &[*mut L::T],
    n: usize,
    accumulate: bool,
) {
    macro_rules! go {
        ($mr:literal, $nv:literal, $at:expr) => {
            // SAFETY: the caller's promises, for a part of the rows.
            unsafe { rows_tile::<L, $mr, $nv>(lanes, a, $at, k, b, &c[$at..], n, accumulate) }
        };
    }
    macro_rules! by_rows {
        ($nv:literal) => {
            match mr {
                6 => go!(6, $nv, 0),
                5 => {
                    go!(4, $nv, 0);
                    go!(1, $nv, 4);
                }
                4 => go!(4, $nv, 0),
                3 => {
                    go!(2, $nv, 0);
                    go!(1, $nv, 2);
                }
                2 => go!(2, $nv, 0),
                _ => go!(1, $nv, 0),
            }
        };
    }
    match nv {
        1 => by_rows!(1),
        2 if L::TILE >= 2 => by_rows!(2),
        3 if L::TILE >= 4 => by_rows!(3),
        _ if L::TILE >= 4 => by_rows!(4),
        _ => {}
    }
}

#[inline(always)]
unsafe fn rows_tile<L: Lanes, const MR: usize, const NV: usize>(
    lanes: L,
    a: RowTable<'_, L::T>,
    at: usize,
    k: usize,
    b: *const L::T,
    c: &[*mut L::T],
    n: usize,
    accumulate: bool,
) {
    let width = NV * L::N;
    let mut acc = [[lanes.splat(L::T::default()); NV]; MR];
    for &segment in a.active {
        let segment = segment as usize;
        // SAFETY: the caller gives a row pointer for every active segment and a panel that covers all segments.
        unsafe {
            let table = a.pointers.add(segment * a.stride + at);
            let mut row = [std::ptr::null::<L::T>(); MR];
            for (m, r) in row.iter_mut().enumerate() {
                *r = *table.add(m);
            }
            let mut bp = b.add(segment * k * width);
            for i in 0..k {
                let mut bv = [lanes.splat(L::T::default()); NV];
                for (j, v) in bv.iter_mut().enumerate() {
                    *v = lanes.load(bp.add(j * L::N));
                }
                for m in 0..MR {
                    let x = lanes.splat(*row[m].add(i));
                    for j in 0..NV {
                        acc[m][j] = lanes.fma(x, bv[j], acc[m][j]);
                    }
                }
                bp = bp.add(width);
            }
        }
    }
    let last = n - (NV - 1) * L::N;
    for m in 0..MR {
        for j in 0..NV {
            // SAFETY: the caller gives `n` writable elements in each row of `c`; the last vector is cut to them.
            unsafe {
                let p = c[m].add(j * L::N);
                if j + 1 < NV || last == L::N {
                    let old = if accumulate {
                        lanes.load(p)
                    } else {
                        lanes.splat(L::T::default())
                    };
                    lanes.store(p, lanes.add(old, acc[m][j]));
                } else {
                    let old = if accumulate {
                        lanes.load_n(p, last)
                    } else {
                        lanes.splat(L::T::default())
                    };
                    lanes.store_n(p, lanes.add(old, acc[m][j]), last);
                }
            }
        }
    }
}

/// Operands of [`outer`]: runs of pixels, and the steps from pixel to pixel.
#[derive(Clone, Copy)]
pub(crate) struct Pixels<'a, T> {
    pub(crate) runs: &'a [Run<T>],
    /// Elements from one pixel of the left operand to the next.
    pub(crate) a_step: usize,
    /// Elements from one pixel of the right operand to the next.
    pub(crate) b_step: usize,
}

/// `c[i][..] += Σ_pixel a[pixel][i] · b[pixel][..n]` for the first `mr ≤ 6` rows of `c`.
///
/// # Safety
/// Every pixel holds `mr` elements of `a` and `n` of `b` after the given offsets; `c` has `mr` rows of `nv·N` elements,
/// `ldc` apart, that no other thread touches, with `(nv − 1)·N < n ≤ nv·N`.
#[inline(always)]
pub(crate) unsafe fn outer<L: Lanes>(
    lanes: L,
    mr: usize,
    nv: usize,
    pixels: Pixels<'_, L::T>,
    a_offset: usize,
    b_offset: usize,
    n: usize,
    c: *mut L::T,
    ldc: usize,
) {
    macro_rules! go {
        ($mr:literal, $nv:literal, $at:expr) => {
            // SAFETY: the caller's promises, for a part of the rows.
            unsafe {
                let (a_at, c_at) = (a_offset + $at, c.add($at * ldc));
                if n == $nv * L::N {
                    outer_tile::<L, $mr, $nv, false>(lanes, pixels, a_at, b_offset, n, c_at, ldc);
                } else {
                    outer_tile::<L, $mr, $nv, true>(lanes, pixels, a_at, b_offset, n, c_at, ldc);
                }
            }
        };
    }
    macro_rules! by_rows {
        ($nv:literal) => {
            match mr {
                6 => go!(6, $nv, 0),
                5 => {
                    go!(4, $nv, 0);
                    go!(1, $nv, 4);
                }
                4 => go!(4, $nv, 0),
                3 => {
                    go!(2, $nv, 0);
                    go!(1, $nv, 2);
                }
                2 => go!(2, $nv, 0),
                _ => go!(1, $nv, 0),
            }
        };
    }
    match nv {
        1 => by_rows!(1),
        2 if L::TILE >= 2 => by_rows!(2),
        3 if L::TILE >= 4 => by_rows!(3),
        _ if L::TILE >= 4 => by_rows!(4),
        _ => {}
    }
}

#[inline(always)]
unsafe fn outer_tile<L: Lanes, const MR: usize, const NV: usize, const PARTIAL: bool>(
    lanes: L,
    pixels: Pixels<'_, L::T>,
    a_offset: usize,
    b_offset: usize,
    n: usize,
    c: *mut L::T,
    ldc: usize,
) {
    let last = n - (NV - 1) * L::N;
    let mut acc = [[lanes.splat(L::T::default()); NV]; MR];
    for run in pixels.runs {
        // SAFETY: the caller gives `run.len` pixels a step apart, wide enough at these offsets.
        unsafe {
            let mut ap = run.a.add(a_offset);
            let mut bp = run.b.add(b_offset);
            for _ in 0..run.len {
                let mut bv = [lanes.splat(L::T::default()); NV];
                for (j, v) in bv.iter_mut().enumerate() {
                    let p = bp.add(j * L::N);
                    *v = if PARTIAL && j + 1 == NV {
                        lanes.load_n(p, last)
                    } else {
                        lanes.load(p)
                    };
                }
                for m in 0..MR {
                    let x = lanes.splat(*ap.add(m));
                    for j in 0..NV {
                        acc[m][j] = lanes.fma(x, bv[j], acc[m][j]);
                    }
                }
                ap = ap.wrapping_add(pixels.a_step);
                bp = bp.wrapping_add(pixels.b_step);
            }
        }
    }
    for m in 0..MR {
        for j in 0..NV {
            // SAFETY: the caller gives rows of `NV·N` elements, `ldc` apart.
            unsafe {
                let p = c.add(m * ldc + j * L::N);
                lanes.store(p, lanes.add(lanes.load(p), acc[m][j]));
            }
        }
    }
}
