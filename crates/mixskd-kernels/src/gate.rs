//! A factor or a number to add for each channel of each sample, and a bias for each channel.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use crate::par::{self, Shared};
use crate::record;
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};
use crate::{Result, compose, gpu, shape};

/// Every channel of every sample times its own factor (squeeze and excitation, Hu et al. 2018).
///
/// # Shapes
/// `x`: `[batch, height, width, channel]`, `factors`: `[batch, channel]` → `x`'s, and its type
///
/// # Errors
/// When a shape does not fit.
pub fn scale_channels(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (batch, _, _, channels) = shape::nhwc("scale_channels", "input", x)?;
    shape::exactly("scale_channels", "factors", factors, &[batch, channels])?;
    if let Some(y) = gpu::per_channel(x, factors, PerChannel::Scale)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, factors]) || x.elem_count() == 0 {
        return compose::scale_channels(x, factors);
    }
    Ok(record::apply2(
        &x.contiguous()?,
        &factors.contiguous()?,
        PerChannel::Scale,
    )?)
}

/// Adds to every channel of every sample a number of its own.
///
/// # Shapes
/// `x`: `[batch, height, width, channel]`, `shift`: `[batch, channel]` → `x`'s
///
/// # Errors
/// When a shape does not fit.
pub fn shift_channels(x: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (batch, _, _, channels) = shape::nhwc("shift_channels", "input", x)?;
    shape::exactly("shift_channels", "shift", shift, &[batch, channels])?;
    if let Some(y) = gpu::per_channel(x, shift, PerChannel::Shift)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, shift]) || x.elem_count() == 0 {
        return compose::shift_channels(x, shift);
    }
    Ok(record::apply2(
        &x.contiguous()?,
        &shift.contiguous()?,
        PerChannel::Shift,
    )?)
}

/// Adds a number of its own to every channel.
///
/// # Shapes
/// `x`: `[batch, height, width, channel]`, `bias`: `[channel]` → `x`'s
///
/// # Errors
/// When a shape does not fit.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (_, _, _, channels) = shape::nhwc("add_bias", "input", x)?;
    shape::exactly("add_bias", "bias", bias, &[channels])?;
    if let Some(y) = gpu::per_channel(x, bias, PerChannel::Bias)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, bias]) || x.elem_count() == 0 {
        return compose::add_bias(x, bias);
    }
    Ok(record::apply2(
        &x.contiguous()?,
        &bias.contiguous()?,
        PerChannel::Bias,
    )?)
}

/// What is done with the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PerChannel {
    /// A factor for each channel of each sample.
    Scale,
    /// A number to add for each channel of each sample.
    Shift,
    /// A number to add for each channel.
    Bias,
}

/// One sample: `y = x · v` or `y = x + v`, `v` one value a channel.
struct Forward<'a, T> {
    op: PerChannel,
    x: &'a [T],
    v: &'a [T],
    y: *mut T,
}

impl<T: Element> Kernel<T> for Forward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let channels = self.v.len();
        for pixel in 0..self.x.len() / channels {
            let mut c = 0;
            while c < channels {
                let n = L::N.min(channels - c);
                let at = pixel * channels + c;
                // SAFETY: inside the sample, whose output is as long as its input.
                unsafe {
                    let x = lanes.load_part(self.x.as_ptr().add(at), n);
                    let v = lanes.load_part(self.v.as_ptr().add(c), n);
                    let y = match self.op {
                        PerChannel::Scale => lanes.mul(x, v),
                        PerChannel::Shift | PerChannel::Bias => lanes.add(x, v),
                    };
                    lanes.store_part(self.y.add(at), y, n);
                }
                c += n;
            }
        }
    }
}

/// One sample: `totals[c] = Σ dy·x` (or `Σ dy` without `x`) over its pixels.
struct Sums<'a, T> {
    dy: &'a [T],
    x: Option<&'a [T]>,
    totals: &'a mut [T],
}

