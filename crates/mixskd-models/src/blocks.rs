//! Convolutions as networks ask for them: sizes, names, and batch norm beside them.

use candle_nn::VarBuilder;
use mixskd_kernels::Conv2dConfig;

use crate::Result;
use crate::layers::{BatchNorm, Conv2d, ConvInit, ConvNorm, NormRelu};

/// Channels and window of a convolution whose padding keeps the size at stride 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
    pub(crate) init: ConvInit,
}

impl Window {
    /// Every output channel sees every input channel; stride 1, `N(0, 2 / fan_out)`.
    pub(crate) fn new(input: usize, output: usize, kernel: usize) -> Self {
        Self {
            input,
            output,
            kernel,
            stride: 1,
            dilation: 1,
            groups: 1,
            init: ConvInit::FanOut,
        }
    }

    /// Every channel sees itself alone.
    pub(crate) fn depthwise(channels: usize, kernel: usize) -> Self {
        Self {
            groups: channels,
            ..Self::new(channels, channels, kernel)
        }
    }

    pub(crate) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(crate) fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    pub(crate) fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    pub(crate) fn init(self, init: ConvInit) -> Self {
        Self { init, ..self }
    }

    fn config(self) -> Conv2dConfig {
        Conv2dConfig {
            stride: self.stride,
            padding: self.kernel / 2 * self.dilation,
            dilation: self.dilation,
            groups: self.groups,
        }
    }

    /// The convolution, its weight below `vb`.
    pub(crate) fn conv(self, vb: VarBuilder) -> Result<Conv2d> {
        let config = self.config();
        Conv2d::new(self.input, self.output, self.kernel, config, self.init, vb)
    }

    /// The convolution with a bias.
    pub(crate) fn conv_with_bias(self, vb: VarBuilder) -> Result<Conv2d> {
        let config = self.config();
        Conv2d::with_bias(self.input, self.output, self.kernel, config, self.init, vb)
    }

    /// The convolution and its batch norm, under the names `conv` and `norm` below `vb`.
    pub(crate) fn conv_norm(
        self,
        relu: bool,
        vb: &VarBuilder,
        (conv, norm): (&str, &str),
    ) -> Result<ConvNorm> {
        Ok(ConvNorm {
            conv: self.conv(vb.pp(conv))?,
            norm: BatchNorm::new(self.output, vb.pp(norm))?,
            relu,
        })
    }
}

/// Batch norm and ReLU, parameters below `vb`.
pub(crate) fn norm_relu(channels: usize, vb: VarBuilder) -> Result<NormRelu> {
    Ok(NormRelu(BatchNorm::new(channels, vb)?))
}

/// `value` rounded to a multiple of 8, at least 8 and not more than a tenth below `value`: how the MobileNets and
/// EfficientNets round scaled channels (torchvision's `_make_divisible`).
pub(crate) fn divisible(value: f64) -> usize {
    let rounded = (((value + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f64) < 0.9 * value {
        rounded + 8
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::divisible;

    #[test]
    fn rounding_is_torchvisions() {
        // torchvision.models._utils._make_divisible(value, 8)
        let known = [
            (0.5, 8),
            (12.0, 16),
            (11.9, 16),
            (20.0, 24),
            (92.5, 96),
            (33.6, 32),
            (36.0, 40),
            (1280.0, 1280),
        ];
        for (value, expected) in known {
            assert_eq!(divisible(value), expected, "{value}");
        }
    }
}
