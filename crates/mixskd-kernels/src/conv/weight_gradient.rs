//! The gradient of a convolution's weight: for each tap a sum, over all output pixels, of outer products between the
//! input pixel under the tap and the output's gradient.

use crate::gemm::micro::{Outer, Run};
use crate::gemm::pack::Width;
use crate::par::{self, Scratch, Shared};
use crate::simd::Element;

use super::config::Geometry;
use super::padded;

/// Largest number of slices that the batch is cut into; their sums are added in order.
const SLICES: usize = 16;
/// Output pixels worth a slice of their own.
const SLICE_PIXELS: usize = 1024;
/// Weights from which on tasks share out the weight instead of the batch.
const LARGE_WEIGHT: usize = 1 << 17;
/// Elements of input and output gradient that a task goes over at a time: they stay in the second-level cache.
const CACHED: usize = 96 * 1024;
/// The same of one group's, which stay in the first-level cache.
const CACHED_GROUP: usize = 7 * 1024;
/// Largest weight of a group whose sums stay there beside them, nearly.
const GROUP_WEIGHT: usize = 16 * 1024;
/// Tasks that keep all threads busy.
const FEW_TASKS: usize = 8;

/// How the work is cut: by slices of output rows, and by taps and panels where the weight is large.
struct Plan<'a, T> {
    g: &'a Geometry,
    x: &'a [T],
    dy: &'a [T],
    slices: usize,
    split: bool,
    /// Taps and channels as the multiplication sees them, and the window's taps that each of these stands for.
    taps: usize,
    tap_step: usize,
    k: usize,
    /// Row length of the sums.
    ldc: usize,
    /// Elements that a task goes over at a time.
    cached: usize,
}

struct Task<'a, T> {
    plan: &'a Plan<'a, T>,
    slice: usize,
    group: usize,
    part: usize,
    /// Where its sums begin.
    base: usize,
    sums: Shared<T>,
}

impl<T: Element> Task<'_, T> {
    fn run(self) {
        let Plan {
            g,
            x,
            dy,
            slices,
            split,
            taps,
            tap_step,
            k,
            ldc,
            cached,
        } = *self.plan;
        let n = g.out_group();
        let width = Width::of::<T>();
        let panels = width.panels(n);
        let out_rows = g.batch * g.out_h;
        let rows = out_rows * self.slice / slices..out_rows * (self.slice + 1) / slices;
        let per_block = (cached / (g.out_w * (g.in_c + g.out_c))).max(1);
        let (taps_here, panels_here) = if split {
            let tap = self.part / panels;
            let panel = self.part % panels;
            (tap..tap + 1, panel..panel + 1)
        } else {
            (0..taps, 0..panels)
        };
        let mut runs = Vec::with_capacity(per_block);
        let mut start = rows.start;
        while start < rows.end {
            let block = start..(start + per_block).min(rows.end);
            for panel in panels_here.clone() {
                let panel = width.panel(n, panel);
                for tap in taps_here.clone() {
                    runs.clear();
                    tap_runs(g, x, dy, tap * tap_step, block.clone(), &mut runs);
                    // SAFETY: runs stay inside `x` and `dy`; slices, groups and parts have sums of
                    // their own, whose rows hold whole vectors.
                    unsafe {
                        Outer {
                            runs: &runs,
                            a_step: g.config.stride * g.in_c,
                            b_step: g.out_c,
                            a_offset: self.group * k,
                            b_offset: self.group * n + panel.column,
                            k,
                            panel,
                            c: self.sums.at(self.base + tap * k * ldc + panel.column),
                            ldc,
                        }
                        .run();
                    }
                }
            }
            start = block.end;
        }
    }
}

/// The runs of pixels, within some output rows, whose input pixel under `tap` exists.
fn tap_runs<T>(
    g: &Geometry,
    x: &[T],
    dy: &[T],
    tap: usize,
    rows: std::ops::Range<usize>,
    runs: &mut Vec<Run<T>>,
) {
    let c = g.config;
    let (oy_shift, ox_shift) = (
        (tap / g.kernel_w) * c.dilation,
        (tap % g.kernel_w) * c.dilation,
    );
    // Output columns j with 0 ≤ j·stride + shift − padding < width.
    let low = c.padding.saturating_sub(ox_shift).div_ceil(c.stride);
    let high = (g.in_w + c.padding)
        .saturating_sub(ox_shift)
        .div_ceil(c.stride)
        .min(g.out_w);
    if low >= high {
        return;
    }
    for row in rows {
        let (b, oy) = (row / g.out_h, row % g.out_h);
        let Some(y) = (oy * c.stride + oy_shift).checked_sub(c.padding) else {
            continue;
        };
        if y >= g.in_h {
            continue;
        }
        let at = (b * g.in_h + y) * g.in_w + low * c.stride + ox_shift - c.padding;
        let run = Run {
            a: x[at * g.in_c..].as_ptr(),
            b: dy[(row * g.out_w + low) * g.out_c..].as_ptr(),
            len: high - low,
        };
        match runs.last_mut() {
            // Whole rows of a 1×1 convolution follow one another without a gap.
            Some(last)
                if last.a.wrapping_add(last.len * c.stride * g.in_c) == run.a
                    && last.b.wrapping_add(last.len * g.out_c) == run.b =>
            {
                last.len += run.len;
            }
            _ => runs.push(run),
        }
    }
}