impl<T: Element> Kernel<T> for Sums<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let channels = self.totals.len();
        for pixel in 0..self.dy.len() / channels {
            let mut c = 0;
            while c < channels {
                let n = L::N.min(channels - c);
                let at = pixel * channels + c;
                // SAFETY: inside the sample and its sums.
                unsafe {
                    let dy = lanes.load_part(self.dy.as_ptr().add(at), n);
                    let sum = lanes.load_part(self.totals.as_ptr().add(c), n);
                    let sum = match self.x {
                        Some(x) => lanes.fma(dy, lanes.load_part(x.as_ptr().add(at), n), sum),
                        None => lanes.add(dy, sum),
                    };
                    lanes.store_part(self.totals.as_mut_ptr().add(c), sum, n);
                }
                c += n;
            }
        }
    }
}

impl PerChannel {
    /// The values that sample `b` uses.
    fn of<T>(self, v: &[T], b: usize, channels: usize) -> &[T] {
        match self {
            Self::Scale | Self::Shift => &v[b * channels..(b + 1) * channels],
            Self::Bias => v,
        }
    }

    fn forward<T: Element>(self, x: &[T], v: &[T], batch: usize, channels: usize) -> Vec<T> {
        let image = x.len() / batch;
        // SAFETY: every sample is written by its own task.
        unsafe {
            par::filled(x.len(), |y: Shared<T>| {
                par::each(batch, |b| {
                    T::dispatch(Forward {
                        op: self,
                        x: &x[b * image..(b + 1) * image],
                        v: self.of(v, b, channels),
                        y: y.at(b * image),
                    });
                });
            })
        }
    }

    /// `Σ dy·x` or `Σ dy` of each sample, `[batch, channel]`.
    fn sums<T: Element>(self, x: &[T], dy: &[T], batch: usize, channels: usize) -> Vec<T> {
        let image = x.len() / batch;
        let mut sums = vec![T::default(); batch * channels];
        let shared = Shared::new(&mut sums);
        par::each(batch, |b| {
            let range = b * image..(b + 1) * image;
            T::dispatch(Sums {
                dy: &dy[range.clone()],
                x: (self == Self::Scale).then(|| &x[range]),
                // SAFETY: every sample has sums of its own.
                totals: unsafe {
                    std::slice::from_raw_parts_mut(shared.at(b * channels), channels)
                },
            });
        });
        sums
    }
}

impl CustomOp2 for PerChannel {
    fn name(&self) -> &'static str {
        match self {
            Self::Scale => "mixskd-scale-channels",
            Self::Shift => "mixskd-shift-channels",
            Self::Bias => "mixskd-add-bias",
        }
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, _, _, channels) = x_layout.shape().dims4()?;
        by_dtype!(x.dtype(), T => {
            let x = storage::slice::<T>(x, x_layout)?;
            let v = storage::slice::<T>(v, v_layout)?;
            let y = self.forward(x, v, batch, channels);
            Ok(storage::own(y, x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        v: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (batch, _, _, channels) = x.dims4()?;
        by_dtype!(x.dtype(), T => storage::with_slice::<T, _>(&dy, |dy_data| {
            let dx = match self {
                _ if !x.track_op() => None,
                Self::Shift | Self::Bias => Some(dy.clone()),
                Self::Scale => {
                    let dx = storage::with_slice::<T, _>(v, |v| {
                        Ok(self.forward(dy_data, v, batch, channels))
                    })?;
                    Some(Tensor::from_vec(dx, x.shape(), x.device())?)
                }
            };
            if !v.track_op() {
                return Ok((dx, None));
            }
            let sums = storage::with_slice::<T, _>(x, |x| {
                Ok(self.sums(x, dy_data, batch, channels))
            })?;
            let sums = Tensor::from_vec(sums, (batch, channels), x.device())?;
            let dv = match self {
                Self::Scale | Self::Shift => sums,
                Self::Bias => sums.sum(0)?,
            };
            Ok((dx, Some(dv)))
        }))
    }
}
