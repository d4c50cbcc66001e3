//! The number type losses are computed in.

use candle_core::{DType, Tensor};

use crate::Result;

/// The type a loss of `dtype` input is computed in: half precision is raised to f32, whose range its sums need.
pub(crate) fn compute_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// `x` in [`compute_dtype`]; no copy where it already is.
pub(crate) fn raised(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(compute_dtype(x.dtype()))?)
}

/// `x` in f64, for sums whose terms cancel. Metal knows no f64.
pub(crate) fn doubled(x: &Tensor) -> Result<Tensor> {
    Ok(if x.device().is_metal() {
        raised(x)?
    } else {
        x.to_dtype(DType::F64)?
    })
}