/// The gradient of a convolution's weight, `[out, in / groups, kernel_h, kernel_w]`.
pub(super) fn weight_gradient<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    if padded::applies(g) {
        // Each row of a window is one run of memory.
        return sums(&padded::geometry(g), &padded::pad(g, x), dy, g.kernel_w);
    }
    if group_slices(g) * g.config.groups >= FEW_TASKS && group_weight(g) <= GROUP_WEIGHT {
        return by_group(g, x, dy);
    }
    sums(g, x, dy, 1)
}

/// Slices of images that [`by_group`] cuts the batch into; none where there is one group.
fn group_slices(g: &Geometry) -> usize {
    if g.config.groups == 1 {
        return 0;
    }
    (g.batch * g.out_h * g.out_w / SLICE_PIXELS).clamp(1, SLICES.min(g.batch))
}

/// Elements of one group's sums.
fn group_weight(g: &Geometry) -> usize {
    g.taps() * g.in_group() * g.out_group().next_multiple_of(16)
}

/// The gradient of several groups: a task copies what one of them has of some images, so that its few channels lie side by side. Where they are, those of
/// neighbouring pixels lie in the same few sets of the cache, and are fetched again for each tap.
fn by_group<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    let (taps, k, n, groups) = (g.taps(), g.in_group(), g.out_group(), g.config.groups);
    let ldc = n.next_multiple_of(16);
    let slices = group_slices(g);
    let mut sums = Scratch::<T>::take(slices * groups * taps * k * ldc);
    sums.fill(T::default());
    let shared = Shared::new(&mut sums);
    par::each(slices * groups, |task| {
        let (slice, group) = (task / groups, task % groups);
        let images = g.batch * slice / slices..g.batch * (slice + 1) / slices;
        let mut own = Geometry {
            batch: images.len(),
            in_c: k,
            out_c: n,
            ..*g
        };
        own.config.groups = 1;
        let of_group = |all: &[T], pixels: usize, channels: usize, own: usize| {
            let mut some = Scratch::<T>::take(images.len() * pixels * own);
            let pixels = &all[images.start * pixels * channels..images.end * pixels * channels];
            for (to, pixel) in some
                .chunks_exact_mut(own)
                .zip(pixels.chunks_exact(channels))
            {
                to.copy_from_slice(&pixel[group * own..(group + 1) * own]);
            }
            some
        };
        Task {
            plan: &Plan {
                g: &own,
                x: &of_group(x, g.in_h * g.in_w, g.in_c, k),
                dy: &of_group(dy, g.out_h * g.out_w, g.out_c, n),
                slices: 1,
                split: false,
                taps,
                tap_step: 1,
                k,
                ldc,
                cached: CACHED_GROUP,
            },
            slice: 0,
            group: 0,
            part: 0,
            base: task * taps * k * ldc,
            sums: shared,
        }
        .run();
    });
    gather_sums(g, &sums, slices, ldc)
}

/// The gradient with `joined` neighbouring taps of a row at a time.
fn sums<T: Element>(g: &Geometry, x: &[T], dy: &[T], joined: usize) -> Vec<T> {
    let (taps, k) = (g.taps() / joined, g.in_group() * joined);
    let n = g.out_group();
    // Wide enough for whole vectors of every instruction set.
    let ldc = n.next_multiple_of(16);
    let len = taps * k * ldc * g.config.groups;
    let split = len >= LARGE_WEIGHT;
    let pixels = g.batch * g.out_h * g.out_w;
    let slices = if split {
        1
    } else {
        (pixels / SLICE_PIXELS).clamp(1, SLICES.min(g.batch * g.out_h))
    };
    let plan = Plan {
        g,
        x,
        dy,
        slices,
        split,
        taps,
        tap_step: joined,
        k,
        ldc,
        cached: CACHED,
    };
    let parts = if split {
        taps * Width::of::<T>().panels(n)
    } else {
        1
    };
    let groups = g.config.groups;
    let mut sums = Scratch::<T>::take(slices * len);
    sums.fill(T::default());
    let shared = Shared::new(&mut sums);
    par::each(slices * groups * parts, |task| {
        let (slice, group) = (task / (groups * parts), task / parts % groups);
        Task {
            plan: &plan,
            slice,
            group,
            part: task % parts,
            base: (slice * groups + group) * taps * k * ldc,
            sums: shared,
        }
        .run();
    });
    gather_sums(g, &sums, slices, ldc)
}

/// Output channels that a task of [`gather_sums`] covers: both sides are touched a cache line at a time.
const CHUNK: usize = 16;

/// Adds the slices' sums in order, and turns `[group][tap][in][out]` into the weight's own order.
fn gather_sums<T: Element>(g: &Geometry, sums: &[T], slices: usize, ldc: usize) -> Vec<T> {
    let (taps, k, n) = (g.taps(), g.in_group(), g.out_group());
    let per_slice = g.config.groups * taps * k * ldc;
    let chunks = n.div_ceil(CHUNK);
    // SAFETY: every output channel of every group is in one task, which alone writes its `k · taps` weights.
    unsafe {
        par::filled(g.weight_len(), |out| {
            par::each(g.config.groups * chunks, |task| {
                let (group, first) = (task / chunks, task % chunks * CHUNK);
                let end = (first + CHUNK).min(n);
                for i in 0..k {
                    for tap in 0..taps {
                        let from = ((group * taps + tap) * k + i) * ldc;
                        let mut sum = [T::default(); CHUNK];
                        for slice in 0..slices {
                            let part = &sums[slice * per_slice + from..][first..end];
                            for (s, &x) in sum.iter_mut().zip(part) {
                                *s += x;
                            }
                        }
                        for (o, &s) in (first..end).zip(&sum) {
                            *out.at(((group * n + o) * k + i) * taps + tap) = s;
                        }
                    }
                }
            });
        })
    }
}
