//! Pooling.

use candle_core::Tensor;

use crate::{Result, compose, shape};

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

fn check(x: &Tensor, config: Pool2dConfig) -> Result<()> {
    let (_, h, w, _) = shape::nhwc("pool2d", "input", x)?;
    config.out_size(h)?;
    config.out_size(w)?;
    Ok(())
}

/// Maximum over each window.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, out_h, out_w, channel]`
///
/// # Errors
/// When the input is not four-dimensional or the window does not fit.
pub fn max_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    check(x, config)?;
    compose::max_pool2d(x, config)
}

/// Mean over each window, padding counted.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, out_h, out_w, channel]`
///
/// # Errors
/// When the input is not four-dimensional or the window does not fit.
pub fn avg_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    check(x, config)?;
    compose::avg_pool2d(x, config)
}

/// Mean over height and width.
///
/// # Shapes
/// `[batch, height, width, channel]` → `[batch, channel]`
///
/// # Errors
/// When the input is not four-dimensional.
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    shape::nhwc("global_avg_pool2d", "input", x)?;
    compose::global_avg_pool2d(x)
}
