//! Maps joined by candle's copies, as nodes of the tape. Networks chain such joins, and what reads one lies between it and the next: as
//! expressions of candle's each would be gone back through once for every reader behind it.

use candle_core::{Shape, Tensor};

use super::memory::kernel_for;
use super::recorded::record;
use super::tape;
use crate::Result;

/// The tensor of `shape` that `fill` writes, a function of `a` and `b`, where a tape notes what is done with them.
fn made(
    name: &'static str,
    [a, b]: [&Tensor; 2],
    shape: impl Into<Shape>,
    fill: impl FnOnce(&Tensor) -> candle_core::Result<()>,
    backward: impl Fn(&Tensor) -> candle_core::Result<[Tensor; 2]> + Send + Sync + 'static,
) -> Result<Option<Tensor>> {
    if !tape::is_running() {
        return Ok(None);
    }
    let Some((gpu, _)) = kernel_for(&[a, b], &[])? else {
        return Ok(None);
    };
    let shape = shape.into();
    let storage = gpu.storage(a.dtype(), shape.elem_count())?;
    let back = move |_: &[&Tensor], _: &Tensor, dy: &Tensor| Ok(backward(dy)?.map(Some).into());
    let y = record(name, &[a, b], storage, shape, back)?;
    fill(&y.detach())?;
    Ok(Some(y))
}

/// The channels of `a`, then those of `b`.
pub(crate) fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    let (batch, height, width, left) = a.dims4()?;
    let right = b.dim(3)?;
    let shape = (batch, height, width, left + right);
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
    let fill = |y: &Tensor| y.slice_set(&(a.detach() + b.detach())?, 0, 0);
    made("mixskd-cuda-sum", [a, b], a.shape(), fill, |dy| {
        Ok([dy.clone(), dy.clone()])
    })
}
