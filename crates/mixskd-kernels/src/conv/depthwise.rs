//! Depthwise convolution: every channel has a window of its own. There is no matrix product in it; a vector of channels
//! is multiplied with a vector of weights, tap by tap, for several neighbouring pixels at a time.

use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

use super::config::Geometry;
use super::epilogue::Epilogue;
use super::gather::Gather;

/// Whether a convolution is depthwise, with one output per input channel.
pub(super) fn applies(g: &Geometry) -> bool {
    g.config.groups > 1 && g.in_group() == 1 && g.out_group() == 1
}

/// The weight as `[tap][channel]`.
pub(super) fn by_tap<T: Element>(g: &Geometry, w: &[T]) -> Vec<T> {
    let taps = g.taps();
    let mut out = vec![T::default(); w.len()];
    for (c, window) in w.chunks_exact(taps).enumerate() {
        for (tap, &x) in window.iter().enumerate() {
            out[tap * g.out_c + c] = x;
        }
    }
    out
}

/// The output of a depthwise convolution; `weights` are [`by_tap`].
pub(super) fn forward<T: Element>(
    g: &Geometry,
    x: &[T],
    weights: &[T],
    epilogue: Option<Epilogue<'_, T>>,
) -> Vec<T> {
    // SAFETY: every output pixel is in the grid.
    unsafe {
        par::filled(g.output_len(), |dst| {
            run(&Gather::forward(g), x, weights, epilogue, dst);
        })
    }
}

/// The gradient of a depthwise convolution's input; `weights` are [`by_tap`].
pub(super) fn input_gradient<T: Element>(g: &Geometry, dy: &[T], weights: &[T]) -> Vec<T> {
    // SAFETY: the phases cover all input pixels; a phase that no tap meets writes zeros.
    unsafe {
        par::filled(g.input_len(), |dst| {
            for plan in Gather::phases(g) {
                run(&plan, dy, weights, None, dst);
            }
        })
    }
}

/// Elements of output that make a task.
const TASK: usize = 32 * 1024;

fn run<T: Element>(
    plan: &Gather,
    src: &[T],
    weights: &[T],
    epilogue: Option<Epilogue<'_, T>>,
    dst: Shared<T>,
) {
    let rows = plan.batch * plan.grid_h;
    let per_task = (TASK / (plan.grid_w * plan.dst_c).max(1)).max(1);
    par::each(rows.div_ceil(per_task), |task| {
        T::dispatch(Part {
            plan,
            src,
            weights,
            epilogue,
            rows: task * per_task..((task + 1) * per_task).min(rows),
            dst,
        });
    });
}

/// Some rows of a plan's grid.
struct Part<'a, T> {
    plan: &'a Gather,
    src: &'a [T],
    weights: &'a [T],
    epilogue: Option<Epilogue<'a, T>>,
    rows: std::ops::Range<usize>,
    dst: Shared<T>,
}

/// A tap that meets the map in the row at hand.
#[derive(Clone, Copy)]
struct Tap {
    /// First element of the source row it reads.
    row: usize,
    /// Source column for grid column 0.
    dx: isize,
    /// First element of its weights.
    weight: usize,
}

/// Grid columns `j` whose source columns `j · step + dx` are inside for all of `taps`.
fn interior(plan: &Gather, taps: &[Tap]) -> std::ops::Range<usize> {
    let least = taps.iter().map(|t| t.dx).min().unwrap_or(0);
    let most = taps.iter().map(|t| t.dx).max().unwrap_or(0);
    let step = plan.src_step as isize;
    let low = (-least).max(0) as usize;
    let low = low.div_ceil(plan.src_step);
    let last = plan.src_w as isize - 1 - most;
    let high = if last < 0 {
        0
    } else {
        (last / step + 1) as usize
    };
    let high = high.min(plan.grid_w);
    low.min(high)..high
}

impl<T: Element> Kernel<T> for Part<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let p = self.plan;
        let mut taps = Vec::with_capacity(p.taps.len());
        for row in self.rows.clone() {
            let (b, i) = (row / p.grid_h, row % p.grid_h);
            taps.clear();
            for tap in &p.taps {
                let y = (i * p.src_step) as isize + tap.dy;
                if y >= 0 && (y as usize) < p.src_h {
                    taps.push(Tap {
                        row: (b * p.src_h + y as usize) * p.src_w * p.src_c,
                        dx: tap.dx,
                        weight: tap.segment as usize * p.src_c,
                    });
                }
            }
            let inside = interior(p, &taps);
            let mut c = 0;
            while c < p.src_c {
                let n = L::N.min(p.src_c - c);
                // SAFETY: `c + n` channels exist, and `inside` is what its name says.
                unsafe {
                    if n == L::N {
                        self.channels::<L, true>(lanes, &taps, (b, i), inside.clone(), c, n);
                    } else {
                        self.channels::<L, false>(lanes, &taps, (b, i), inside.clone(), c, n);
                    }
                }
                c += n;
            }
        }
    }
}

