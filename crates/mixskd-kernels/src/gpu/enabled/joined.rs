//! Maps joined by candle's copies, as nodes of the tape. Networks chain such joins, and what reads one lies between it and the next: as
//! expressions of candle's each would be gone back through once for every reader behind it.

use candle_core::{Shape, Tensor};

use super::memory::kernel_for;
use super::recorded::record;
use super::tape;
use crate::Result;

/// Whether `a` and `b` are maps of one type on a GPU that is being noted.
fn are_noted(a: &Tensor, b: &Tensor) -> Result<bool> {
    Ok(tape::is_running() && kernel_for(&[a, b], &[])?.is_some())
}

/// The tensor of `shape` that `fill` writes, a function of `a` and `b`.
fn made(
    name: &'static str,
    [a, b]: [&Tensor; 2],
    shape: Shape,
    fill: impl FnOnce(&Tensor) -> candle_core::Result<()>,
    backward: impl Fn(&Tensor) -> candle_core::Result<[Tensor; 2]> + Send + Sync + 'static,
) -> Result<Option<Tensor>> {
    let Some((gpu, _)) = kernel_for(&[a, b], &[])? else {
        return Ok(None);
    };
    let storage = gpu.storage(a.dtype(), shape.elem_count())?;
    let back = move |_: &[&Tensor], _: &Tensor, dy: &Tensor| Ok(backward(dy)?.map(Some).into());
    let y = record(name, &[a, b], storage, shape, back)?;
    fill(&y.detach())?;
    Ok(Some(y))
}

/// The channels of `a`, then those of `b`.
pub(crate) fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    if !are_noted(a, b)? {
        return Ok(None);
    }
    let (batch, height, width, left) = a.dims4()?;
    let right = b.dim(3)?;
    let shape = (batch, height, width, left + right).into();
    let fill = |y: &Tensor| {
        y.slice_set(&a.detach().contiguous()?, 3, 0)?;
        y.slice_set(&b.detach().contiguous()?, 3, left)
    };
    made("mixskd-cuda-concat", [a, b], shape, fill, move |dy| {
        let part = |at, count| dy.narrow(3, at, count)?.contiguous();
        Ok([part(0, left)?, part(left, right)?])
    })
}

/// `a + b`.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    if !are_noted(a, b)? {
        return Ok(None);
    }
    let fill = |y: &Tensor| y.slice_set(&(a.detach() + b.detach())?, 0, 0);
    made("mixskd-cuda-sum", [a, b], a.shape().clone(), fill, |dy| {
        Ok([dy.clone(), dy.clone()])
    })
}
