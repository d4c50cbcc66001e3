//! Maps joined and added up, as nodes of the tape. Networks chain such joins, and what reads one lies between it and the next: as
//! expressions of candle's each would be gone back through once for every reader behind it.

use candle_core::Tensor;
use mixskd_cuda::sum::{self, MOST_PARTS, Part};

use super::memory::{address, failed, kernel_for, start};
use super::recorded::record;
use super::tape;
use crate::Result;

/// Where each of `maps` lies in the joined one.
fn parts(maps: &[Tensor]) -> candle_core::Result<Vec<Part>> {
    let mut first = 0;
    let mut part = |x: &Tensor| {
        let len = x.dim(3)?;
        first += len;
        Ok(Part {
            x: address(x)?,
            first: first - len,
            len,
        })
    };
    maps.iter().map(&mut part).collect()
}

/// The channels of the first map, then those of the second, and so on.
pub(crate) fn join_channels(maps: &[&Tensor]) -> Result<Option<Tensor>> {
    if !tape::is_running() || maps.is_empty() || maps.len() > MOST_PARTS {
        return Ok(None);
    }
    let Some((gpu, element)) = kernel_for(maps, &[])? else {
        return Ok(None);
    };
    let (batch, height, width, _) = maps[0].dims4()?;
    let maps = maps
        .iter()
        .map(|map| map.contiguous())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let from = parts(&maps)?;
    let channels = from.iter().map(|part| part.len).sum();
    let sizes = (batch * height * width, channels);
    let y = gpu.storage(maps[0].dtype(), sizes.0 * sizes.1)?;
    // SAFETY: the maps are as long as the parts say, and their channels are all of the joined map's.
    unsafe { sum::join(gpu.engine(), element, &from, start(&y)?, sizes, false) }.map_err(failed)?;
    let backward = move |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let all = inputs
            .iter()
            .map(|x| gpu.empty(x.dtype(), x.shape()))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let to = parts(&all)?;
        // SAFETY: as above.
        unsafe { sum::join(gpu.engine(), element, &to, address(dy)?, sizes, true) }
            .map_err(failed)?;
        Ok(all.into_iter().map(Some).collect())
    };
    let inputs: Vec<&Tensor> = maps.iter().collect();
    let shape = (batch, height, width, channels);
    Ok(Some(record(
        "mixskd-cuda-join",
        &inputs,
        y,
        shape,
        backward,
    )?))
}

/// The samples of the first tensor, then those of the second, and so on.
pub(crate) fn join_samples(all: &[&Tensor]) -> Result<Option<Tensor>> {
    if !tape::is_running() || all.is_empty() || all.len() > MOST_PARTS {
        return Ok(None);
    }
    let Some((gpu, element)) = kernel_for(all, &[])? else {
        return Ok(None);
    };
    let all = all
        .iter()
        .map(|x| x.contiguous())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let (mut len, mut from) = (0, Vec::with_capacity(all.len()));
    for x in &all {
        let own = x.elem_count();
        from.push(Part {
            x: address(x)?,
            first: len,
            len: own,
        });
        len += own;
    }
    let y = gpu.storage(all[0].dtype(), len)?;
    // SAFETY: parts are as long as they say, and every element is one part's.
    unsafe { sum::parts(gpu.engine(), element, &from, start(&y)?, len) }.map_err(failed)?;
    let backward = |inputs: &[&Tensor], _: &Tensor, dy: &Tensor| {
        let mut at = 0;
        let mut own = |x: &&Tensor| {
            let rows = x.dim(0)?;
            at += rows;
            dy.narrow(0, at - rows, rows).map(Some)
        };
        inputs.iter().map(&mut own).collect()
    };
    let rows = all.iter().map(|x| x.dims()[0]).sum();
    let mut shape = all[0].dims().to_vec();
    shape[0] = rows;
    let inputs: Vec<&Tensor> = all.iter().collect();
    Ok(Some(record(
        "mixskd-cuda-stack",
        &inputs,
        y,
        shape,
        backward,
    )?))
}

/// `a + b`.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Option<Tensor>> {
    if !tape::is_running() {
        return Ok(None);
    }
    let Some((gpu, element)) = kernel_for(&[a, b], &[])? else {
        return Ok(None);
    };
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let len = a.elem_count();
    let y = gpu.storage(a.dtype(), len)?;
    let part = |x: &Tensor| {
        let (x, first) = (address(x)?, 0);
        Ok::<_, candle_core::Error>(Part { x, first, len })
    };
    // SAFETY: all three are as long.
    unsafe {
        sum::parts(
            gpu.engine(),
            element,
            &[part(&a)?, part(&b)?],
            start(&y)?,
            len,
        )
    }
    .map_err(failed)?;
    let backward =
        |_: &[&Tensor], _: &Tensor, dy: &Tensor| Ok(vec![Some(dy.clone()), Some(dy.clone())]);
    let shape = a.shape().clone();
    Ok(Some(record(
        "mixskd-cuda-sum",
        &[&a, &b],
        y,
        shape,
        backward,
    )?))
}
