//! Pooling.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use crate::par::{self, Shared};
use crate::record;
use crate::simd::{Element, Kernel, Lanes};
use crate::storage::{self, by_dtype};
use crate::{Error, Result, compose, gpu, shape};

/// Geometry of a pooling window, the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool2dConfig {
    /// Window side, in pixels.
    pub kernel: usize,
    /// Step, in pixels.
    pub stride: usize,
    /// Padding on each side, in pixels (−∞ for the maximum, zeros that count for the average, as PyTorch's defaults).
    pub padding: usize,
}

impl Pool2dConfig {
    /// Output height (or width) for an input of `input` pixels.
    ///
    /// # Errors
    /// When kernel or stride is zero or the window does not fit.
    pub fn out_size(&self, input: usize) -> Result<usize> {
        shape::window_out("pool2d", input, self.kernel, self.stride, self.padding, 1)
    }
}

/// What a window is reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Max,
    Mean,
}

/// Maximum over each window. The gradient goes to a window's first maximum, row by row.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, out_h, out_w, channel]`
///
/// # Errors
/// When the input is not four-dimensional or the window does not fit.
pub fn max_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    if config.padding > config.kernel / 2 {
        return Err(Error::Config {
            op: "max_pool2d",
            message: format!(
                "a padding of {} is more than half of the window of {}: some windows would see nothing else",
                config.padding, config.kernel
            ),
        });
    }
    let op = Pool::new(x, config, Reduction::Max)?;
    if let Some(y) = gpu::pool2d(x, config, Reduction::Max)? {
        return Ok(y);
    }
    match op {
        Some(op) => Ok(record::apply1(&x.contiguous()?, op)?),
        None => compose::max_pool2d(x, config),
    }
}

/// Mean over each window, padding counted.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, out_h, out_w, channel]`
///
/// # Errors
/// When the input is not four-dimensional or the window does not fit.
pub fn avg_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    let op = Pool::new(x, config, Reduction::Mean)?;
    if let Some(y) = gpu::pool2d(x, config, Reduction::Mean)? {
        return Ok(y);
    }
    match op {
        Some(op) => Ok(record::apply1(&x.contiguous()?, op)?),
        None => compose::avg_pool2d(x, config),
    }
}

/// Mean over height and width.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, channel]`
///
/// # Errors
/// When the input is not four-dimensional.
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = shape::nhwc("global_avg_pool2d", "input", x)?;
    if let Some(y) = gpu::global_avg_pool2d(x, false)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x]) || x.elem_count() == 0 {
        return compose::global_avg_pool2d(x);
    }
    let config = Pool2dConfig {
        kernel: 1,
        stride: 1,
        padding: 0,
    };
    let op = Pool {
        batch: b,
        input: (h, w),
        output: (1, 1),
        channels: c,
        window: (h, w),
        config,
        reduction: Reduction::Mean,
    };
    Ok(record::apply1(&x.contiguous()?, op)?.reshape((b, c))?)
}

/// [`global_avg_pool2d`], the means of type `dtype`.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, channel]`
///
/// # Errors
/// When the input is not four-dimensional.
pub fn global_avg_pool2d_as(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() != dtype
        && dtype == DType::F32
        && let Some(y) = gpu::global_avg_pool2d(x, true)?
    {
        return Ok(y);
    }
    Ok(global_avg_pool2d(x)?.to_dtype(dtype)?)
}

struct Pool {
    batch: usize,
    input: (usize, usize),
    output: (usize, usize),
    channels: usize,
    /// Window height and width; the config's own side stands for square windows only.
    window: (usize, usize),
    config: Pool2dConfig,
    reduction: Reduction,
}

impl Pool {
    /// Checks the geometry; none where this crate has no kernel for `x`.
    fn new(x: &Tensor, config: Pool2dConfig, reduction: Reduction) -> Result<Option<Self>> {
        let (batch, h, w, channels) = shape::nhwc("pool2d", "input", x)?;
        let output = (config.out_size(h)?, config.out_size(w)?);
        let runs = storage::has_kernel(&[x]) && x.elem_count() > 0;
        Ok(runs.then_some(Self {
            batch,
            input: (h, w),
            output,
            channels,
            window: (config.kernel, config.kernel),
            config,
            reduction,
        }))
    }

    /// The input rows (or columns) under window `at`, cut to the map.
    fn range(&self, at: usize, window: usize, size: usize) -> std::ops::Range<usize> {
        let start = at * self.config.stride;
        let end = (start + window).saturating_sub(self.config.padding);
        start.saturating_sub(self.config.padding).min(size)..end.min(size)
    }

    fn image(&self) -> usize {
        self.input.0 * self.input.1 * self.channels
    }

    fn pooled(&self) -> usize {
        self.output.0 * self.output.1 * self.channels
    }

