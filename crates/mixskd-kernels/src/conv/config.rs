//! Geometry of a convolution.

use candle_core::Tensor;

use crate::{Error, Result, shape};

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

/// All sizes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) in_h: usize,
    pub(crate) in_w: usize,
    pub(crate) in_c: usize,
    pub(crate) out_h: usize,
    pub(crate) out_w: usize,
    pub(crate) out_c: usize,
    pub(crate) kernel_h: usize,
    pub(crate) kernel_w: usize,
    pub(crate) config: Conv2dConfig,
}

impl Geometry {
    /// Checks and collects the sizes; `weight` is `[out, in / groups, kernel_h, kernel_w]`.
    pub(crate) fn new(x: &Tensor, weight: &[usize], config: Conv2dConfig) -> Result<Self> {
        let (batch, in_h, in_w, in_c) = shape::nhwc("conv2d", "input", x)?;
        let bad_weight = |wanted: String| Error::Shape {
            op: "conv2d",
            what: "weight",
            wanted,
            got: weight.to_vec(),
        };
        let &[out_c, in_group, kernel_h, kernel_w] = weight else {
            return Err(bad_weight("[out, in / groups, kernel_h, kernel_w]".into()));
        };
        let fits = in_group.checked_mul(config.groups) == Some(in_c);
        if config.groups == 0 || !fits || out_c % config.groups != 0 {
            return Err(bad_weight(format!(
                "[out, {in_c} / {}, kernel_h, kernel_w] with out a multiple of the groups, for an input of {:?}, channels last",
                config.groups,
                x.dims()
            )));
        }
        Ok(Self {
            batch,
            in_h,
            in_w,
            in_c,
            out_h: config.out_size(in_h, kernel_h)?,
            out_w: config.out_size(in_w, kernel_w)?,
            out_c,
            kernel_h,
            kernel_w,
            config,
        })
    }

    /// Whether there is nothing to sum or nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.output_len() == 0 || self.in_c == 0
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel_h * self.kernel_w
    }

    /// Input channels of one group.
    pub(crate) fn in_group(&self) -> usize {
        self.in_c / self.config.groups
    }

    /// Output channels of one group.
    pub(crate) fn out_group(&self) -> usize {
        self.out_c / self.config.groups
    }

    pub(crate) fn input_len(&self) -> usize {
        self.batch * self.in_h * self.in_w * self.in_c
    }

    pub(crate) fn output_len(&self) -> usize {
        self.batch * self.out_h * self.out_w * self.out_c
    }

    pub(crate) fn weight_len(&self) -> usize {
        self.out_c * self.in_group() * self.taps()
    }
}
