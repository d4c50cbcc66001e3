//! The layer that turns a discriminator's gradient round.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Shape, Tensor};

use crate::{Error, Result};

/// Gradient reversal: the identity forward, `−scale` times the gradient backward (Ganin & Lempitsky 2015). Between
/// features and a discriminator it makes the features learn to deceive what the discriminator learns to tell.
///
/// # Shapes
/// `x` and the result agree.
///
/// # Errors
/// When `scale` is not finite or is negative.
///
/// # Example
/// ```
/// use candle_core::{Device, Var};
///
/// let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
/// let y = mixskd_losses::gradient_reversal(&x, 0.5)?;
/// assert_eq!(y.to_vec1::<f32>()?, [1.0, 2.0]);
/// let grads = y.sum_all()?.backward()?;
/// assert_eq!(grads.get(&x).map(|g| g.to_vec1::<f32>()).transpose()?, Some(vec![-0.5, -0.5]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn gradient_reversal(x: &Tensor, scale: f64) -> Result<Tensor> {
    if !scale.is_finite() || scale < 0.0 {
        return Err(Error::Range {
            key: "gradient_reversal scale",
            value: scale,
            hint: "the scale of a reversed gradient is a finite number, 0 or more; usually 1",
        });
    }
    Ok(x.apply_op1(GradientReversal { scale })?)
}

struct GradientReversal {
    scale: f64,
}

/// A contiguous copy: `1·x + 0`, which every backend does for any strides and changes no finite value.
fn copy<S: BackendStorage>(storage: &S, layout: &Layout) -> candle_core::Result<(S, Shape)> {
    Ok((storage.affine(layout, 1.0, 0.0)?, layout.shape().clone()))
}

impl CustomOp1 for GradientReversal {
    fn name(&self) -> &'static str {
        "gradient-reversal"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        copy(s, l)
    }

    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        copy(s, l)
    }

    fn metal_fwd(
        &self,
        s: &MetalStorage,
        l: &Layout,
    ) -> candle_core::Result<(MetalStorage, Shape)> {
        copy(s, l)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        grad.affine(-self.scale, 0.0).map(Some)
    }
}
