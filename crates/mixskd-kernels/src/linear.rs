//! Fully connected layer.

use candle_core::Tensor;

use crate::{Error, Result, compose, shape};

/// `x · weightᵀ + bias`.
///
/// # Shapes
/// - `x`: `[batch, in]`, `weight`: `[out, in]`, `bias`: `[out]`
/// - result: `[batch, out]`
///
/// # Errors
/// When a shape does not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (_, input) = x.dims2().map_err(|_| Error::Shape {
        op: "linear",
        what: "input",
        wanted: "[batch, in]".into(),
        got: x.dims().to_vec(),
    })?;
    let out = weight.dims().first().copied().unwrap_or(0);
    shape::exactly("linear", "weight", weight, &[out, input])?;
    if let Some(bias) = bias {
        shape::exactly("linear", "bias", bias, &[out])?;
    }
    compose::linear(x, weight, bias)
}
