//! Weights rearranged into panels, the order in which a register tile reads them.

use crate::par::{self, Shared};
use crate::simd::{Element, Kernel, Lanes};

/// A matrix per segment, `[segment][k][n]`, cut along `n` into panels of [`Lanes::TILE`] vectors; inside a panel the order
/// is `[segment][k][column]` and the last panel is padded with zeros to whole vectors.
#[derive(Debug)]
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

/// One panel's place: first column, columns, and vectors that hold them.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) column: usize,
    pub(crate) n: usize,
    pub(crate) vectors: usize,
}

/// The processor's vectors, as far as panels depend on them.
#[derive(Clone, Copy)]
pub(crate) struct Width {
    /// Elements of a vector.
    pub(crate) lanes: usize,
    /// Elements of a full panel's row.
    pub(crate) panel: usize,
}

impl Width {
    /// Of the widest vectors of `T`.
    pub(crate) fn of<T: Element>() -> Self {
        T::dispatch(Ask)
    }

    /// Number of panels that `n` columns make.
    pub(crate) fn panels(self, n: usize) -> usize {
        n.div_ceil(self.panel)
    }

    /// The `i`-th panel of `n` columns.
    pub(crate) fn panel(self, n: usize, i: usize) -> Panel {
        let column = i * self.panel;
        let n = (n - column).min(self.panel);
        Panel {
            column,
            n,
            vectors: n.div_ceil(self.lanes),
        }
    }
}

struct Ask;

impl<T: Element> Kernel<T> for Ask {
    type Out = Width;

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, _: L) -> Width {
        Width {
            lanes: L::N,
            panel: L::TILE * L::N,
        }
    }
}

/// Rows packed by one task.
const K_CHUNK: usize = 16;

impl<T: Element> Packed<T> {
    /// Packs `source`, read at `at`.
    pub(crate) fn new(source: &[T], at: Strides, segments: usize, k: usize, n: usize) -> Self {
        let width = Width::of::<T>();
        let panels = width.panels(n);
        let chunks = k.div_ceil(K_CHUNK);
        let len = segments * k * n.next_multiple_of(width.lanes);
        let one = |out: Shared<T>, task: usize| {
            let panel = width.panel(n, task / chunks);
            let first = (task % chunks) * K_CHUNK;
            let row_len = panel.vectors * width.lanes;
            let base = panel.column * segments * k;
            for row in first..(first + K_CHUNK).min(k) {
                for segment in 0..segments {
                    let from = row * at.k + segment * at.segment + panel.column * at.n;
                    // SAFETY: tasks differ in panel or rows, so they write different parts; together they cover `len`.
                    let to = unsafe {
                        std::slice::from_raw_parts_mut(
                            out.at(base + (segment * k + row) * row_len),
                            row_len,
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
        let data = unsafe {
            par::filled(len, |out| {
                if len < 1 << 14 {
                    (0..panels * chunks).for_each(|task| one(out, task));
                } else {
                    par::each(panels * chunks, |task| one(out, task));
                }
            })
        };
        Self {
            data,
            segments,
            k,
            n,
        }
    }

    /// The same memory seen with every `by` neighbouring segments as one.
    pub(crate) fn joined(self, by: usize) -> Self {
        Self {
            k: self.k * by,
            segments: self.segments / by,
            ..self
        }
    }

    /// Start of a panel.
    pub(crate) fn panel(&self, panel: Panel) -> *const T {
        self.data[panel.column * self.segments * self.k..].as_ptr()
    }
}
