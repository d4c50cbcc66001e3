//! Convolution with weights made ready once, for inference.

use std::sync::OnceLock;

use candle_core::{DType, Tensor};

use crate::simd::Element;
use crate::storage;
use crate::{Activation, Conv2dConfig, Result, compose, gpu, relu6, shape, silu};

use super::config::Geometry;
use super::epilogue::Epilogue;
use super::{depthwise, gather, grouped, winograd};

/// A convolution for inference: `activation(conv2d(x) + bias + residual)`, written in one pass.
///
/// The weight is packed, and transformed for Winograd's convolution where that is faster, at the first call that wants
/// it so and then kept; batch norm is folded into weight and bias beforehand. Not differentiable.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mixskd_kernels::{Activation, Conv2dConfig, PreparedConv2d};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cpu = Device::Cpu;
/// let weight = Tensor::ones((16, 3, 3, 3), DType::F32, &cpu)?;
/// let bias = Tensor::zeros(16, DType::F32, &cpu)?;
/// let same = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
/// let conv = PreparedConv2d::new(&weight, Some(&bias), same, Activation::Relu)?;
///
/// let images = Tensor::ones((2, 8, 8, 3), DType::F32, &cpu)?;
/// assert_eq!(conv.forward(&images, None)?.dims(), [2, 8, 8, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PreparedConv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
    activation: Activation,
    f32: Forms<f32>,
    f64: Forms<f64>,
    gpu: gpu::GpuForms,
}

/// The weight in the forms that kernels read it in, each made when it is first wanted.
#[derive(Debug)]
struct Forms<T> {
    direct: OnceLock<gather::Weights<T>>,
    winograd: OnceLock<Vec<T>>,
    depthwise: OnceLock<Vec<T>>,
}

impl<T> Default for Forms<T> {
    fn default() -> Self {
        Self {
            direct: OnceLock::new(),
            winograd: OnceLock::new(),
            depthwise: OnceLock::new(),
        }
    }
}

impl PreparedConv2d {
    /// Takes the weights over; they are detached from any graph.
    ///
    /// # Shapes
    /// - `weight`: `[out, in / groups, kernel_h, kernel_w]`
    /// - `bias`: `[out]`
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: Conv2dConfig,
        activation: Activation,
    ) -> Result<Self> {
        let (out, ..) = weight.dims4()?;
        if let Some(bias) = bias {
            shape::exactly("conv2d", "bias", bias, &[out])?;
        }
        Ok(Self {
            weight: weight.detach().contiguous()?,
            bias: bias.map(|b| b.detach().contiguous()).transpose()?,
            config,
            activation,
            f32: Forms::default(),
            f64: Forms::default(),
            gpu: gpu::GpuForms::default(),
        })
    }

    /// The weight as it was given.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias as it was given.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Stride, padding, dilation and groups.
    pub fn config(&self) -> Conv2dConfig {
        self.config
    }

    /// What is applied last.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// `activation(conv2d(x) + bias + residual)`.
    ///
    /// # Shapes
    /// - `x`: `[batch, height, width, in]`
    /// - `residual`, result: `[batch, out_h, out_w, out]`
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let g = Geometry::new(x, self.weight.dims(), self.config)?;
        let shape = [g.batch, g.out_h, g.out_w, g.out_c];
        if let Some(residual) = residual {
            shape::exactly("conv2d", "residual", residual, &shape)?;
        }
        let relu = self.activation == Activation::Relu;
        let added = [self.bias.as_ref(), residual];
        if let Some(y) = gpu::conv2d_infer(&self.gpu, x, &self.weight, added, &g, relu)? {
            return match self.activation {
                Activation::None | Activation::Relu => Ok(y),
                Activation::Relu6 => relu6(&y),
                Activation::Silu => silu(&y),
            };
        }
        let mut all = vec![x, &self.weight];
        all.extend(residual);
        all.extend(&self.bias);
        if !storage::has_kernel(&all) || g.is_empty() {
            let bias = self.bias.as_ref();
            return compose::conv2d_infer(
                x,
                &self.weight,
                bias,
                residual,
                self.config,
                self.activation,
            );
        }
        let x = x.contiguous()?;
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let y = match x.dtype() {
            DType::F32 => self.run(&self.f32, &g, &x, residual.as_ref())?,
            _ => self.run(&self.f64, &g, &x, residual.as_ref())?,
        };
        Ok(y)
    }

    fn run<T: Element>(
        &self,
        forms: &Forms<T>,
        g: &Geometry,
        x: &Tensor,
        residual: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let data = storage::with_slice::<T, _>(x, |x| {
            storage::with_slice::<T, _>(&self.weight, |w| {
                storage::with_optional::<T, _>(self.bias.as_ref(), |bias| {
                    storage::with_optional::<T, _>(residual, |residual| {
                        let epilogue = Epilogue {
                            bias,
                            residual,
                            activation: self.activation,
                        };
                        Ok(forms.forward(g, x, w, epilogue))
                    })
                })
            })
        })?;
        Tensor::from_vec(data, (g.batch, g.out_h, g.out_w, g.out_c), x.device())
    }
}

impl<T: Element> Forms<T> {
    fn forward(&self, g: &Geometry, x: &[T], w: &[T], epilogue: Epilogue<'_, T>) -> Vec<T> {
        let epilogue = Some(epilogue);
        if depthwise::applies(g) {
            let weights = self.depthwise.get_or_init(|| depthwise::by_tap(g, w));
            return depthwise::forward(g, x, weights, epilogue);
        }
        if winograd::wins_prepared(g) {
            let u = self.winograd.get_or_init(|| winograd::prepare(g, w));
            return winograd::forward_prepared(g, x, u, epilogue);
        }
        if let Some(wide) = grouped::joined(g) {
            let join = || gather::Weights::new(&wide, &grouped::join(g, &wide, w));
            return gather::forward(&wide, x, self.direct.get_or_init(join), epilogue);
        }
        let pack = || gather::Weights::new(g, w);
        gather::forward(g, x, self.direct.get_or_init(pack), epilogue)
    }
}
