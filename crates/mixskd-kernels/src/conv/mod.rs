//! 2-D convolution.

mod config;
mod depthwise;
mod epilogue;
mod gather;
mod grouped;
mod padded;
mod panels;
mod prepared;
mod weight_gradient;
mod winograd;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use crate::record;
use crate::simd::Element;
use crate::storage::{self, by_dtype};
use crate::{Result, compose, gpu};

pub(crate) use config::Geometry;

pub use config::Conv2dConfig;
pub use epilogue::Activation;
pub use prepared::PreparedConv2d;

/// 2-D cross-correlation, what deep learning calls convolution, without bias.
///
/// # Shapes
/// - `x`: `[batch, height, width, in]`
/// - `weight`: `[out, in / groups, kernel_h, kernel_w]`
/// - result: `[batch, out_h, out_w, out]`
///
/// # Errors
/// When a shape does not fit, or the window does not fit the padded input.
pub fn conv2d(x: &Tensor, weight: &Tensor, config: Conv2dConfig) -> Result<Tensor> {
    let geometry = Geometry::new(x, weight.dims(), config)?;
    if let Some(y) = gpu::conv2d(x, weight, &geometry)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, weight]) || geometry.is_empty() {
        return compose::conv2d(x, weight, config);
    }
    Ok(record::apply2(
        &x.contiguous()?,
        &weight.contiguous()?,
        Conv2d(geometry),
    )?)
}

/// The output.
pub(crate) fn forward<T: Element>(g: &Geometry, x: &[T], w: &[T]) -> Vec<T> {
    if depthwise::applies(g) {
        depthwise::forward(g, x, &depthwise::by_tap(g, w), None)
    } else if let Some(wide) = grouped::joined(g) {
        forward(&wide, x, &grouped::join(g, &wide, w))
    } else if winograd::wins(g) {
        winograd::forward(g, x, w)
    } else {
        gather::forward(g, x, &gather::Weights::new(g, w), None)
    }
}

/// The gradient of the input.
pub(crate) fn input_gradient<T: Element>(g: &Geometry, dy: &[T], w: &[T]) -> Vec<T> {
    if depthwise::applies(g) {
        depthwise::input_gradient(g, dy, &depthwise::by_tap(g, w))
    } else if let Some(wide) = grouped::joined(g) {
        input_gradient(&wide, dy, &grouped::join(g, &wide, w))
    } else if winograd::wins(g) {
        winograd::input_gradient(g, dy, w)
    } else {
        gather::input_gradient(g, dy, w)
    }
}

/// The gradient of the weight.
pub(crate) fn weight_gradient<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    if depthwise::applies(g) {
        depthwise::weight_gradient(g, x, dy)
    } else if let Some(wide) = grouped::joined(g) {
        grouped::split(g, &wide, &weight_gradient(&wide, x, dy))
    } else if winograd::wins(g) {
        winograd::weight_gradient(g, x, dy)
    } else if panels::applies(g) {
        panels::weight_gradient(g, x, dy)
    } else {
        weight_gradient::weight_gradient(g, x, dy)
    }
}

struct Conv2d(Geometry);

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "mixskd-conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let g = &self.0;
        let shape = (g.batch, g.out_h, g.out_w, g.out_c);
        by_dtype!(x.dtype(), T => {
            let (x, w) = (
                storage::slice::<T>(x, x_layout)?,
                storage::slice::<T>(w, w_layout)?,
            );
            Ok(storage::own(forward(g, x, w), shape))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let g = &self.0;
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => storage::with_slice::<T, _>(&dy, |dy_data| {
            let dx = if x.track_op() {
                let data = storage::with_slice(w, |w| Ok(input_gradient(g, dy_data, w)))?;
                Some(Tensor::from_vec(data, x.shape(), x.device())?)
            } else {
                None
            };
            let dw = if w.track_op() {
                let data = storage::with_slice(x, |x| Ok(weight_gradient(g, x, dy_data)))?;
                Some(Tensor::from_vec(data, w.shape(), w.device())?)
            } else {
                None
            };
            Ok((dx, dw))
        }))
    }
}
