//! The exponential function of a vector of `f32`.

use super::Lanes;

/// Adding and taking off this number rounds to the nearest whole number.
const ROUND: f32 = 12_582_912.0;

/// `e^x` by `x = n·ln 2 + r` and a polynomial of degree 7 in `r` (its coefficients are those of Taylor's series, ample for
/// |r| ≤ ln 2 / 2). `scale(p, n)` is `p · 2ⁿ` for a whole `n`. Arguments are cut to where the result is a normal number.
#[inline(always)]
pub(super) fn exp<L: Lanes<T = f32>>(
    l: L,
    x: L::V,
    scale: impl FnOnce(L::V, L::V) -> L::V,
) -> L::V {
    let of = |x: f32| l.splat(x);
    // The bounds come first, so that a NaN survives.
    let x = l.min(of(88.0), l.max(of(-87.0), x));
    let n = l.fma(x, of(std::f32::consts::LOG2_E), of(ROUND));
    let n = l.sub(n, of(ROUND));
    // ln 2 in two parts, the first of few digits.
    let r = l.fma(n, of(-0.693_359_4), x);
    let r = l.fma(n, of(2.121_944_4e-4), r);
    let mut p = of(1.0 / 5040.0);
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = l.fma(p, r, of(c));
    }
    scale(p, n)
}
