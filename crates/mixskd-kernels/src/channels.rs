//! Maps out of maps: joining channels, taking a range of them, shuffling groups; sums.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};

use crate::par::{self, Shared};
use crate::record;
use crate::simd::Element;
use crate::storage::{self, by_dtype};
use crate::{Error, Result, compose, gpu, shape};

/// Pixels a task handles; a constant, so that tasks do not depend on the number of threads.
const BLOCK: usize = 512;

/// The channels of `a`, then those of `b`.
///
/// # Shapes
/// `[batch, height, width, a]` and `[batch, height, width, b]` → `[batch, height, width, a + b]`
///
/// # Errors
/// When the maps differ in batch or size.
pub fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (batch, h, w, _) = shape::nhwc("concat_channels", "left map", a)?;
    let (_, _, _, right) = shape::nhwc("concat_channels", "right map", b)?;
    shape::exactly("concat_channels", "right map", b, &[batch, h, w, right])?;
    if let Some(y) = gpu::join_channels(&[a, b])? {
        return Ok(y);
    }
    if !storage::has_kernel(&[a, b]) || a.elem_count() * b.elem_count() == 0 {
        return compose::concat_channels(a, b);
    }
    Ok(record::apply2(&a.contiguous()?, &b.contiguous()?, Concat)?)
}

/// The channels of the first of several maps, then those of the second, and so on.
///
/// # Shapes
/// each `[batch, height, width, its channels]` → `[batch, height, width, all channels]`
///
/// # Errors
/// When the maps differ in batch or size, or there is none.
pub fn join_channels(maps: &[&Tensor]) -> Result<Tensor> {
    if let Some(first) = maps.first() {
        let (batch, h, w, _) = shape::nhwc("join_channels", "map", first)?;
        for map in maps {
            let (_, _, _, own) = shape::nhwc("join_channels", "map", map)?;
            shape::exactly("join_channels", "map", map, &[batch, h, w, own])?;
        }
    }
    match gpu::join_channels(maps)? {
        Some(y) => Ok(y),
        None => Ok(Tensor::cat(maps, 3)?),
    }
}

/// The samples of the first of several tensors, then those of the second, and so on.
///
/// # Shapes
/// each `[its samples, …]` → `[all samples, …]`
///
/// # Errors
/// When the tensors differ in what follows the samples, or there is none.
pub fn join_samples(all: &[&Tensor]) -> Result<Tensor> {
    if let Some((first, others)) = all.split_first()
        && !first.dims().is_empty()
    {
        for x in others {
            let mut wanted = first.dims().to_vec();
            wanted[0] = x.dims().first().copied().unwrap_or_default();
            shape::exactly("join_samples", "samples", x, &wanted)?;
        }
        if others.is_empty() {
            return Ok((*first).clone());
        }
        if let Some(y) = gpu::join_samples(all)? {
            return Ok(y);
        }
    }
    Ok(Tensor::cat(all, 0)?)
}

/// Samples `at … at + count − 1`.
///
/// # Shapes
/// `[batch, …]` → `[count, …]`
///
/// # Errors
/// When there are not so many.
pub fn samples(x: &Tensor, at: usize, count: usize) -> Result<Tensor> {
    match gpu::samples(x, at, count)? {
        Some(y) => Ok(y),
        None => Ok(x.narrow(0, at, count)?),
    }
}

/// `a + b`, of two maps.
///
/// # Shapes
/// `a`, `b`, result: the same
///
/// # Errors
/// When the shapes differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    shape::exactly("add", "second map", b, a.dims())?;
    match gpu::add(a, b)? {
        Some(y) => Ok(y),
        None => Ok((a + b)?),
    }
}

/// The channels `start … start + count − 1`.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, height, width, count]`
///
/// # Errors
/// When the map has too few channels.
pub fn slice_channels(x: &Tensor, start: usize, count: usize) -> Result<Tensor> {
    let (_, _, _, channels) = shape::nhwc("slice_channels", "input", x)?;
    if count == 0 || start + count > channels {
        return Err(Error::Config {
            op: "slice_channels",
            message: format!("{count} channels from channel {start} are not in {channels}"),
        });
    }
    if let Some(y) = gpu::slice_channels(x, start, count)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x]) || x.elem_count() == 0 {
        return compose::slice_channels(x, start, count);
    }
    let op = Slice {
        channels,
        start,
        count,
    };
    Ok(record::apply1(&x.contiguous()?, op)?)
}

