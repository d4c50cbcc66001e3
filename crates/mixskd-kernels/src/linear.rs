//! Fully connected layer.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use crate::gemm::{self, Matrix};
use crate::record;
use crate::simd::Element;
use crate::storage::{self, by_dtype};
use crate::{Error, Result, compose, gpu, shape};

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
    if let Some(y) = gpu::linear(x, weight, bias)? {
        return Ok(y);
    }
    if !storage::has_kernel(&[x, weight]) || x.elem_count() == 0 || out == 0 {
        return compose::linear(x, weight, bias);
    }
    let y = record::apply2(&x.contiguous()?, &weight.contiguous()?, Linear)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "mixskd-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, input) = x_layout.shape().dims2()?;
        let (out, _) = w_layout.shape().dims2()?;
        by_dtype!(x.dtype(), T => {
            let x = Matrix::rows(storage::slice::<T>(x, x_layout)?, input);
            let w = Matrix::rows(storage::slice::<T>(w, w_layout)?, input);
            Ok(storage::own(gemm::multiply(x, w.transposed()), (batch, out)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        by_dtype!(x.dtype(), T => gradients::<T>(x, w, &dy))
    }
}

fn gradients<T: Element>(
    x: &Tensor,
    w: &Tensor,
    dy: &Tensor,
) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
    let (out, input) = w.dims2()?;
    storage::with_slice::<T, _>(dy, |dy| {
        let dy = Matrix::rows(dy, out);
        let dx = if x.track_op() {
            let data =
                storage::with_slice::<T, _>(w, |w| Ok(gemm::multiply(dy, Matrix::rows(w, input))))?;
            Some(Tensor::from_vec(data, x.shape(), x.device())?)
        } else {
            None
        };
        let dw = if w.track_op() {
            let data = storage::with_slice::<T, _>(x, |x| {
                Ok(gemm::multiply(dy.transposed(), Matrix::rows(x, input)))
            })?;
            Some(Tensor::from_vec(data, w.shape(), w.device())?)
        } else {
            None
        };
        Ok((dx, dw))
    })
}