#[inline(always)]
unsafe fn load<L: Lanes, const WHOLE: bool>(lanes: L, p: *const L::T, n: usize) -> L::V {
    // SAFETY: the caller gives `n` readable elements, `N` of them where `WHOLE`.
    unsafe {
        if WHOLE {
            lanes.load(p)
        } else {
            lanes.load_n(p, n)
        }
    }
}

impl<T: Element> Part<'_, T> {
    /// One row of the grid, `n` channels from `c` on.
    ///
    /// # Safety
    /// The channels exist; all taps are inside for the columns `inside`.
    #[inline(always)]
    unsafe fn channels<L: Lanes<T = T>, const WHOLE: bool>(
        &self,
        lanes: L,
        taps: &[Tap],
        (b, i): (usize, usize),
        inside: std::ops::Range<usize>,
        c: usize,
        n: usize,
    ) {
        let mut j = 0;
        while j < self.plan.grid_w {
            // SAFETY: the promises of this function.
            unsafe {
                if inside.contains(&j) {
                    j += match inside.end - j {
                        8.. => self.tile::<L, 8, WHOLE>(lanes, taps, (b, i, j), c, n),
                        4..=7 => self.tile::<L, 4, WHOLE>(lanes, taps, (b, i, j), c, n),
                        2 | 3 => self.tile::<L, 2, WHOLE>(lanes, taps, (b, i, j), c, n),
                        _ => self.tile::<L, 1, WHOLE>(lanes, taps, (b, i, j), c, n),
                    };
                } else {
                    self.edge::<L, WHOLE>(lanes, taps, (b, i, j), c, n);
                    j += 1;
                }
            }
        }
    }

    /// `MR` neighbouring pixels that no tap leaves the map from; returns their number.
    ///
    /// # Safety
    /// As [`Part::channels`].
    #[inline(always)]
    unsafe fn tile<L: Lanes<T = T>, const MR: usize, const WHOLE: bool>(
        &self,
        lanes: L,
        taps: &[Tap],
        (b, i, j): (usize, usize, usize),
        c: usize,
        n: usize,
    ) -> usize {
        let p = self.plan;
        let step = p.src_step * p.src_c;
        let mut acc = [lanes.splat(T::default()); MR];
        for tap in taps {
            let x = (j * p.src_step) as isize + tap.dx;
            // SAFETY: the tap is inside for all `MR` pixels, and so are the channels.
            unsafe {
                let w = load::<L, WHOLE>(lanes, self.weights.as_ptr().add(tap.weight + c), n);
                let from = self.src.as_ptr().add(tap.row + x as usize * p.src_c + c);
                for m in 0..MR {
                    let x = load::<L, WHOLE>(lanes, from.add(m * step), n);
                    acc[m] = lanes.fma(x, w, acc[m]);
                }
            }
        }
        for m in 0..MR {
            // SAFETY: the pixel is in the grid.
            unsafe { self.write(lanes, acc[m], (b, i, j + m), c, n) };
        }
        MR
    }

    /// One pixel that some taps leave the map from.
    ///
    /// # Safety
    /// The channels exist.
    #[inline(always)]
    unsafe fn edge<L: Lanes<T = T>, const WHOLE: bool>(
        &self,
        lanes: L,
        taps: &[Tap],
        (b, i, j): (usize, usize, usize),
        c: usize,
        n: usize,
    ) {
        let p = self.plan;
        let mut acc = lanes.splat(T::default());
        for tap in taps {
            let x = (j * p.src_step) as isize + tap.dx;
            if x < 0 || x as usize >= p.src_w {
                continue;
            }
            // SAFETY: the column is inside.
            unsafe {
                let w = load::<L, WHOLE>(lanes, self.weights.as_ptr().add(tap.weight + c), n);
                let from = self.src.as_ptr().add(tap.row + x as usize * p.src_c + c);
                acc = lanes.fma(load::<L, WHOLE>(lanes, from, n), w, acc);
            }
        }
        // SAFETY: the pixel is in the grid.
        unsafe { self.write(lanes, acc, (b, i, j), c, n) };
    }

    /// # Safety
    /// The pixel is in the grid and the channels exist.
    #[inline(always)]
    unsafe fn write<L: Lanes<T = T>>(
        &self,
        lanes: L,
        v: L::V,
        (b, i, j): (usize, usize, usize),
        c: usize,
        n: usize,
    ) {
        let at = self.plan.destination(b, i, j) + c;
        // SAFETY: inside the output; tasks differ in rows of the grid.
        unsafe {
            let v = match &self.epilogue {
                Some(epilogue) => epilogue.apply(lanes, v, at, c, n),
                None => v,
            };
            lanes.store_part(self.dst.at(at), v, n);
        }
    }
}

