//! Mean squared difference of feature maps.

use candle_core::{DType, Tensor};
use mixskd_kernels::has_gpu_kernels;

use crate::precision::raised;
use crate::{Error, Result, check};

/// `mean((a − b)²)` over every element (MixSKD, Yang et al. 2022, the feature loss: `a` the interpolated map `F̂_k`, `b`
/// the mix's map `F_k(x̃)`).
///
/// Reduction: mean over all elements. Temperature: none. Detached: neither side; the gradient flows through both.
///
/// # Shapes
/// - `a`, `b`: the same shape, `[batch, height, width, channel]` for feature maps
/// - result: `[]`
///
/// # Errors
/// When the shapes differ or hold no element, or the elements are no floats.
pub fn feature_mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.elem_count() == 0 {
        return Err(Error::Shape {
            op: "feature_mse",
            what: "a".into(),
            wanted: "at least one element".into(),
            got: a.dims().to_vec(),
        });
    }
    check::exactly("feature_mse", "b", b, a.dims())?;
    check::floats("feature_mse", "a", a)?;
    check::floats("feature_mse", "b", b)?;
    // A GPU's kernel adds in float whatever it reads.
    if a.dtype() == DType::BF16 && b.dtype() == DType::BF16 && has_gpu_kernels(a.device()) {
        return Ok(mixskd_kernels::mse(a, b)?);
    }
    Ok(mixskd_kernels::mse(&raised(a)?, &raised(b)?)?)
}
