//! How a map is cut into tiles, and tiles into and out of the transformed domain.

use crate::simd::{Element, Lanes};

use super::transform::{self, OUT, POINTS, SIDE};

/// A map read through 3×3 windows of stride 1.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) batch: usize,
    pub(super) src_h: usize,
    pub(super) src_w: usize,
    pub(super) src_c: usize,
    pub(super) dst_h: usize,
    pub(super) dst_w: usize,
    pub(super) dst_c: usize,
    /// Zeros around the source.
    pub(super) padding: usize,
}

/// Transformed tiles: `[point][tile][channel]`, with steps of its own.
#[derive(Clone, Copy)]
pub(super) struct Transformed {
    /// Elements from tile to tile; channels are padded with zeros up to it.
    pub(super) row: usize,
    /// Elements from point to point.
    pub(super) plane: usize,
}

impl Transformed {
    /// For `tiles` tiles of `row` elements. A cache line more than they need keeps the points of a tile out of one
    /// another's cache sets.
    pub(super) fn new(tiles: usize, row: usize) -> Self {
        Self {
            row,
            plane: tiles * row + 16,
        }
    }

    pub(super) fn len(self) -> usize {
        POINTS * self.plane
    }
}

impl Tiles {
    pub(super) fn per_image(&self) -> usize {
        self.dst_h.div_ceil(OUT) * self.dst_w.div_ceil(OUT)
    }

    pub(super) fn count(&self) -> usize {
        self.batch * self.per_image()
    }

    /// Image and first output pixel of a tile.
    #[inline(always)]
    fn locate(&self, tile: usize) -> (usize, usize, usize) {
        let columns = self.dst_w.div_ceil(OUT);
        let (b, at) = (tile / self.per_image(), tile % self.per_image());
        (b, at / columns * OUT, at % columns * OUT)
    }

    /// Transforms source tiles `first..first + count` into `v`.
    ///
    /// # Safety
    /// `src` is the whole source; `zeros` has `src_c` elements; `v` points to `layout.len()` elements, whose rows hold
    /// whole vectors, and that no other thread touches.
    #[inline(always)]
    pub(super) unsafe fn transform_input<L: Lanes>(
        &self,
        lanes: L,
        src: &[L::T],
        zeros: &[L::T],
        first: usize,
        count: usize,
        v: *mut L::T,
        layout: Transformed,
    ) {
        for t in 0..count {
            let (b, y0, x0) = self.locate(first + t);
            let mut pixels = [[zeros.as_ptr(); SIDE]; SIDE];
            for (i, row) in pixels.iter_mut().enumerate() {
                let y = (y0 + i).wrapping_sub(self.padding);
                if y >= self.src_h {
                    continue;
                }
                for (j, pixel) in row.iter_mut().enumerate() {
                    let x = (x0 + j).wrapping_sub(self.padding);
                    if x < self.src_w {
                        let at = ((b * self.src_h + y) * self.src_w + x) * self.src_c;
                        *pixel = src[at..].as_ptr();
                    }
                }
            }
            let mut c = 0;
            while c < self.src_c {
                let n = L::N.min(self.src_c - c);
                let mut tile = [[lanes.splat(L::T::default()); SIDE]; SIDE];
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        // SAFETY: every pointer has `src_c` elements behind it.
                        tile[i][j] = unsafe { lanes.load_part(pixels[i][j].add(c), n) };
                    }
                }
                let out = transform::input_tile(lanes, &tile);
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        let at = (i * SIDE + j) * layout.plane + t * layout.row + c;
                        // SAFETY: inside `v`, whose rows hold whole vectors.
                        unsafe { lanes.store(v.add(at), out[i][j]) };
                    }
                }
                c += L::N;
            }
        }
    }

    /// Transforms products back and writes output tiles `first..first + count`, channels `column..column + n`.
    ///
    /// # Safety
    /// `m` holds the products of these tiles and channels; `dst` is the whole output, of which no other thread touches
    /// these pixels' channels.
    #[inline(always)]
    pub(super) unsafe fn transform_output<L: Lanes>(
        &self,
        lanes: L,
        m: *const L::T,
        layout: Transformed,
        first: usize,
        count: usize,
        column: usize,
        n: usize,
        dst: *mut L::T,
    ) {
        for t in 0..count {
            let (b, y0, x0) = self.locate(first + t);
            let rows = OUT.min(self.dst_h - y0);
            let columns = OUT.min(self.dst_w - x0);
            let base = ((b * self.dst_h + y0) * self.dst_w + x0) * self.dst_c + column;
            let mut c = 0;
            while c < n {
                let part = L::N.min(n - c);
                let mut tile = [[lanes.splat(L::T::default()); SIDE]; SIDE];
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        let at = (i * SIDE + j) * layout.plane + t * layout.row + c;
                        // SAFETY: inside `m`, whose rows hold whole vectors.
                        tile[i][j] = unsafe { lanes.load(m.add(at)) };
                    }
                }
                let out = transform::output_tile(lanes, &tile);
                for i in 0..rows {
                    for j in 0..columns {
                        let at = base + (i * self.dst_w + j) * self.dst_c + c;
                        // SAFETY: the pixel is inside the output and so are the channels.
                        unsafe { lanes.store_part(dst.add(at), out[i][j], part) };
                    }
                }
                c += L::N;
            }
        }
    }

    /// Transforms tiles `first..first + count` of the output's gradient into `z`.
    ///
    /// # Safety
    /// As [`Tiles::transform_input`], with `dst_c` channels.
    #[inline(always)]
    pub(super) unsafe fn transform_gradient<L: Lanes>(
        &self,
        lanes: L,
        dy: &[L::T],
        first: usize,
        count: usize,
        z: *mut L::T,
        layout: Transformed,
    ) {
        for t in 0..count {
            let (b, y0, x0) = self.locate(first + t);
            let rows = OUT.min(self.dst_h - y0);
            let columns = OUT.min(self.dst_w - x0);
            let base = ((b * self.dst_h + y0) * self.dst_w + x0) * self.dst_c;
            let mut c = 0;
            while c < self.dst_c {
                let n = L::N.min(self.dst_c - c);
                let mut tile = [[lanes.splat(L::T::default()); OUT]; OUT];
                for i in 0..rows {
                    for j in 0..columns {
                        let at = base + (i * self.dst_w + j) * self.dst_c + c;
                        // SAFETY: the pixel is inside the gradient and so are the channels.
                        tile[i][j] = unsafe { lanes.load_part(dy.as_ptr().add(at), n) };
                    }
                }
                let out = transform::output_adjoint_tile(lanes, &tile);
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        let at = (i * SIDE + j) * layout.plane + t * layout.row + c;
                        // SAFETY: inside `z`, whose rows hold whole vectors.
                        unsafe { lanes.store(z.add(at), out[i][j]) };
                    }
                }
                c += L::N;
            }
        }
    }
}