/// Largest number of slices that the output's rows are cut into for the weight's gradient; their sums are added in order.
const SLICES: usize = 16;
/// Output pixels worth a slice of their own.
const SLICE_PIXELS: usize = 512;

/// The gradient of a depthwise convolution's weight, `[channel, 1, kernel_h, kernel_w]`.
pub(super) fn weight_gradient<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    let (taps, channels) = (g.taps(), g.out_c);
    let rows = g.batch * g.out_h;
    let slices = (rows * g.out_w / SLICE_PIXELS).clamp(1, SLICES.min(rows));
    let len = taps * channels;
    let mut sums = Scratch::<T>::take(slices * len);
    sums.fill(T::default());
    let shared = Shared::new(&mut sums);
    let plan = Gather::forward(g);
    par::each(slices, |slice| {
        T::dispatch(Outer {
            plan: &plan,
            x,
            dy,
            rows: rows * slice / slices..rows * (slice + 1) / slices,
            // SAFETY: each slice has sums of its own.
            sums: unsafe { shared.at(slice * len) },
        });
    });
    let mut dw = vec![T::default(); len];
    for part in sums.chunks_exact(len) {
        for c in 0..channels {
            for tap in 0..taps {
                dw[c * taps + tap] += part[tap * channels + c];
            }
        }
    }
    dw
}

/// Adds `Σ x · dy` over some output rows to the sums `[tap][channel]`.
struct Outer<'a, T> {
    plan: &'a Gather,
    x: &'a [T],
    dy: &'a [T],
    rows: std::ops::Range<usize>,
    sums: *mut T,
}

impl<T: Element> Kernel<T> for Outer<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let p = self.plan;
        for row in self.rows.clone() {
            let (b, i) = (row / p.grid_h, row % p.grid_h);
            for (tap, at) in p.taps.iter().enumerate() {
                let y = (i * p.src_step) as isize + at.dy;
                if y < 0 || y as usize >= p.src_h {
                    continue;
                }
                let tap = Tap {
                    row: (b * p.src_h + y as usize) * p.src_w * p.src_c,
                    dx: at.dx,
                    weight: tap * p.src_c,
                };
                let mut c = 0;
                // Two vectors of channels at a time, and two pixels: four sums, as many as hide an addition's latency.
                while c + 2 * L::N <= p.src_c {
                    // SAFETY: two vectors of channels exist.
                    unsafe { self.tap::<L, 2, true>(lanes, tap, row, c, L::N) };
                    c += 2 * L::N;
                }
                while c < p.src_c {
                    let n = L::N.min(p.src_c - c);
                    // SAFETY: `n` channels exist.
                    unsafe {
                        if n == L::N {
                            self.tap::<L, 1, true>(lanes, tap, row, c, n);
                        } else {
                            self.tap::<L, 1, false>(lanes, tap, row, c, n);
                        }
                    }
                    c += n;
                }
            }
        }
    }
}

impl<T: Element> Outer<'_, T> {
    /// One tap and one row: `V` vectors of channels from `c` on, the last of `n`.
    ///
    /// # Safety
    /// The channels exist, and the tap's row is inside the map.
    #[inline(always)]
    unsafe fn tap<L: Lanes<T = T>, const V: usize, const WHOLE: bool>(
        &self,
        lanes: L,
        tap: Tap,
        row: usize,
        c: usize,
        n: usize,
    ) {
        let p = self.plan;
        let inside = interior(p, &[tap]);
        let channels = p.src_c;
        let mut acc = [[lanes.splat(T::default()); V]; 2];
        let x0 = (inside.start * p.src_step) as isize + tap.dx;
        let mut x = self
            .x
            .as_ptr()
            .wrapping_add(tap.row + c)
            .wrapping_offset(x0 * channels as isize);
        let mut dy = self
            .dy
            .as_ptr()
            .wrapping_add((row * p.grid_w + inside.start) * channels + c);
        let step = p.src_step * channels;
        let mut left = inside.len();
        while left > 0 {
            for u in 0..left.min(2) {
                for v in 0..V {
                    // SAFETY: the column is inside for this tap.
                    unsafe {
                        let a = load::<L, WHOLE>(lanes, x.add(u * step + v * L::N), n);
                        let b = load::<L, WHOLE>(lanes, dy.add(u * channels + v * L::N), n);
                        acc[u][v] = lanes.fma(a, b, acc[u][v]);
                    }
                }
            }
            let done = left.min(2);
            x = x.wrapping_add(done * step);
            dy = dy.wrapping_add(done * channels);
            left -= done;
        }
        for v in 0..V {
            // SAFETY: inside this slice's sums.
            unsafe {
                let at = self.sums.add(tap.weight + c + v * L::N);
                let sum = lanes.add(acc[0][v], acc[1][v]);
                lanes.store_part(at, lanes.add(load::<L, WHOLE>(lanes, at, n), sum), n);
            }
        }
    }
}
