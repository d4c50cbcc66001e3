//! How a map is cut into tiles, and tiles into and out of the transformed domain.

use crate::par::Shared;
use crate::simd::{Element, Kernel, Lanes};

use super::super::epilogue::Epilogue;
use super::transform::{self, Grid, Load, OUT, POINTS, SIDE, Store};

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

    /// Where tile number `tile` lies.
    fn locate(&self, tile: usize) -> Place {
        let columns = self.dst_w.div_ceil(OUT);
        let (b, at) = (tile / self.per_image(), tile % self.per_image());
        Place {
            b,
            y: at / columns * OUT,
            x: at % columns * OUT,
        }
    }

    /// The pixels that the tile at `place` reads; those outside are `zeros`.
    #[inline(always)]
    fn pixels<T>(&self, place: Place, src: &[T], zeros: &[T]) -> [[*const T; SIDE]; SIDE] {
        let mut pixels = [[zeros.as_ptr(); SIDE]; SIDE];
        for (i, row) in pixels.iter_mut().enumerate() {
            let y = (place.y + i).wrapping_sub(self.padding);
            if y >= self.src_h {
                continue;
            }
            let at = (place.b * self.src_h + y) * self.src_w * self.src_c;
            let line = src[at..at + self.src_w * self.src_c].as_ptr();
            for (j, pixel) in row.iter_mut().enumerate() {
                let x = (place.x + j).wrapping_sub(self.padding);
                if x < self.src_w {
                    *pixel = line.wrapping_add(x * self.src_c);
                }
            }
        }
        pixels
    }

    /// Where the tile after the one at `place` lies.
    #[inline(always)]
    fn next(&self, place: Place) -> Place {
        let Place { b, y, x } = place;
        if x + OUT < self.dst_w {
            Place {
                x: x + OUT,
                ..place
            }
        } else if y + OUT < self.dst_h {
            Place {
                b,
                y: y + OUT,
                x: 0,
            }
        } else {
            Place {
                b: b + 1,
                y: 0,
                x: 0,
            }
        }
    }

    /// Output pixels of the tile at `place`, along each axis.
    #[inline(always)]
    fn extent(&self, place: Place) -> (usize, usize) {
        (OUT.min(self.dst_h - place.y), OUT.min(self.dst_w - place.x))
    }

    /// The element where the tile at `place` begins in the output.
    #[inline(always)]
    fn destination(&self, place: Place) -> usize {
        ((place.b * self.dst_h + place.y) * self.dst_w + place.x) * self.dst_c
    }
}

/// Image and first output pixel of a tile.
#[derive(Clone, Copy)]
struct Place {
    b: usize,
    y: usize,
    x: usize,
}

/// The points of a tile in a buffer of transformed ones, from `at` on.
#[inline(always)]
fn points<P>(at: P, layout: Transformed) -> Grid<P> {
    Grid {
        at,
        row: SIDE * layout.plane,
        column: layout.plane,
    }
}

/// `n` channels of pixels that lie anywhere.
struct Scattered<'a, T> {
    pixels: &'a [[*const T; SIDE]; SIDE],
    channel: usize,
    n: usize,
}

impl<L: Lanes> Load<L> for Scattered<'_, L::T> {
    #[inline(always)]
    unsafe fn load(&self, lanes: L, i: usize, j: usize) -> L::V {
        // SAFETY: the maker's promise.
        unsafe { lanes.load_part(self.pixels[i][j].add(self.channel), self.n) }
    }
}

/// A grid of which only some rows and columns exist, `n` elements of each.
struct Clipped<P> {
    grid: Grid<P>,
    rows: usize,
    columns: usize,
    n: usize,
}

impl<L: Lanes> Load<L> for Clipped<*const L::T> {
    #[inline(always)]
    unsafe fn load(&self, lanes: L, i: usize, j: usize) -> L::V {
        if i < self.rows && j < self.columns {
            let at = i * self.grid.row + j * self.grid.column;
            // SAFETY: the maker's promise.
            unsafe { lanes.load_part(self.grid.at.add(at), self.n) }
        } else {
            lanes.splat(L::T::default())
        }
    }
}

impl<L: Lanes> Store<L> for Clipped<*mut L::T> {
    #[inline(always)]
    unsafe fn store(&self, lanes: L, i: usize, j: usize, v: L::V) {
        if i < self.rows && j < self.columns {
            let at = i * self.grid.row + j * self.grid.column;
            // SAFETY: the maker's promise.
            unsafe { lanes.store_part(self.grid.at.add(at), v, self.n) };
        }
    }
}