/// Interleaves `groups` equal groups of channels: output channel `i · groups + g` is input channel `g · channel / groups + i`
/// (Zhang et al., ShuffleNet, 2018).
///
/// # Shapes
/// `[batch, height, width, channel]` → the same
///
/// # Errors
/// When `groups` does not divide the channels.
pub fn shuffle_channels(x: &Tensor, groups: usize) -> Result<Tensor> {
    let (_, _, _, channels) = shape::nhwc("shuffle_channels", "input", x)?;
    if groups == 0 || channels % groups != 0 {
        return Err(Error::Config {
            op: "shuffle_channels",
            message: format!("{groups} groups do not divide {channels} channels"),
        });
    }
    if let Some(y) = gpu::shuffle_channels(x, groups)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x]) || x.elem_count() == 0 {
        return compose::shuffle_channels(x, groups);
    }
    let op = Shuffle { channels, groups };
    Ok(record::apply1(&x.contiguous()?, op)?)
}

/// A new array of `pixels · channels` values; `row(p, out)` writes all values of pixel `p`.
fn rows<T: Element>(
    pixels: usize,
    channels: usize,
    row: impl Fn(usize, &mut [T]) + Sync,
) -> Vec<T> {
    let mut out = vec![T::default(); pixels * channels];
    let shared = Shared::new(&mut out);
    par::each(pixels.div_ceil(BLOCK), |block| {
        for p in block * BLOCK..pixels.min((block + 1) * BLOCK) {
            // SAFETY: pixel `p` belongs to this task alone, and the array holds `channels` values for it.
            row(p, unsafe {
                std::slice::from_raw_parts_mut(shared.at(p * channels), channels)
            });
        }
    });
    out
}

/// Channels `start..start + count` of rows of `channels` values.
fn take<T: Element>(x: &[T], channels: usize, start: usize, count: usize) -> Vec<T> {
    rows(x.len() / channels, count, |p, out| {
        out.copy_from_slice(&x[p * channels + start..][..count]);
    })
}

struct Concat;

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "mixskd-concat-channels"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, h, w, left) = a_layout.shape().dims4()?;
        let (_, _, _, right) = b_layout.shape().dims4()?;
        by_dtype!(a.dtype(), T => {
            let a = storage::slice::<T>(a, a_layout)?;
            let b = storage::slice::<T>(b, b_layout)?;
            let y = rows(batch * h * w, left + right, |p, out| {
                out[..left].copy_from_slice(&a[p * left..][..left]);
                out[left..].copy_from_slice(&b[p * right..][..right]);
            });
            Ok(storage::own(y, (batch, h, w, left + right)))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (_, _, _, channels) = dy.dims4()?;
        let (_, _, _, left) = a.dims4()?;
        by_dtype!(dy.dtype(), T => storage::with_slice::<T, _>(&dy, |data| {
            let part = |input: &Tensor, start: usize, count: usize| {
                input
                    .track_op()
                    .then(|| {
                        let part = take(data, channels, start, count);
                        Tensor::from_vec(part, input.shape(), input.device())
                    })
                    .transpose()
            };
            Ok((part(a, 0, left)?, part(b, left, channels - left)?))
        }))
    }
}

struct Slice {
    channels: usize,
    start: usize,
    count: usize,
}

impl CustomOp1 for Slice {
    fn name(&self) -> &'static str {
        "mixskd-slice-channels"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, h, w, _) = layout.shape().dims4()?;
        by_dtype!(x.dtype(), T => {
            let x = storage::slice::<T>(x, layout)?;
            let y = take(x, self.channels, self.start, self.count);
            Ok(storage::own(y, (batch, h, w, self.count)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let pixels = x.elem_count() / self.channels;
        by_dtype!(x.dtype(), T => storage::with_slice::<T, _>(&dy, |dy| {
            // Fresh rows are zero.
            let dx = rows(pixels, self.channels, |p, out: &mut [T]| {
                out[self.start..][..self.count].copy_from_slice(&dy[p * self.count..][..self.count]);
            });
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        }))
    }
}

struct Shuffle {
    channels: usize,
    groups: usize,
}

impl Shuffle {
    /// Interleaves `groups` groups in every row of `x`.
    fn interleave<T: Element>(x: &[T], channels: usize, groups: usize) -> Vec<T> {
        let each = channels / groups;
        rows(x.len() / channels, channels, |p, out| {
            let row = &x[p * channels..][..channels];
            for (g, group) in row.chunks_exact(each).enumerate() {
                for (i, &value) in group.iter().enumerate() {
                    out[i * groups + g] = value;
                }
            }
        })
    }
}

impl CustomOp1 for Shuffle {
    fn name(&self) -> &'static str {
        "mixskd-shuffle-channels"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), T => {
            let x = storage::slice::<T>(x, layout)?;
            let y = Self::interleave(x, self.channels, self.groups);
            Ok(storage::own(y, layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => storage::with_slice::<T, _>(&dy, |dy| {
            // The way back is the shuffle with the other factor as the number of groups.
            let dx = Self::interleave(dy, self.channels, self.channels / self.groups);
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        }))
    }
}
