//! Weights rearranged into panels, the order in which a register tile reads them.

use crate::par::{self, Shared};
use crate::simd::{Element, Kernel, Lanes};

/// A matrix per segment, `[segment][k][n]`, cut along `n` into panels of [`Lanes::TILE`] vectors; inside a panel the order
/// is `[segment][k][column]` and the last panel is padded with zeros to whole vectors.
pub(crate) struct Packed<T> {
    data: Vec<T>,
    /// Matrices.
    pub(crate) segments: usize,
    /// Rows of each.
    pub(crate) k: usize,
    /// Columns of each.
    pub(crate) n: usize,
}

/// Where element `(segment, k, n)` lies in the source of [`Packed::new`].
#[derive(Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) segment: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
}

/// One panel's place: first column, columns, vectors and offset.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) column: usize,
    pub(crate) n: usize,
    pub(crate) vectors: usize,
}

/// Number of panels that `n` columns make.
#[inline(always)]
pub(crate) fn panel_count<L: Lanes>(n: usize) -> usize {
    n.div_ceil(L::TILE * L::N)
}

/// The `i`-th panel of `n` columns.
#[inline(always)]
pub(crate) fn panel<L: Lanes>(n: usize, i: usize) -> Panel {
    let column = i * L::TILE * L::N;
    let n = (n - column).min(L::TILE * L::N);
    Panel {
        column,
        n,
        vectors: n.div_ceil(L::N),
    }
}

struct Pack<'a, T> {
    source: &'a [T],
    at: Strides,
    segments: usize,
    k: usize,
    n: usize,
}

/// Rows packed by one task.
const K_CHUNK: usize = 16;

impl<T: Element> Kernel<T> for Pack<'_, T> {
    type Out = Vec<T>;

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, _: L) -> Vec<T> {
        let Self {
            source,
            at,
            segments,
            k,
            n,
        } = self;
        let panels = panel_count::<L>(n);
        let chunks = k.div_ceil(K_CHUNK);
        let len = segments * k * n.next_multiple_of(L::N);
        let one = |out: Shared<T>, task: usize| {
            let panel = panel::<L>(n, task / chunks);
            let first = (task % chunks) * K_CHUNK;
            let width = panel.vectors * L::N;
            let base = panel.column * segments * k;
            for row in first..(first + K_CHUNK).min(k) {
                for segment in 0..segments {
                    let from = row * at.k + segment * at.segment + panel.column * at.n;
                    // SAFETY: tasks differ in panel or rows, so they write different parts; together they cover `len`.
                    let to = unsafe {
                        std::slice::from_raw_parts_mut(
                            out.at(base + (segment * k + row) * width),
                            width,
                        )
                    };
                    for (j, x) in to.iter_mut().enumerate() {
                        *x = if j < panel.n {
                            source[from + j * at.n]
                        } else {
                            T::default()
                        };
                    }
                }
            }
        };
        // SAFETY: panels cover the columns, chunks the rows and the inner loop the segments.
        unsafe {
            par::filled(len, |out| {
                if len < 1 << 14 {
                    (0..panels * chunks).for_each(|task| one(out, task));
                } else {
                    par::each(panels * chunks, |task| one(out, task));
                }
            })
        }
    }
}

impl<T: Element> Packed<T> {
    /// Packs `source`, read at `at`.
    pub(crate) fn new(source: &[T], at: Strides, segments: usize, k: usize, n: usize) -> Self {
        let data = T::dispatch(Pack {
            source,
            at,
            segments,
            k,
            n,
        });
        Self {
            data,
            segments,
            k,
            n,
        }
    }

    /// The same memory seen as one segment of `segments · k` rows.
    pub(crate) fn flattened(self) -> Self {
        Self {
            k: self.k * self.segments,
            segments: 1,
            ..self
        }
    }

    /// Start of a panel.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: Panel) -> *const T {
        self.data[panel.column * self.segments * self.k..].as_ptr()
    }
}
