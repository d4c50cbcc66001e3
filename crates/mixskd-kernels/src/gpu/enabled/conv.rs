//! Convolution by cuDNN.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use mixskd_cuda::Element;
use mixskd_cuda::convolution::{Arithmetic, Convolution};
use mixskd_cuda::update::{self, Turn};

use super::later;
use super::memory::{Gpu, address, failed, kernel_for, start};
use super::recorded::record;
use crate::Result;
use crate::conv::Geometry;

static TF32: AtomicBool = AtomicBool::new(false);

/// Whether float convolutions and matrix products on a GPU may cut factors to TensorFloat-32's ten bits; at first they may not.
pub fn set_tf32(on: bool) {
    TF32.store(on, Ordering::Relaxed);
    #[cfg(feature = "cuda")]
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(on);
}

/// What has come up since this was last asked about how a GPU computes convolutions, such as that their bits do not repeat; each text once in a process.
pub fn gpu_notices() -> Vec<String> {
    #[cfg(feature = "cuda")]
    return mixskd_cuda::convolution::take_notices();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

pub(super) fn sizes(g: &Geometry, element: Element) -> Convolution {
    Convolution {
        input: [g.batch, g.in_h, g.in_w, g.in_c],
        output: [g.batch, g.out_h, g.out_w, g.out_c],
        kernel: [g.kernel_h, g.kernel_w],
        stride: g.config.stride,
        padding: g.config.padding,
        dilation: g.config.dilation,
        groups: g.config.groups,
        element,
        arithmetic: if TF32.load(Ordering::Relaxed) {
            Arithmetic::Tf32
        } else {
            Arithmetic::Exact
        },
    }
}

/// A weight's change of order.
fn turn(g: &Geometry, from: &Tensor, to: &Tensor) -> candle_core::Result<Turn> {
    Ok(Turn {
        out: g.out_c,
        input: g.in_group(),
        taps: g.taps(),
        from: address(from)?,
        to: address(to)?,
    })
}

/// The weight in the order and type of the maps.
pub(super) fn turned(
    gpu: &Gpu,
    g: &Geometry,
    w: &Tensor,
    kind: Element,
    dtype: DType,
) -> candle_core::Result<Tensor> {
    if g.taps() == 1 && dtype == DType::F32 {
        return Ok(w.detach());
    }
    if let Some(turned) = later::turned(w, dtype) {
        return Ok(turned);
    }
    let to = gpu.empty(dtype, w.elem_count())?;
    // SAFETY: both have as many elements as the weight.
    unsafe { update::taps_first(gpu.engine(), kind, &[turn(g, w, &to)?]) }.map_err(failed)?;
    Ok(to)
}

pub(crate) fn conv2d(x: &Tensor, w: &Tensor, g: &Geometry) -> Result<Option<Tensor>> {
    let Some((gpu, element)) = kernel_for(&[x], &[w])? else {
        return Ok(None);
    };
    if g.is_empty() {
        return Ok(None);
    }
    let sizes = sizes(g, element);
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let dtype = x.dtype();
    let turned = turned(&gpu, g, &w, element, dtype)?;
    let geometry = *g;
    let y = gpu.storage(dtype, g.output_len())?;
    // SAFETY: the arrays have the geometry's sizes.
    unsafe {
        gpu.convolutions
            .forward(sizes, address(&x)?, address(&turned)?, start(&y)?)
            .map_err(failed)?;
    }
    let shape = (g.batch, g.out_h, g.out_w, g.out_c);
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let (x, w) = (inputs[0], inputs[1]);
        let back = Back {
            gpu: &gpu,
            sizes,
            geometry,
            dy,
        };
        // First what goes beside.
        let dw = if w.track_op() {
            back.weight(x, w)?
        } else {
            None
        };
        let dx = x.track_op().then(|| back.input(x, &turned)).transpose()?;
        Ok(vec![dx, dw])
    };
    let y = record("mixskd-cuda-conv2d", &[&x, &w], y, shape, backward)?;
    Ok(Some(y))
}

/// The way back through one convolution.
struct Back<'a> {
    gpu: &'a Arc<Gpu>,
    sizes: Convolution,
    geometry: Geometry,
    dy: &'a Tensor,
}

impl Back<'_> {
    fn input(&self, x: &Tensor, turned: &Tensor) -> candle_core::Result<Tensor> {
        let dx = self.gpu.empty(x.dtype(), x.shape())?;
        // SAFETY: the arrays have the convolution's sizes.
        unsafe {
            let (w, dy, dx) = (address(turned)?, address(self.dy)?, address(&dx)?);
            let cudnn = &self.gpu.convolutions;
            cudnn.data_gradient(self.sizes, w, dy, dx).map_err(failed)?;
        }
        Ok(dx)
    }

    /// `None` where it is put off.
    fn weight(&self, x: &Tensor, w: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (gpu, g) = (self.gpu, &self.geometry);
        let turned = gpu.empty(x.dtype(), w.elem_count())?;
        if later::may_be_put_off(w) {
            let sizes = [g.out_c, g.in_group(), g.taps()];
            later::put_off(gpu, self.sizes, sizes, [x, self.dy, &turned, w])?;
            return Ok(None);
        }
        // SAFETY: the arrays have the convolution's sizes.
        unsafe {
            let (x, dy, dw) = (address(x)?, address(self.dy)?, address(&turned)?);
            let cudnn = &gpu.convolutions;
            cudnn
                .filter_gradient(self.sizes, x, dy, dw)
                .map_err(failed)?;
        }
        if g.taps() == 1 && x.dtype() == DType::F32 {
            return turned.reshape(w.shape()).map(Some);
        }
        let dw = gpu.empty(DType::F32, w.shape())?;
        let turn = turn(g, &turned, &dw)?;
        // SAFETY: both have as many elements as the weight.
        unsafe { update::taps_last(gpu.engine(), self.sizes.element, &[turn]) }.map_err(failed)?;
        Ok(Some(dw))
    }
}