    fn forward<T: Element>(&self, x: &[T]) -> Vec<T> {
        // SAFETY: a task writes all of its image's output.
        unsafe {
            par::filled(self.batch * self.pooled(), |y: Shared<T>| {
                par::each(self.batch, |b| {
                    T::dispatch(Forward {
                        pool: self,
                        x: &x[b * self.image()..(b + 1) * self.image()],
                        y: y.at(b * self.pooled()),
                    });
                });
            })
        }
    }

    fn backward<T: Element>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        // SAFETY: a task writes all of its image's gradient.
        unsafe {
            par::filled(self.batch * self.image(), |dx: Shared<T>| {
                par::each(self.batch, |b| {
                    let image = b * self.image()..(b + 1) * self.image();
                    let pooled = b * self.pooled()..(b + 1) * self.pooled();
                    let dx = dx.at(image.start);
                    dx.write_bytes(0, image.len());
                    T::dispatch(Backward {
                        pool: self,
                        x: &x[image],
                        y: &y[pooled.clone()],
                        dy: &dy[pooled],
                        dx,
                    });
                });
            })
        }
    }
}

struct Forward<'a, T> {
    pool: &'a Pool,
    x: &'a [T],
    y: *mut T,
}

impl<T: Element> Kernel<T> for Forward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let p = self.pool;
        let max = p.reduction == Reduction::Max;
        let start = if max {
            T::of(f64::NEG_INFINITY)
        } else {
            T::default()
        };
        let share = lanes.splat(T::of(1.0 / (p.window.0 * p.window.1) as f64));
        for at in 0..p.output.0 * p.output.1 {
            let rows = p.range(at / p.output.1, p.window.0, p.input.0);
            let columns = p.range(at % p.output.1, p.window.1, p.input.1);
            let mut c = 0;
            while c < p.channels {
                let n = L::N.min(p.channels - c);
                let mut v = lanes.splat(start);
                for row in rows.clone() {
                    for column in columns.clone() {
                        let from = (row * p.input.1 + column) * p.channels + c;
                        // SAFETY: the window is cut to the image.
                        let x = unsafe { lanes.load_part(self.x.as_ptr().add(from), n) };
                        v = if max {
                            lanes.max(v, x)
                        } else {
                            lanes.add(v, x)
                        };
                    }
                }
                if !max {
                    v = lanes.mul(v, share);
                }
                // SAFETY: inside this image's output.
                unsafe { lanes.store_part(self.y.add(at * p.channels + c), v, n) };
                c += n;
            }
        }
    }
}

struct Backward<'a, T> {
    pool: &'a Pool,
    x: &'a [T],
    y: &'a [T],
    dy: &'a [T],
    dx: *mut T,
}

impl<T: Element> Kernel<T> for Backward<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes<T = T>>(self, lanes: L) {
        let p = self.pool;
        let share = lanes.splat(T::of(1.0 / (p.window.0 * p.window.1) as f64));
        for at in 0..p.output.0 * p.output.1 {
            let rows = p.range(at / p.output.1, p.window.0, p.input.0);
            let columns = p.range(at % p.output.1, p.window.1, p.input.1);
            let out = at * p.channels;
            if p.reduction == Reduction::Max {
                // Which tap won differs from channel to channel, so channels go one by one.
                for c in 0..p.channels {
                    let mut taps = rows.clone().flat_map(|row| {
                        columns
                            .clone()
                            .map(move |column| (row * p.input.1 + column) * p.channels + c)
                    });
                    if let Some(won) = taps.find(|&from| self.x[from] == self.y[out + c]) {
                        // SAFETY: inside this image's gradient.
                        unsafe { *self.dx.add(won) += self.dy[out + c] };
                    }
                }
                continue;
            }
            let mut c = 0;
            while c < p.channels {
                let n = L::N.min(p.channels - c);
                // SAFETY: inside this image's output gradient; the window is cut to the image.
                unsafe {
                    let g = lanes.load_part(self.dy.as_ptr().add(out + c), n);
                    let g = lanes.mul(g, share);
                    for row in rows.clone() {
                        for column in columns.clone() {
                            let to = self.dx.add((row * p.input.1 + column) * p.channels + c);
                            lanes.store_part(to, lanes.add(lanes.load_part(to, n), g), n);
                        }
                    }
                }
                c += n;
            }
        }
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "mixskd-pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = (self.batch, self.output.0, self.output.1, self.channels);
        by_dtype!(x.dtype(), T => {
            Ok(storage::own(self.forward::<T>(storage::slice(x, layout)?), shape))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => {
            let dx = storage::with_slice::<T, _>(x, |x| {
                storage::with_slice::<T, _>(y, |y| {
                    storage::with_slice::<T, _>(&dy, |dy| Ok(self.backward(x, y, dy)))
                })
            })?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}
