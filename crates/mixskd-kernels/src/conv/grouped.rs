//! Convolutions of many narrow groups, done as fewer and wider ones.
//!
//! A register tile multiplies whole vectors of output channels, so a group of four channels would leave most of it idle.
//! Neighbouring groups are joined into one whose weight is zero outside its diagonal blocks: more multiplications, but at
//! full speed. Depthwise convolutions have kernels of their own ([`super::depthwise`]).

use crate::simd::Element;

use super::config::Geometry;

/// Channels per group that fill a vector.
const WIDE: usize = 16;

/// The joined geometry, where joining pays.
pub(super) fn joined(g: &Geometry) -> Option<Geometry> {
    let (narrow, groups) = (g.in_group().min(g.out_group()), g.config.groups);
    let wanted = WIDE.div_ceil(narrow.max(1));
    let by = (2..=wanted).rev().find(|by| groups.is_multiple_of(*by))?;
    let mut joined = *g;
    joined.config.groups = groups / by;
    Some(joined)
}

/// Offsets of each diagonal window in the joined weight and in the narrow one.
fn windows(narrow: &Geometry, wide: &Geometry) -> impl Iterator<Item = (usize, usize)> {
    let (taps, k, wide_k) = (narrow.taps(), narrow.in_group(), wide.in_group());
    let (n, by) = (narrow.out_group(), wide_k / k);
    (0..narrow.out_c).map(move |o| {
        let place = o / n % by * k;
        ((o * wide_k + place) * taps, o * k * taps)
    })
}

/// The joined weight of a narrow one.
pub(super) fn join<T: Element>(narrow: &Geometry, wide: &Geometry, w: &[T]) -> Vec<T> {
    let len = narrow.in_group() * narrow.taps();
    let mut joined = vec![T::default(); wide.weight_len()];
    for (to, from) in windows(narrow, wide) {
        joined[to..to + len].copy_from_slice(&w[from..from + len]);
    }
    joined
}

/// The narrow weight's gradient, out of the joined one's.
pub(super) fn split<T: Element>(narrow: &Geometry, wide: &Geometry, dw: &[T]) -> Vec<T> {
    let len = narrow.in_group() * narrow.taps();
    let mut split = vec![T::default(); narrow.weight_len()];
    for (from, to) in windows(narrow, wide) {
        split[to..to + len].copy_from_slice(&dw[from..from + len]);
    }
    split
}
