//! Convolutions of few input channels, such as a network's first: the input is copied with its padding around it (it is
//! small), and each row of a window is then one run of memory, long enough for an inner loop.

use crate::par;
use crate::simd::Element;

use super::config::Geometry;

/// Input channels from which on taps are worth a loop of their own.
const FEW_CHANNELS: usize = 12;

/// Whether a convolution is done this way.
pub(super) fn applies(g: &Geometry) -> bool {
    let c = g.config;
    g.in_c < FEW_CHANNELS && g.kernel_w > 1 && c.groups == 1 && c.dilation == 1
}

/// The geometry that reads the padded input.
pub(super) fn geometry(g: &Geometry) -> Geometry {
    let mut wide = *g;
    wide.in_h += 2 * g.config.padding;
    wide.in_w += 2 * g.config.padding;
    wide.config.padding = 0;
    wide
}

/// The input with its padding.
pub(super) fn pad<T: Element>(g: &Geometry, x: &[T]) -> Vec<T> {
    let wide = geometry(g);
    let (row, wide_row) = (g.in_w * g.in_c, wide.in_w * g.in_c);
    let (edge, p) = (g.config.padding * g.in_c, g.config.padding);
    // SAFETY: every row of every padded image is written in full.
    unsafe {
        par::filled(wide.input_len(), |to| {
            par::each(g.batch, |b| {
                for y in 0..wide.in_h {
                    let at = (b * wide.in_h + y) * wide_row;
                    let to = std::slice::from_raw_parts_mut(to.at(at), wide_row);
                    if y < p || y >= p + g.in_h {
                        to.fill(T::default());
                        continue;
                    }
                    let from = (b * g.in_h + y - p) * row;
                    to[..edge].fill(T::default());
                    to[edge..edge + row].copy_from_slice(&x[from..from + row]);
                    to[edge + row..].fill(T::default());
                }
            });
        })
    }
}
