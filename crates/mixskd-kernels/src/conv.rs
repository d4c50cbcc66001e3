//! 2-D convolution.

use candle_core::Tensor;

use crate::{Error, Result, compose, shape};

/// Geometry of a 2-D convolution, the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Step of the window, in pixels.
    pub stride: usize,
    /// Zeros added on each side, in pixels.
    pub padding: usize,
    /// Distance between neighbouring taps, in pixels.
    pub dilation: usize,
    /// Number of channel groups; equal to the input channels for a depthwise convolution.
    pub groups: usize,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self {
            stride: 1,
            padding: 0,
            dilation: 1,
            groups: 1,
        }
    }
}

impl Conv2dConfig {
    /// Output height (or width) for an input of `input` pixels and a window of `kernel` taps.
    ///
    /// # Errors
    /// When stride, dilation or kernel is zero, or the window does not fit the padded input.
    pub fn out_size(&self, input: usize, kernel: usize) -> Result<usize> {
        shape::window_out(
            "conv2d",
            input,
            kernel,
            self.stride,
            self.padding,
            self.dilation,
        )
    }
}

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
    let (_, h, w, c) = shape::nhwc("conv2d", "input", x)?;
    let (out, in_group, kh, kw) = weight.dims4().map_err(|_| Error::Shape {
        op: "conv2d",
        what: "weight",
        wanted: "[out, in / groups, kernel_h, kernel_w]".into(),
        got: weight.dims().to_vec(),
    })?;
    if config.groups == 0 || c != in_group * config.groups || out % config.groups != 0 {
        return Err(Error::Shape {
            op: "conv2d",
            what: "weight",
            wanted: format!(
                "[out, {c} / {}, kernel_h, kernel_w] with out a multiple of the groups",
                config.groups
            ),
            got: weight.dims().to_vec(),
        });
    }
    config.out_size(h, kh)?;
    config.out_size(w, kw)?;
    compose::conv2d(x, weight, config)
}
