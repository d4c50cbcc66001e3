//! Convolution for inference: what is the same in every call is made once.

use std::sync::OnceLock;

use candle_core::{DType, Tensor};
use mixskd_cuda::norm::{self, Shape};
use mixskd_cuda::{Element, NULL};

use super::conv::{sizes, turned};
use super::memory::{Gpu, address, failed, kernel_for};
use crate::Result;
use crate::conv::Geometry;

/// What a convolution keeps on a GPU from call to call, for maps of each type.
#[derive(Debug, Default)]
pub(crate) struct GpuForms {
    f32: OnceLock<Ready>,
    bf16: OnceLock<Ready>,
}

/// The weight as cuDNN reads it, and what the pass behind it multiplies by and adds.
#[derive(Debug)]
struct Ready {
    weight: Tensor,
    bias: Tensor,
    zeros: Tensor,
    ones: Tensor,
}

impl Ready {
    fn new(
        gpu: &Gpu,
        g: &Geometry,
        w: &Tensor,
        bias: Option<&Tensor>,
        element: Element,
        dtype: DType,
    ) -> candle_core::Result<Self> {
        // The kernels' parameters are float, whatever the maps are.
        let ones = Tensor::ones(g.out_c, DType::F32, w.device())?;
        let zeros = ones.zeros_like()?;
        Ok(Self {
            weight: turned(gpu, g, &w.contiguous()?, element, dtype)?,
            bias: bias.map_or_else(|| Ok(zeros.clone()), Tensor::contiguous)?,
            zeros,
            ones,
        })
    }
}

/// `conv2d(x) + bias + residual`, with `relu` cut off at nothing: by cuDNN, and where there is anything to add or to cut off by the pass that
/// normalises. Not differentiable. `w`, `bias` and the channels of `g` are the same in every call with `forms`.
pub(crate) fn conv2d_infer(
    forms: &GpuForms,
    x: &Tensor,
    w: &Tensor,
    [bias, residual]: [Option<&Tensor>; 2],
    g: &Geometry,
    relu: bool,
) -> Result<Option<Tensor>> {
    let maps: Vec<_> = std::iter::once(x).chain(residual).collect();
    let floats: Vec<_> = std::iter::once(w).chain(bias).collect();
    let Some((gpu, element)) = kernel_for(&maps, &floats)? else {
        return Ok(None);
    };
    if g.is_empty() {
        return Ok(None);
    }
    let dtype = x.dtype();
    let kept = match element {
        Element::F32 => &forms.f32,
        Element::Bf16 => &forms.bf16,
    };
    let ready = if let Some(ready) = kept.get() {
        ready
    } else {
        let new = Ready::new(&gpu, g, w, bias, element, dtype)?;
        kept.get_or_init(|| new)
    };
    let x = x.contiguous()?;
    let shape = (g.batch, g.out_h, g.out_w, g.out_c);
    let y = gpu.empty(dtype, shape)?;
    // SAFETY: the arrays have the geometry's sizes.
    unsafe {
        let (x, w, y) = (address(&x)?, address(&ready.weight)?, address(&y)?);
        let cudnn = &gpu.convolutions;
        cudnn.forward(sizes(g, element), x, w, y).map_err(failed)?;
    }
    if bias.is_none() && residual.is_none() && !relu {
        return Ok(Some(y));
    }
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let added = residual.as_ref().map_or(Ok(NULL), address)?;
    let rows = Shape {
        rows: g.output_len() / g.out_c,
        channels: g.out_c,
        element,
    };
    let z = gpu.empty(dtype, shape)?;
    // SAFETY: the arrays are as long as the function asks.
    unsafe {
        let params = [address(&ready.ones)?, address(&ready.bias)?];
        let statistics = [address(&ready.zeros)?, address(&ready.ones)?];
        let engine = gpu.engine();
        norm::forward(
            engine,
            rows,
            address(&y)?,
            added,
            params,
            statistics,
            relu,
            address(&z)?,
        )
        .map_err(failed)?;
    }
    Ok(Some(z))
}
