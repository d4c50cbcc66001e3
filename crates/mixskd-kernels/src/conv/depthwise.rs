//! Depthwise convolution: every channel has a window of its own. There is no matrix product in it; a vector of channels
//! is multiplied with a vector of weights, tap by tap, for several neighbouring pixels at a time.

use crate::par::{self, Scratch, Shared};
use crate::simd::{Element, Kernel, Lanes};

use super::config::Geometry;
use super::epilogue::Epilogue;
use super::gather::Gather;

/// Whether a convolution is depthwise, with one output per input channel.
pub(super) fn applies(g: &Geometry) -> bool {
    g.config.groups > 1 && g.in_group() == 1 && g.out_group() == 1 && g.taps() <= MOST_TAPS
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

/// Most taps of a window that [`Sources`] holds: 7×7.
const MOST_TAPS: usize = 49;

/// Where taps read for one pixel of the grid, and their weights: first elements, all channels follow.
struct Sources {
    taps: [(usize, usize); MOST_TAPS],
    count: usize,
}

impl Sources {
    /// Of taps that are inside for column `j`.
    #[inline(always)]
    fn new(p: &Gather, taps: &[Tap], j: usize) -> Self {
        let mut found = [(0, 0); MOST_TAPS];
        for (found, tap) in found.iter_mut().zip(taps) {
            let x = (j * p.src_step) as isize + tap.dx;
            *found = (tap.row + x as usize * p.src_c, tap.weight);
        }
        Self {
            taps: found,
            count: taps.len(),
        }
    }
}

/// The taps that meet the map in a row of the grid.
fn taps_of(p: &Gather, row: usize) -> impl Iterator<Item = Tap> + '_ {
    let (b, i) = (row / p.grid_h, row % p.grid_h);
    p.taps.iter().filter_map(move |tap| {
        let y = (i * p.src_step) as isize + tap.dy;
        (y >= 0 && (y as usize) < p.src_h).then(|| Tap {
            row: (b * p.src_h + y as usize) * p.src_w * p.src_c,
            dx: tap.dx,
            weight: tap.segment as usize * p.src_c,
        })
    })
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
            taps.extend(taps_of(p, row));
            let inside = interior(p, &taps);
            let mut j = 0;
            while j < p.grid_w {
                // SAFETY: `inside` is what its name says.
                unsafe {
                    j += match inside.end.saturating_sub(j) {
                        _ if !inside.contains(&j) => {
                            self.edge(lanes, &taps, (b, i, j));
                            1
                        }
                        4.. => self.tile::<L, 4>(lanes, &taps, (b, i, j)),
                        2 | 3 => self.tile::<L, 2>(lanes, &taps, (b, i, j)),
                        _ => self.tile::<L, 1>(lanes, &taps, (b, i, j)),
                    };
                }
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
    /// `MR` neighbouring pixels that no tap leaves the map from, all channels; returns their number. Channels are the inner loop:
    /// pixels lie as far apart as there are channels, often a power of two, and would push one another out of the cache.
    ///
    /// # Safety
    /// All taps are inside for these pixels.
    #[inline(always)]
    unsafe fn tile<L: Lanes<T = T>, const MR: usize>(
        &self,
        lanes: L,
        taps: &[Tap],
        at: (usize, usize, usize),
    ) -> usize {
        let p = self.plan;
        let (b, i, j) = at;
        let sources = Sources::new(p, taps, j);
        let to = p.destination(b, i, j);
        let whole = p.src_c / L::N * L::N;
        // SAFETY: the caller's promise, and these channels exist.
        unsafe {
            for c in (0..whole).step_by(L::N) {
                self.vector::<L, MR, true>(lanes, &sources, to, c, L::N);
            }
            if whole < p.src_c {
                self.vector::<L, MR, false>(lanes, &sources, to, whole, p.src_c - whole);
            }
        }
        MR
    }

    /// [`Part::tile`] for `n` channels from `c` on; `to` is the first pixel's first element in the output.
    ///
    /// # Safety
    /// As [`Part::tile`], and the channels exist.
    #[inline(always)]
    unsafe fn vector<L: Lanes<T = T>, const MR: usize, const WHOLE: bool>(
        &self,
        lanes: L,
        sources: &Sources,
        to: usize,
        c: usize,
        n: usize,
    ) {
        let p = self.plan;
        let step = p.src_step * p.src_c;
        let mut acc = [lanes.splat(T::default()); MR];
        let (src, weights) = (
            self.src.as_ptr().wrapping_add(c),
            self.weights.as_ptr().wrapping_add(c),
        );
        for &(at, weight) in &sources.taps[..sources.count] {
            // SAFETY: the tap is inside for all `MR` pixels, and so are the channels.
            unsafe {
                let w = load::<L, WHOLE>(lanes, weights.add(weight), n);
                let from = src.add(at);
                for m in 0..MR {
                    let x = load::<L, WHOLE>(lanes, from.add(m * step), n);
                    acc[m] = lanes.fma(x, w, acc[m]);
                }
            }
        }
        let (to, step) = (to + c, p.dst_step * p.dst_c);
        for m in 0..MR {
            // SAFETY: the pixel is in the grid.
            unsafe { self.write(lanes, acc[m], to + m * step, c, n) };
        }
    }

    /// One pixel that some taps leave the map from.
    ///
    /// # Safety
    /// The pixel is in the grid.
    #[inline(always)]
    unsafe fn edge<L: Lanes<T = T>>(
        &self,
        lanes: L,
        taps: &[Tap],
        (b, i, j): (usize, usize, usize),
    ) {
        let p = self.plan;
        let to = p.destination(b, i, j);
        for c in (0..p.src_c).step_by(L::N) {
            let n = L::N.min(p.src_c - c);
            let mut acc = lanes.splat(T::default());
            for tap in taps {
                let x = (j * p.src_step) as isize + tap.dx;
                if x < 0 || x as usize >= p.src_w {
                    continue;
                }
                // SAFETY: the column is inside, and so are the channels.
                unsafe {
                    let w = lanes.load_part(self.weights.as_ptr().add(tap.weight + c), n);
                    let from = self.src.as_ptr().add(tap.row + x as usize * p.src_c + c);
                    acc = lanes.fma(lanes.load_part(from, n), w, acc);
                }
            }
            // SAFETY: the pixel is in the grid.
            unsafe { self.write(lanes, acc, to + c, c, n) };
        }
    }

    /// # Safety
    /// `n` elements of the output from `at` on are this task's own, channels from `c` on.
    #[inline(always)]
    unsafe fn write<L: Lanes<T = T>>(&self, lanes: L, v: L::V, at: usize, c: usize, n: usize) {
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
        let mut taps = Vec::with_capacity(p.taps.len());
        for row in self.rows.clone() {
            taps.clear();
            taps.extend(taps_of(p, row));
            let inside = interior(p, &taps);
            let mut j = 0;
            while j < p.grid_w {
                // SAFETY: `inside` is what its name says.
                unsafe {
                    j += match inside.end.saturating_sub(j) {
                        _ if !inside.contains(&j) => {
                            let met = |tap: &&Tap| {
                                let x = (j * p.src_step) as isize + tap.dx;
                                x >= 0 && (x as usize) < p.src_w
                            };
                            for tap in taps.iter().filter(met) {
                                self.add::<L, 1>(lanes, std::slice::from_ref(tap), (row, j));
                            }
                            1
                        }
                        4.. => self.add::<L, 4>(lanes, &taps, (row, j)),
                        2 | 3 => self.add::<L, 2>(lanes, &taps, (row, j)),
                        _ => self.add::<L, 1>(lanes, &taps, (row, j)),
                    };
                }
            }
        }
    }
}

impl<T: Element> Outer<'_, T> {
    /// Adds what `MR` neighbouring pixels contribute, all channels; returns their number.
    ///
    /// # Safety
    /// All of `taps` are inside for these pixels.
    #[inline(always)]
    unsafe fn add<L: Lanes<T = T>, const MR: usize>(
        &self,
        lanes: L,
        taps: &[Tap],
        at: (usize, usize),
    ) -> usize {
        let channels = self.plan.src_c;
        let (row, j) = at;
        let sources = Sources::new(self.plan, taps, j);
        let at = (row * self.plan.grid_w + j) * channels;
        let whole = channels / L::N * L::N;
        // SAFETY: the caller's promise, and these channels exist.
        unsafe {
            for c in (0..whole).step_by(L::N) {
                self.vector::<L, MR, true>(lanes, &sources, at, c, L::N);
            }
            if whole < channels {
                self.vector::<L, MR, false>(lanes, &sources, at, whole, channels - whole);
            }
        }
        MR
    }

    /// [`Outer::add`] for `n` channels from `c` on; `at` is the first pixel's first element in the output.
    ///
    /// # Safety
    /// As [`Outer::add`], and the channels exist.
    #[inline(always)]
    unsafe fn vector<L: Lanes<T = T>, const MR: usize, const WHOLE: bool>(
        &self,
        lanes: L,
        sources: &Sources,
        at: usize,
        c: usize,
        n: usize,
    ) {
        let channels = self.plan.src_c;
        let step = self.plan.src_step * channels;
        let mut dy = [lanes.splat(T::default()); MR];
        for m in 0..MR {
            let at = at + m * channels + c;
            // SAFETY: the pixel is in the output.
            dy[m] = unsafe { load::<L, WHOLE>(lanes, self.dy.as_ptr().add(at), n) };
        }
        let (x, sums) = (self.x.as_ptr().wrapping_add(c), self.sums.wrapping_add(c));
        for &(at, weight) in &sources.taps[..sources.count] {
            // SAFETY: the tap is inside for all `MR` pixels; the sums are this slice's own.
            unsafe {
                let (from, to) = (x.add(at), sums.add(weight));
                let mut sum = load::<L, WHOLE>(lanes, to, n);
                for m in 0..MR {
                    let x = load::<L, WHOLE>(lanes, from.add(m * step), n);
                    sum = lanes.fma(x, dy[m], sum);
                }
                lanes.store_part(to, sum, n);
            }
        }
    }
}
