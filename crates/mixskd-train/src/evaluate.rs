//! Scores of every head on a set of images.

use std::collections::VecDeque;

use candle_core::{Device, Tensor};
use mixskd_data::Loader;

use crate::Result;
use crate::feed::Feed;
use crate::metrics::{HeadMeter, HeadScore};
use crate::to_host::{OnHost, ToHost};

/// Batches whose logits a GPU is still to give, at most, while the next one is launched.
const AHEAD: usize = 2;

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
    let to_host = ToHost::new(device)?;
    evaluate_batches(heads, &feed, &to_host, usize::MAX, &mut |_| ())
}

/// What the head that comes first says of a batch.
pub(crate) struct FirstHead<'a> {
    /// Index of the batch's first image.
    pub(crate) first: usize,
    pub(crate) labels: &'a [u32],
    /// `[image, class]`.
    pub(crate) logits: &'a [f32],
}

/// [`evaluate`] on the first `batches` batches, telling `first_head` of each. On a GPU a batch is read while the GPU works on those after it.
pub(crate) fn evaluate_batches(
    heads: impl Fn(&Tensor) -> Result<Vec<(String, Tensor)>>,
    feed: &Feed,
    to_host: &ToHost,
    batches: usize,
    first_head: &mut dyn FnMut(FirstHead),
) -> Result<Vec<HeadScore>> {
    let mut scoring = Scoring::default();
    let mut coming = VecDeque::new();
    let mut batches = feed.epoch_from(0, 0, batches);
    while let Some(batch) = batches.next() {
        let batch = batch?;
        let (names, logits): (Vec<_>, Vec<_>) = heads(&batch.images)?.into_iter().unzip();
        let logits = to_host.begin(&logits.iter().collect::<Vec<_>>())?;
        coming.push_back(Scored {
            names,
            labels: batch.labels,
            logits,
        });
        batches.fetch();
        if coming.len() > AHEAD
            && let Some(scored) = coming.pop_front()
        {
            scoring.add(&scored, first_head)?;
        }
    }
    for scored in coming {
        scoring.add(&scored, first_head)?;
    }
    Ok(scoring.scores())
}

/// What the heads say of a batch.
struct Scored {
    names: Vec<String>,
    labels: Vec<u32>,
    logits: OnHost,
}

#[derive(Default)]
struct Scoring {
    meters: Vec<(String, HeadMeter)>,
    done: usize,
}

impl Scoring {
    fn add(&mut self, scored: &Scored, first_head: &mut dyn FnMut(FirstHead)) -> Result<()> {
        let labels = &scored.labels;
        for (k, (name, logits)) in scored.names.iter().zip(scored.logits.values()?).enumerate() {
            if self.meters.len() == k {
                self.meters.push((name.clone(), HeadMeter::default()));
            }
            self.meters[k].1.add(logits, labels)?;
            if k == 0 {
                first_head(FirstHead {
                    first: self.done,
                    labels,
                    logits,
                });
            }
        }
        self.done += labels.len();
        Ok(())
    }

    fn scores(self) -> Vec<HeadScore> {
        let meters = self.meters.into_iter();
        meters.map(|(name, meter)| meter.score(name)).collect()
    }
}
