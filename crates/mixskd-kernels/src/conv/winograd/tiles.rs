//! How a map is cut into tiles, and tiles into and out of the transformed domain.

use crate::par::Shared;
use crate::simd::{Element, Kernel, Lanes};

use super::super::epilogue::Epilogue;
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

/// Elements between planes, a cache line: it keeps the points of a tile out of one another's cache sets.
const GAP: usize = 16;

impl Transformed {
    /// For `tiles` tiles of `row` elements.
    pub(super) fn new(tiles: usize, row: usize) -> Self {
        Self {
            row,
            plane: tiles * row + GAP,
        }
    }

    /// Tiles there is room for.
    pub(super) fn tiles(self) -> usize {
        (self.plane - GAP) / self.row
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
    fn locate(&self, tile: usize) -> (usize, usize, usize) {
        let columns = self.dst_w.div_ceil(OUT);
        let (b, at) = (tile / self.per_image(), tile % self.per_image());
        (b, at / columns * OUT, at % columns * OUT)
    }
}

/// Transforms source tiles `first..first + count` into `v`.
pub(super) struct Input<'a, T> {
    pub(super) tiles: &'a Tiles,
    /// The whole source.
    pub(super) src: &'a [T],
    /// A pixel outside.
    pub(super) zeros: &'a [T],
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) v: *mut T,
    pub(super) layout: Transformed,
}

impl<T: Element> Input<'_, T> {
    /// # Safety
    /// `v` is where the first tile's row of a buffer of this layout begins; no other thread touches these tiles' rows, which
    /// hold whole vectors.
    pub(super) unsafe fn run(self) {
        T::dispatch(InputKernel(self));
    }
}

struct InputKernel<'a, T>(Input<'a, T>);

impl<T: Element> Kernel<T> for InputKernel<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Input {
            tiles: s,
            src,
            zeros,
            first,
            count,
            v,
            layout,
        } = self.0;
        for t in 0..count {
            let (b, y0, x0) = s.locate(first + t);
            let mut pixels = [[zeros.as_ptr(); SIDE]; SIDE];
            for (i, row) in pixels.iter_mut().enumerate() {
                let y = (y0 + i).wrapping_sub(s.padding);
                if y >= s.src_h {
                    continue;
                }
                for (j, pixel) in row.iter_mut().enumerate() {
                    let x = (x0 + j).wrapping_sub(s.padding);
                    if x < s.src_w {
                        let at = ((b * s.src_h + y) * s.src_w + x) * s.src_c;
                        *pixel = src[at..].as_ptr();
                    }
                }
            }
            let mut c = 0;
            while c < s.src_c {
                let n = L::N.min(s.src_c - c);
                let mut tile = [[lanes.splat(T::default()); SIDE]; SIDE];
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
                        // SAFETY: inside the buffer, whose rows hold whole vectors.
                        unsafe { lanes.store(v.add(at), out[i][j]) };
                    }
                }
                c += L::N;
            }
        }
    }
}

/// Transforms products back and writes output tiles `first..first + count`, channels `column..column + n`.
pub(super) struct Output<'a, T> {
    pub(super) tiles: &'a Tiles,
    pub(super) m: &'a [T],
    pub(super) layout: Transformed,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) column: usize,
    pub(super) n: usize,
    pub(super) epilogue: Option<Epilogue<'a, T>>,
    pub(super) dst: Shared<T>,
}

impl<T: Element> Output<'_, T> {
    /// # Safety
    /// `m` has that layout; `dst` is the whole output, of which no other thread touches these pixels' channels.
    pub(super) unsafe fn run(self) {
        T::dispatch(OutputKernel(self));
    }
}

struct OutputKernel<'a, T>(Output<'a, T>);

impl<T: Element> Kernel<T> for OutputKernel<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Output {
            tiles: s,
            m,
            layout,
            first,
            count,
            column,
            n,
            epilogue,
            dst,
        } = self.0;
        for t in 0..count {
            let (b, y0, x0) = s.locate(first + t);
            let rows = OUT.min(s.dst_h - y0);
            let columns = OUT.min(s.dst_w - x0);
            let base = ((b * s.dst_h + y0) * s.dst_w + x0) * s.dst_c + column;
            let mut c = 0;
            while c < n {
                let part = L::N.min(n - c);
                let mut tile = [[lanes.splat(T::default()); SIDE]; SIDE];
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        let at = (i * SIDE + j) * layout.plane + t * layout.row + c;
                        // SAFETY: inside `m`, whose rows hold whole vectors.
                        tile[i][j] = unsafe { lanes.load(m.as_ptr().add(at)) };
                    }
                }
                let out = transform::output_tile(lanes, &tile);
                for i in 0..rows {
                    for j in 0..columns {
                        let at = base + (i * s.dst_w + j) * s.dst_c + c;
                        // SAFETY: the pixel is inside the output and so are the channels.
                        unsafe {
                            let y = match &epilogue {
                                Some(e) => e.apply(lanes, out[i][j], at, column + c, part),
                                None => out[i][j],
                            };
                            lanes.store_part(dst.at(at), y, part);
                        }
                    }
                }
                c += L::N;
            }
        }
    }
}

/// Transforms tiles `first..first + count` of the output's gradient into `z`.
pub(super) struct Gradient<'a, T> {
    pub(super) tiles: &'a Tiles,
    /// The whole gradient.
    pub(super) dy: &'a [T],
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) z: *mut T,
    pub(super) layout: Transformed,
}

impl<T: Element> Gradient<'_, T> {
    /// # Safety
    /// As [`Input::run`].
    pub(super) unsafe fn run(self) {
        T::dispatch(GradientKernel(self));
    }
}

struct GradientKernel<'a, T>(Gradient<'a, T>);

impl<T: Element> Kernel<T> for GradientKernel<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let Gradient {
            tiles: s,
            dy,
            first,
            count,
            z,
            layout,
        } = self.0;
        for t in 0..count {
            let (b, y0, x0) = s.locate(first + t);
            let rows = OUT.min(s.dst_h - y0);
            let columns = OUT.min(s.dst_w - x0);
            let base = ((b * s.dst_h + y0) * s.dst_w + x0) * s.dst_c;
            let mut c = 0;
            while c < s.dst_c {
                let n = L::N.min(s.dst_c - c);
                let mut tile = [[lanes.splat(T::default()); OUT]; OUT];
                for i in 0..rows {
                    for j in 0..columns {
                        let at = base + (i * s.dst_w + j) * s.dst_c + c;
                        // SAFETY: the pixel is inside the gradient and so are the channels.
                        tile[i][j] = unsafe { lanes.load_part(dy.as_ptr().add(at), n) };
                    }
                }
                let out = transform::output_adjoint_tile(lanes, &tile);
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        let at = (i * SIDE + j) * layout.plane + t * layout.row + c;
                        // SAFETY: inside the buffer, whose rows hold whole vectors.
                        unsafe { lanes.store(z.add(at), out[i][j]) };
                    }
                }
                c += L::N;
            }
        }
    }
}
