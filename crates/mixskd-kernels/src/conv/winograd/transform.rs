//! The transforms of F(4×4, 3×3) (Lavin & Gray 2016, "Fast algorithms for convolutional neural networks"), one axis at a
//! time, for a vector of channels.
//!
//! With interpolation points 0, ±1, ±2 and ∞: `y = Aᵀ[(G g) ⊙ (Bᵀ d)]`. The weight gradient is the adjoint of the same
//! bilinear form: `dg = Gᵀ[(A dy) ⊙ (Bᵀ d)]`.

use crate::simd::{Element, Lanes};

/// Output pixels along a tile's side.
pub(super) const OUT: usize = 4;
/// Input pixels along a tile's side.
pub(super) const SIDE: usize = 6;
/// Products of a tile.
pub(super) const POINTS: usize = SIDE * SIDE;

/// `Bᵀ d`.
#[inline(always)]
fn input<L: Lanes>(l: L, d: [L::V; 6]) -> [L::V; 6] {
    let of = |x: f64| l.splat(L::T::of(x));
    let (four, five, two) = (of(4.0), of(5.0), of(2.0));
    let even = l.sub(d[4], l.mul(four, d[2]));
    let odd = l.sub(d[3], l.mul(four, d[1]));
    let near = l.sub(d[4], d[2]);
    let far = l.mul(two, l.sub(d[3], d[1]));
    [
        l.fma(four, d[0], l.sub(d[4], l.mul(five, d[2]))),
        l.add(even, odd),
        l.sub(even, odd),
        l.add(near, far),
        l.sub(near, far),
        l.fma(four, d[1], l.sub(d[5], l.mul(five, d[3]))),
    ]
}

/// `Aᵀ m`.
#[inline(always)]
fn output<L: Lanes>(l: L, m: [L::V; 6]) -> [L::V; 4] {
    let of = |x: f64| l.splat(L::T::of(x));
    let (sum1, diff1) = (l.add(m[1], m[2]), l.sub(m[1], m[2]));
    let (sum2, diff2) = (l.add(m[3], m[4]), l.sub(m[3], m[4]));
    [
        l.add(m[0], l.add(sum1, sum2)),
        l.fma(of(2.0), diff2, diff1),
        l.fma(of(4.0), sum2, sum1),
        l.add(m[5], l.fma(of(8.0), diff2, diff1)),
    ]
}

/// `A dy`, the adjoint of [`output`].
#[inline(always)]
fn output_adjoint<L: Lanes>(l: L, y: [L::V; 4]) -> [L::V; 6] {
    let of = |x: f64| l.splat(L::T::of(x));
    let (even1, odd1) = (l.add(y[0], y[2]), l.add(y[1], y[3]));
    let even2 = l.fma(of(4.0), y[2], y[0]);
    let odd2 = l.fma(of(8.0), y[3], l.mul(of(2.0), y[1]));
    [
        y[0],
        l.add(even1, odd1),
        l.sub(even1, odd1),
        l.add(even2, odd2),
        l.sub(even2, odd2),
        y[3],
    ]
}

/// `G g`.
#[inline(always)]
fn weight<L: Lanes>(l: L, g: [L::V; 3]) -> [L::V; 6] {
    let of = |x: f64| l.splat(L::T::of(x));
    let sixth = of(-1.0 / 6.0);
    let even1 = l.mul(sixth, l.add(g[0], g[2]));
    let odd1 = l.mul(sixth, g[1]);
    let even2 = l.fma(of(1.0 / 24.0), g[0], l.mul(of(1.0 / 6.0), g[2]));
    let odd2 = l.mul(of(1.0 / 12.0), g[1]);
    [
        l.mul(of(0.25), g[0]),
        l.add(even1, odd1),
        l.sub(even1, odd1),
        l.add(even2, odd2),
        l.sub(even2, odd2),
        g[2],
    ]
}

