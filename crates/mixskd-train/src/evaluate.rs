//! Scores of every head on a set of images.

use candle_core::{Device, Tensor};
use mixskd_data::Loader;

use crate::Result;
use crate::feed::Feed;
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
    let feed = Feed::uploading(loader.clone(), device);
    evaluate_batches(heads, &feed, usize::MAX, &mut |_, _, _| ())
}

/// [`evaluate`] on the first `batches` batches, telling `first_head` of each the index of its first image, the labels, and the logits
/// of the head that comes first.
pub(crate) fn evaluate_batches(
    heads: impl Fn(&Tensor) -> Result<Vec<(String, Tensor)>>,
    feed: &Feed,
    batches: usize,
    first_head: &mut dyn FnMut(usize, &[u32], &Tensor),
) -> Result<Vec<HeadScore>> {
    let mut meters: Vec<(String, HeadMeter)> = Vec::new();
    let mut done = 0;
    let mut batches = feed.epoch_from(0, 0, batches);
    while let Some(batch) = batches.next() {
        let batch = batch?;
        let scored = heads(&batch.images)?;
        // A GPU is at work until the logits are read.
        batches.fetch();
        for (k, (name, logits)) in scored.into_iter().enumerate() {
            if meters.len() == k {
                meters.push((name, HeadMeter::default()));
            }
            meters[k].1.add(&logits, &batch.labels)?;
            if k == 0 {
                first_head(done, &batch.labels, &logits);
            }
        }
        done += batch.labels.len();
    }
    Ok(meters
        .into_iter()
        .map(|(name, meter)| meter.score(name))
        .collect())
}
