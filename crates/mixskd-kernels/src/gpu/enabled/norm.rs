//! Batch norm with the residual sum and ReLU that follow it.

use std::sync::Arc;

use candle_core::{DType, Tensor, Var};
use mixskd_cuda::norm::{self, Incoming, MOST_GATHERED, Outgoing, Running, Shape};
use mixskd_cuda::{Element, NULL};

use super::later;
use super::memory::{Gpu, address, failed, kernel_for, start};
use super::recorded::record_as;
use super::sum::{Share, sum};
use super::tape::{self, Back};
use crate::{BatchStats, Result};

pub(crate) fn batch_norm_train(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Option<(Tensor, BatchStats)>> {
    let Some((gpu, shape)) = kernel(x, &[weight, bias], residual)? else {
        return Ok(None);
    };
    let x = x.contiguous()?;
    let scratch = gpu.empty(DType::F32, shape.scratch())?;
    let float = || gpu.empty(DType::F32, shape.channels);
    let (mean, var, inv_std) = (float()?, float()?, float()?);
    // SAFETY: the arrays are as long as the functions ask.
    unsafe {
        let to = [address(&mean)?, address(&var)?, address(&inv_std)?];
        let (from, scratch) = (address(&x)?, address(&scratch)?);
        norm::statistics(gpu.engine(), shape, from, eps as f32, scratch, to).map_err(failed)?;
    }
    let stats = BatchStats {
        mean: mean.clone(),
        var,
        count: shape.rows,
    };
    let op = Normalise {
        gpu,
        shape,
        mean,
        inv_std,
        relu,
        own: true,
    };
    Ok(Some((op.apply(&x, [weight, bias], residual)?, stats)))
}

pub(crate) fn batch_norm_eval(
    x: &Tensor,
    [weight, bias, mean, var]: [&Tensor; 4],
    eps: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Option<Tensor>> {
    // They may be running ones that are still to be moved.
    later::flush()?;
    // Gradients into given statistics are left to candle.
    if mean.track_op() || var.track_op() {
        return Ok(None);
    }
    let Some((gpu, shape)) = kernel(x, &[weight, bias, mean, var], residual)? else {
        return Ok(None);
    };
    let inv_std = gpu.empty(DType::F32, shape.channels)?;
    let var = var.contiguous()?;
    // SAFETY: both arrays have a float for each channel.
    unsafe {
        let (from, to) = (address(&var)?, address(&inv_std)?);
        norm::inverse(gpu.engine(), shape.channels, from, eps as f32, to).map_err(failed)?;
    }
    let op = Normalise {
        gpu,
        shape,
        mean: mean.contiguous()?,
        inv_std,
        relu,
        own: false,
    };
    op.apply(&x.contiguous()?, [weight, bias], residual)
        .map(Some)
}

fn kernel(
    x: &Tensor,
    channels: &[&Tensor],
    residual: Option<&Tensor>,
) -> Result<Option<(Arc<Gpu>, Shape)>> {
    let maps: Vec<_> = std::iter::once(x).chain(residual).collect();
    let found = kernel_for(&maps, channels)?;
    Ok(found.map(|(gpu, element)| {
        let channels = channels[0].elem_count();
        let shape = Shape {
            rows: x.elem_count() / channels,
            channels,
            element,
        };
        (gpu, shape)
    }))
}

struct Normalise {
    gpu: Arc<Gpu>,
    shape: Shape,
    mean: Tensor,
    inv_std: Tensor,
    relu: bool,
    own: bool,
}

impl Normalise {
    fn apply(
        self,
        x: &Tensor,
        [weight, bias]: [&Tensor; 2],
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let y = self.gpu.storage(x.dtype(), x.elem_count())?;
        // SAFETY: the arrays are as long as the function asks.
        unsafe {
            let params = [address(&weight)?, address(&bias)?];
            let statistics = [address(&self.mean)?, address(&self.inv_std)?];
            let added = residual.as_ref().map_or(Ok(NULL), address)?;
            norm::forward(
                self.gpu.engine(),
                self.shape,
                address(x)?,
                added,
                params,
                statistics,
                self.relu,
                start(&y)?,
            )
            .map_err(failed)?;
        }
        let shape = x.shape().clone();
        // candle's graph takes three inputs at most.
        let apart = tape::is_running();
        let both = (!apart)
            .then(|| Tensor::stack(&[&weight, &bias], 0))
            .transpose()?;
        let mut inputs = vec![x];
        match &both {
            Some(both) => inputs.push(both),
            None => inputs.extend([&weight, &bias]),
        }
        inputs.extend(&residual);
        let (weight, bias, added) = (weight.clone(), bias.clone(), residual.is_some());
        let backward = move |inputs: &[&Tensor], y: &Tensor, dy: Vec<Share>| {
            let params = [&weight, &bias];
            let residual = inputs.last().copied().filter(|_| added);
            let [dx, d_params, d_residual] = self.gradients(inputs[0], params, residual, y, dy)?;
            let mut gradients = vec![dx];
            match d_params {
                Some(d) if apart => gradients.extend([Some(d.get(0)?), Some(d.get(1)?)]),
                d => gradients.push(d),
            }
            gradients.push(d_residual);
            gradients.truncate(inputs.len());
            Ok(gradients)
        };
        let way = Back::Gathering(Box::new(backward));
        Ok(record_as("mixskd-cuda-batch-norm", &inputs, y, shape, way)?)
    }

    /// Those of the input, of weight and bias `[2, channels]`, and of the residual.
    fn gradients(
        &self,
        x: &Tensor,
        [weight, bias]: [&Tensor; 2],
        residual: Option<&Tensor>,
        y: &Tensor,
        dy: Vec<Share>,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let shares = few(dy, y)?;
        let parts = shares.iter().map(Share::part);
        let parts = parts.collect::<candle_core::Result<Vec<_>>>()?;
        let (gpu, channels) = (&self.gpu, self.shape.channels);
        let scratch = gpu.empty(DType::F32, self.shape.scratch())?;
        let coefficients = gpu.empty(DType::F32, 3 * channels)?;
        let d_params = gpu.empty(DType::F32, (2, channels))?;
        let map = |wanted: bool| wanted.then(|| gpu.empty(x.dtype(), x.shape())).transpose();
        let place = |t: &Option<Tensor>| t.as_ref().map_or(Ok(NULL), address);
        let given = |is_read: bool, t: &Tensor| if is_read { address(t) } else { Ok(NULL) };
        let from = Incoming {
            x: address(x)?,
            y: given(self.relu && residual.is_some(), y)?,
            dy: &parts,
            weight: address(weight)?,
            bias: given(self.relu && residual.is_none(), bias)?,
            mean: address(&self.mean)?,
            inv_std: address(&self.inv_std)?,
            own: self.own,
        };
        let (dx, behind) = (map(x.track_op())?, map(from.gathers())?);
        let to = Outgoing {
            scratch: address(&scratch)?,
            coefficients: address(&coefficients)?,
            d_params: address(&d_params)?,
            dx: place(&dx)?,
            behind: place(&behind)?,
        };
        // SAFETY: the arrays are as long as the fields say.
        unsafe { norm::backward(gpu.engine(), self.shape, from, to) }.map_err(failed)?;
        let d_residual = behind.or_else(|| shares.into_iter().next().map(|whole| whole.x));
        let d_residual = d_residual.filter(|_| residual.is_some_and(Tensor::track_op));
        Ok([dx, Some(d_params), d_residual])
    }
}

/// Parts of a gradient like `y`'s that the way back adds up, contiguous and of `y`'s type; one that is the whole where there are too many of them.
fn few(parts: Vec<Share>, y: &Tensor) -> candle_core::Result<Vec<Share>> {
    let is_one = |part: &Share| part.first == 0 && part.x.shape() == y.shape();
    let fit = match parts.as_slice() {
        [only] => is_one(only),
        some => some.len() <= MOST_GATHERED,
    };
    let alike = parts.iter().all(|part| part.x.dtype() == y.dtype());
    if !fit || !alike {
        let whole = sum(parts, y.shape())?.contiguous()?;
        return Ok(vec![Share::whole(whole)]);
    }
    parts.iter().map(Share::contiguous).collect()
}

/// Moves running mean and variance towards a batch's, in place.
pub(crate) fn move_running(
    [mean, var]: [&Var; 2],
    stats: &BatchStats,
    momentum: f64,
) -> Result<Option<()>> {
    let arrays: [&Tensor; 4] = [mean, var, &stats.mean, &stats.var];
    let Some((gpu, Element::F32)) = kernel_for(&[mean], &arrays)? else {
        return Ok(None);
    };
    if !arrays.iter().all(|t| t.is_contiguous()) {
        return Ok(None);
    }
    let layer = Running {
        channels: mean.elem_count(),
        momentum: momentum as f32,
        unbiased: (stats.count as f64 / (stats.count - 1) as f64) as f32,
        batch: [address(&stats.mean)?, address(&stats.var)?],
        running: [address(mean)?, address(var)?],
    };
    let [mean, var] = [mean, var].map(|t| t.as_tensor().clone());
    let held = [stats.mean.clone(), stats.var.clone(), mean, var];
    later::advance(&gpu, layer, &held)?;
    Ok(Some(()))
}