/// `Gᵀ u`, the adjoint of [`weight`].
#[inline(always)]
fn weight_adjoint<L: Lanes>(l: L, u: [L::V; 6]) -> [L::V; 3] {
    let of = |x: f64| l.splat(L::T::of(x));
    let (sum1, diff1) = (l.add(u[1], u[2]), l.sub(u[1], u[2]));
    let (sum2, diff2) = (l.add(u[3], u[4]), l.sub(u[3], u[4]));
    let third = l.mul(of(-1.0 / 6.0), sum1);
    [
        l.fma(of(0.25), u[0], l.fma(of(1.0 / 24.0), sum2, third)),
        l.fma(of(-1.0 / 6.0), diff1, l.mul(of(1.0 / 12.0), diff2)),
        l.add(u[5], l.fma(of(1.0 / 6.0), sum2, third)),
    ]
}

/// Where the elements of a square come from, a vector of channels at a time.
pub(super) trait Load<L: Lanes> {
    /// Row `i`, column `j`.
    ///
    /// # Safety
    /// As whoever made the source has promised.
    unsafe fn load(&self, lanes: L, i: usize, j: usize) -> L::V;
}

/// Where the elements of a square go.
pub(super) trait Store<L: Lanes> {
    /// Row `i`, column `j`.
    ///
    /// # Safety
    /// As whoever made the target has promised.
    unsafe fn store(&self, lanes: L, i: usize, j: usize, v: L::V);
}

/// Elements whose rows and columns lie a fixed step apart; all of them exist, a whole vector each.
#[derive(Clone, Copy)]
pub(super) struct Grid<P> {
    pub(super) at: P,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<L: Lanes> Load<L> for Grid<*const L::T> {
    #[inline(always)]
    unsafe fn load(&self, lanes: L, i: usize, j: usize) -> L::V {
        // SAFETY: the maker's promise.
        unsafe { lanes.load(self.at.add(i * self.row + j * self.column)) }
    }
}

impl<L: Lanes> Store<L> for Grid<*mut L::T> {
    #[inline(always)]
    unsafe fn store(&self, lanes: L, i: usize, j: usize, v: L::V) {
        // SAFETY: the maker's promise.
        unsafe { lanes.store(self.at.add(i * self.row + j * self.column), v) }
    }
}

impl<L: Lanes, const N: usize> Load<L> for [[L::V; N]; N] {
    #[inline(always)]
    unsafe fn load(&self, _: L, i: usize, j: usize) -> L::V {
        self[i][j]
    }
}

/// Applies a transform of one axis to both axes of a square.
macro_rules! both_axes {
    ($name:ident, $one:ident, $from:literal, $to:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// Source and target have all elements.
        #[inline(always)]
        pub(super) unsafe fn $name<L: Lanes>(l: L, from: &impl Load<L>, to: &impl Store<L>) {
            let zero = l.splat(L::T::default());
            let mut rows = [[zero; $to]; $from];
            for i in 0..$from {
                let mut x = [zero; $from];
                for j in 0..$from {
                    // SAFETY: the caller's promise.
                    x[j] = unsafe { from.load(l, i, j) };
                }
                rows[i] = $one(l, x);
            }
            for j in 0..$to {
                let mut column = [zero; $from];
                for i in 0..$from {
                    column[i] = rows[i][j];
                }
                let column = $one(l, column);
                for i in 0..$to {
                    // SAFETY: the caller's promise.
                    unsafe { to.store(l, i, j, column[i]) };
                }
            }
        }
    };
}

both_axes!(input_tile, input, 6, 6, "`Bᵀ d B` of an input tile.");
both_axes!(output_tile, output, 6, 4, "`Aᵀ m A`: a tile of the output.");
both_axes!(
    output_adjoint_tile,
    output_adjoint,
    4,
    6,
    "`A dy Aᵀ` of a tile of the output's gradient."
);
both_axes!(weight_tile, weight, 3, 6, "`G g Gᵀ` of a window.");
both_axes!(
    weight_adjoint_tile,
    weight_adjoint,
    6,
    3,
    "`Gᵀ u G`: the gradient of a window."
);
