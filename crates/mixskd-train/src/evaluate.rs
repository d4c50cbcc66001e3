//! Scores of every head on a set of images.

use candle_core::{Device, Tensor};
use mixskd_data::Loader;

use crate::Result;
use crate::metrics::{HeadMeter, HeadScore};

/// Runs `heads` over every image of `loader` and scores each head, in the order `heads` gives them.
///
/// # Errors
/// When an image cannot be read or a label is one the network does not know.
pub fn evaluate(
    heads: impl Fn(&Tensor) -> Result<Vec<(String, Tensor)>>,
    loader: &Loader,
    device: &Device,
) -> Result<Vec<HeadScore>> {
    evaluate_batches(heads, loader, usize::MAX, device)
}

/// [`evaluate`] on the first `batches` batches.
pub(crate) fn evaluate_batches(
    heads: impl Fn(&Tensor) -> Result<Vec<(String, Tensor)>>,
    loader: &Loader,
    batches: usize,
    device: &Device,
) -> Result<Vec<HeadScore>> {
    let mut meters: Vec<(String, HeadMeter)> = Vec::new();
    for batch in loader.epoch(0).take(batches) {
        let batch = batch?;
        for (k, (name, logits)) in heads(&batch.images.to_device(device)?)?
            .into_iter()
            .enumerate()
        {
            if meters.len() == k {
                meters.push((name, HeadMeter::default()));
            }
            meters[k].1.add(&logits, &batch.labels)?;
        }
    }
    Ok(meters
        .into_iter()
        .map(|(name, meter)| meter.score(name))
        .collect())
}