/// Output pixels on their way through an epilogue.
struct Finished<'a, T> {
    pixels: Clipped<*mut T>,
    epilogue: Epilogue<'a, T>,
    /// The first pixel's element in the output, and its channel.
    at: usize,
    channel: usize,
}

impl<L: Lanes> Store<L> for Finished<'_, L::T> {
    #[inline(always)]
    unsafe fn store(&self, lanes: L, i: usize, j: usize, v: L::V) {
        let p = &self.pixels;
        if i < p.rows && j < p.columns {
            let at = self.at + i * p.grid.row + j * p.grid.column;
            // SAFETY: the maker's promise.
            unsafe {
                let v = self.epilogue.apply(lanes, v, at, self.channel, p.n);
                p.store(lanes, i, j, v);
            }
        }
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
        let (row, column) = (s.src_w * s.src_c, s.src_c);
        let mut place = s.locate(first);
        for t in 0..count {
            let Place { b, y, x } = place;
            // SAFETY: the tile's row in a buffer of this layout.
            let v = unsafe { v.add(t * layout.row) };
            let inside = y >= s.padding
                && x >= s.padding
                && y - s.padding + SIDE <= s.src_h
                && x - s.padding + SIDE <= s.src_w;
            let whole = if inside { s.src_c / L::N * L::N } else { 0 };
            if inside {
                let at = (b * s.src_h + y - s.padding) * row + (x - s.padding) * column;
                for c in (0..whole).step_by(L::N) {
                    // SAFETY: all pixels are inside, and have these channels; the buffer's rows hold whole vectors.
                    unsafe {
                        let pixels = Grid {
                            at: src.as_ptr().add(at + c),
                            row,
                            column,
                        };
                        transform::input_tile(lanes, &pixels, &points(v.add(c), layout));
                    }
                }
            }
            if whole < s.src_c {
                let pixels = s.pixels(place, src, zeros);
                for channel in (whole..s.src_c).step_by(L::N) {
                    let n = L::N.min(s.src_c - channel);
                    // SAFETY: every pointer has `src_c` elements behind it; the buffer's rows hold whole vectors.
                    unsafe {
                        let v = points(v.add(channel), layout);
                        if n == L::N {
                            let pixels = Scattered {
                                pixels: &pixels,
                                channel,
                                n: L::N,
                            };
                            transform::input_tile(lanes, &pixels, &v);
                        } else {
                            let pixels = Scattered {
                                pixels: &pixels,
                                channel,
                                n,
                            };
                            transform::input_tile(lanes, &pixels, &v);
                        }
                    }
                }
            }
            place = s.next(place);
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
        let mut place = s.locate(first);
        for t in 0..count {
            let (rows, columns) = s.extent(place);
            let at = s.destination(place) + column;
            for c in (0..n).step_by(L::N) {
                let n = L::N.min(n - c);
                // SAFETY: inside `m`, whose rows hold whole vectors; the tile's pixels and channels are inside the output.
                unsafe {
                    let m = points(m.as_ptr().add(t * layout.row + c), layout);
                    let grid = Grid {
                        at: dst.at(at + c),
                        row: s.dst_w * s.dst_c,
                        column: s.dst_c,
                    };
                    let pixels = Clipped {
                        grid,
                        rows,
                        columns,
                        n,
                    };
                    if let Some(epilogue) = epilogue {
                        let pixels = Finished {
                            pixels,
                            epilogue,
                            at: at + c,
                            channel: column + c,
                        };
                        transform::output_tile(lanes, &m, &pixels);
                    } else if rows == OUT && columns == OUT && n == L::N {
                        transform::output_tile(lanes, &m, &grid);
                    } else {
                        transform::output_tile(lanes, &m, &pixels);
                    }
                }
            }
            place = s.next(place);
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
        let mut place = s.locate(first);
        for t in 0..count {
            let (rows, columns) = s.extent(place);
            let at = s.destination(place);
            for c in (0..s.dst_c).step_by(L::N) {
                let n = L::N.min(s.dst_c - c);
                // SAFETY: the tile's pixels and channels are inside the gradient; the buffer's rows hold whole vectors.
                unsafe {
                    let z = points(z.add(t * layout.row + c), layout);
                    let grid = Grid {
                        at: dy.as_ptr().add(at + c),
                        row: s.dst_w * s.dst_c,
                        column: s.dst_c,
                    };
                    if rows == OUT && columns == OUT && n == L::N {
                        transform::output_adjoint_tile(lanes, &grid, &z);
                    } else {
                        let pixels = Clipped {
                            grid,
                            rows,
                            columns,
                            n,
                        };
                        transform::output_adjoint_tile(lanes, &pixels, &z);
                    }
                }
            }
            place = s.next(place);
        }
    }
}
