//! The way between candle tensors and slices.

use candle_core::{CpuStorage, DType, Layout, Shape, Storage, Tensor, bail};

use crate::gpu;
use crate::simd::Element;

/// Whether the CPU's kernels can run on all of `tensors`.
pub(crate) fn has_kernel(tensors: &[&Tensor]) -> bool {
    !gpu::is_emulating()
        && tensors.iter().all(|t| {
            t.device().is_cpu()
                && matches!(t.dtype(), DType::F32 | DType::F64)
                && t.dtype() == tensors[0].dtype()
        })
}

/// The elements behind a contiguous layout.
pub(crate) fn slice<'a, T: Element>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("kernel input is not contiguous");
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// The same, to be changed.
pub(crate) fn slice_mut<'a, T: Element>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [T]> {
    match (layout.contiguous_offsets(), T::elements_mut(storage)) {
        (Some((start, end)), Some(elements)) => Ok(&mut elements[start..end]),
        _ => bail!("kernel output is not contiguous or of another type"),
    }
}

/// Calls `work` with the elements of a contiguous CPU tensor.
pub(crate) fn with_slice<T: Element, R>(
    tensor: &Tensor,
    work: impl FnOnce(&[T]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => work(slice(storage, layout)?),
        _ => bail!("kernel input is not on the CPU"),
    }
}

/// [`with_slice`] where there is a tensor.
pub(crate) fn with_optional<T: Element, R>(
    tensor: Option<&Tensor>,
    work: impl FnOnce(Option<&[T]>) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    match tensor {
        Some(tensor) => with_slice(tensor, |slice| work(Some(slice))),
        None => work(None),
    }
}

/// Wraps a result for candle.
pub(crate) fn own<T: Element>(data: Vec<T>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (T::to_cpu_storage_owned(data), shape.into())
}

/// Runs a block of code with `$t` standing for the element type of a dtype.
macro_rules! by_dtype {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, "kernel").bt()),
        }
    };
}
pub(crate) use by_dtype;
