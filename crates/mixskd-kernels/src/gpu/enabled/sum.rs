//! Sums of gradients and of single numbers, as nodes of the tape: candle would launch two operations for every addend on the way back.

use std::sync::Arc;

use candle_core::{Context, DType, Result, Shape, Tensor};
use mixskd_cuda::sum::{self, MOST_NUMBERS, MOST_PARTS, Part};

use super::lanes;
use super::memory::{Gpu, address, failed, kernel_for, start};
use super::recorded::record_as;
use super::tape::{self, Back};

/// A gradient, or that of the elements from `first` on.
pub(super) struct Share {
    pub(super) x: Tensor,
    pub(super) first: usize,
}

impl Share {
    pub(super) fn whole(x: Tensor) -> Self {
        Self { x, first: 0 }
    }

    pub(super) fn contiguous(&self) -> Result<Self> {
        Ok(Self {
            x: self.x.contiguous()?,
            first: self.first,
        })
    }

    /// As a kernel is given it. It has to be contiguous.
    pub(super) fn part(&self) -> Result<Part> {
        Ok(Part {
            x: address(&self.x)?,
            first: self.first,
            len: self.x.elem_count(),
        })
    }
}

/// All of them added up, in their order; one that is the whole is handed through.
pub(super) fn sum(mut shares: Vec<Share>, shape: &Shape) -> Result<Tensor> {
    if let [only] = shares.as_slice()
        && only.x.shape() == shape
    {
        return Ok(only.x.clone());
    }
    while shares.len() > MOST_PARTS {
        let some: Vec<Share> = shares.drain(..MOST_PARTS).collect();
        shares.insert(0, Share::whole(launch(&some, shape)?));
    }
    launch(&shares, shape)
}

fn launch(shares: &[Share], shape: &Shape) -> Result<Tensor> {
    let shares: Vec<Share> = shares
        .iter()
        .map(Share::contiguous)
        .collect::<Result<_>>()?;
    let xs: Vec<&Tensor> = shares.iter().map(|share| &share.x).collect();
    let Some((gpu, element)) = kernel_for(&xs, &[])? else {
        // Of a type that no kernel knows, and so that no kernel took a part of.
        let (first, others) = xs.split_first().context("a sum of nothing")?;
        return others.iter().try_fold((*first).clone(), |sum, x| sum + *x);
    };
    let y = gpu.empty(xs[0].dtype(), shape)?;
    let parts = shares.iter().map(Share::part).collect::<Result<Vec<_>>>()?;
    // SAFETY: each part has its length, and is one of `shape`.
    unsafe {
        sum::parts(
            gpu.engine(),
            element,
            &parts,
            address(&y)?,
            shape.elem_count(),
        )
    }
    .map_err(failed)?;
    Ok(y)
}

/// `Σ weight · x` of float scalars, where a tape notes what is done with them.
pub(crate) fn weighted_sum(all: &[(&Tensor, f64)]) -> crate::Result<Option<Tensor>> {
    if all.is_empty() || all.len() > MOST_NUMBERS || !tape::is_running() {
        return Ok(None);
    }
    let inputs: Vec<&Tensor> = all.iter().map(|(x, _)| *x).collect();
    if inputs.iter().any(|x| x.elem_count() != 1) {
        return Ok(None);
    }
    let Some((gpu, _)) = kernel_for(&inputs[..1], &inputs)? else {
        return Ok(None);
    };
    let weights: Vec<f32> = all.iter().map(|&(_, weight)| weight as f32).collect();
    let numbers = all
        .iter()
        .map(|&(x, weight)| Ok((address(x)?, weight as f32)))
        .collect::<Result<Vec<_>>>()?;
    let y = gpu.storage(DType::F32, 1)?;
    lanes::aside(&inputs, || {
        // SAFETY: all are one float each.
        unsafe { sum::weighted_sum(gpu.engine(), &numbers, start(&y)?) }.map_err(failed)
    })?;
    let way = Back::Weighted(Weights { gpu, weights });
    let loss = record_as("mixskd-weighted-sum", &inputs, y, (), way)?;
    lanes::keep_aside(&loss)?;
    Ok(Some(loss))
}

/// What scalars were multiplied by in a sum.
pub(super) struct Weights {
    gpu: Arc<Gpu>,
    weights: Vec<f32>,
}

impl Weights {
    /// The gradient of each, where the sum's is a number.
    pub(super) fn of_number(&self, number: f32) -> impl Iterator<Item = f32> {
        self.weights.iter().map(move |weight| weight * number)
    }

    /// The gradients of `inputs`, where it is a tensor.
    pub(super) fn of_tensor(&self, inputs: &[&Tensor], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let from = address(dy)?;
        let numbers: Vec<_> = self.weights.iter().map(|&weight| (from, weight)).collect();
        let all = self.gpu.empty(DType::F32, self.weights.len())?;
        // SAFETY: the gradient is one float, and there is room for one of each.
        unsafe { sum::weighted(self.gpu.engine(), &numbers, address(&all)?) }.map_err(failed)?;
        let own = |(i, x): (usize, &&Tensor)| all.narrow(0, i, 1)?.reshape(x.shape()).map(Some);
        inputs.iter().enumerate().map(own).collect()
    }
}

/// Float arrays of one element each, one after the other.
pub(crate) fn collect(all: &[&Tensor]) -> crate::Result<Option<Tensor>> {
    let Some(first) = all.first() else {
        return Ok(None);
    };
    let lengths: Vec<usize> = all.iter().map(|x| x.elem_count()).collect();
    let count = lengths.iter().sum();
    if count > MOST_NUMBERS || first.dtype() != DType::F32 {
        return Ok(None);
    }
    let Some((gpu, _)) = kernel_for(&[first], all)? else {
        return Ok(None);
    };
    let xs = all
        .iter()
        .map(|x| x.contiguous())
        .collect::<Result<Vec<_>>>()?;
    let mut numbers = Vec::with_capacity(count);
    for (x, len) in xs.iter().zip(lengths) {
        let from = address(x)?;
        numbers.extend((0..len as u64).map(|i| (from + 4 * i, 1.0)));
    }
    let y = gpu.empty(DType::F32, count)?;
    // SAFETY: every address is one of a float of these arrays.
    unsafe { sum::weighted(gpu.engine(), &numbers, address(&y)?) }.map_err(failed)?;
    Ok(Some(y))
}

/// Samples `at … at + count − 1`, where a tape notes what is done with them: no copy, and no operation of candle's on the way back.
pub(crate) fn samples(x: &Tensor, at: usize, count: usize) -> crate::Result<Option<Tensor>> {
    if !tape::is_running() || !x.track_op() || kernel_for(&[x], &[])?.is_none() {
        return Ok(None);
    }
    let x = x.contiguous()?;
    let view = x.narrow(0, at, count)?;
    // All of them are no view.
    if view.id() != x.id() {
        tape::note_view(&view, &x, at * (x.elem_count() / x.dim(0)?.max(1)));
    }
    Ok(Some(view))
}
