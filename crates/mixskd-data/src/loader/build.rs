//! One batch.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::order::{Anchors, Order, by_class};
use super::{Balance, Batch, LoaderConfig, Shard, WindowBatch};
use crate::companions::Companions;
use crate::rng::{Purpose, stream};
use crate::{Error, Pipeline, Result, Samples};

/// What a loader and its threads share.
pub(super) struct Builder {
    pub(super) samples: Arc<dyn Samples>,
    pub(super) pipeline: Pipeline,
    config: LoaderConfig,
    companions: Companions,
    /// The samples of each class, where these are to be balanced.
    classes: Vec<Vec<u32>>,
    /// Height and width of every image after augmentation.
    pub(super) size: (usize, usize),
}

impl Builder {
    pub(super) fn new(
        samples: Arc<dyn Samples>,
        pipeline: Pipeline,
        config: LoaderConfig,
    ) -> Result<Self> {
        let size = match pipeline.size(None) {
            Some(size) => Some(size),
            None => match samples.view(0) {
                Some(view) => pipeline.size(Some((view.height, view.width))),
                None => samples
                    .image(0)
                    .map(|image| pipeline.size(Some((image.height, image.width))))?,
            },
        };
        let size = size.filter(|(height, width)| height * width > 0);
        let Some(size) = size else {
            return Err(Error::config(
                "augment",
                "leaves images without a size",
                "add a crop or a resize",
            ));
        };
        Ok(Self {
            companions: Companions::new(config.needs, samples.as_ref(), config.seed),
            classes: if config.balance.strength > 0.0 {
                by_class(samples.as_ref()).into_values().collect()
            } else {
                Vec::new()
            },
            samples,
            pipeline,
            config,
            size,
        })
    }

    /// Batches of this loader's share of an epoch.
    pub(super) fn steps(&self) -> u64 {
        let (len, batch) = (self.samples.len(), self.config.batch);
        let drop_last = self.config.drop_last;
        let batches = if drop_last {
            len / batch
        } else {
            len.div_ceil(batch)
        };
        self.config.shard.share(batches, drop_last) as u64
    }

    /// The order of the samples in `epoch`.
    pub(super) fn order(&self, epoch: u64) -> Order {
        let mut rng = stream(self.config.seed, epoch, 0, Purpose::Shuffle);
        let len = self.samples.len();
        let Balance { strength, after } = self.config.balance;
        if strength > 0.0 && epoch >= after {
            Order::balanced(&self.classes, strength, &mut rng)
        } else if self.config.shuffle {
            Order::shuffled(len, &mut rng)
        } else {
            Order::numbered(len)
        }
    }

    /// Batch `step` of this loader's share of `epoch`. When `stop` is raised the rest of the images is left out; nobody looks at them then.
    pub(super) fn batch(
        &self,
        order: &Order,
        epoch: u64,
        step: u64,
        stop: &AtomicBool,
    ) -> Result<Batch> {
        let step = self.place(step);
        let anchors = self.anchors(order, step);
        let indices = self.companions.rows(anchors, self.samples.as_ref(), epoch);
        let (height, width) = self.size;
        let each = height * width * self.pipeline.channels();
        let mut images = vec![0.0f32; indices.len() * each];
        // The earliest image that fails is the one reported, whichever thread meets it first.
        let failure = images
            .par_chunks_exact_mut(each)
            .zip(indices.par_iter())
            .enumerate()
            .filter_map(|(row, (out, &index))| {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let mut rng = self.stream(anchors, epoch, row);
                let written = self.write(index as usize, &mut rng, out);
                written.err().map(|error| (row, error))
            })
            .min_by_key(|(at, _)| *at);
        if let Some((_, error)) = failure {
            return Err(error);
        }
        let labels = self.labels(&indices);
        let images = Tensor::from_vec(
            images,
            (indices.len(), height, width, self.pipeline.channels()),
            &Device::Cpu,
        )?;
        Ok(Batch {
            images,
            labels,
            indices,
            epoch,
            step,
        })
    }

    /// The same batch as windows onto its images.
    pub(super) fn windows(&self, order: &Order, epoch: u64, step: u64) -> Result<WindowBatch> {
        let step = self.place(step);
        let anchors = self.anchors(order, step);
        let indices = self.companions.rows(anchors, self.samples.as_ref(), epoch);
        let window = |(row, &index): (usize, &u32)| {
            let index = index as usize;
            let mut rng = self.stream(anchors, epoch, row);
            let window = match self.samples.view(index) {
                Some(view) => self.pipeline.window(view, self.size, &mut rng),
                None => Err(Error::Image {
                    origin: String::new(),
                    message: "is not in memory".into(),
                    hint: "read it through the loader".into(),
                }),
            };
            window.map_err(|error| error.of(self.samples.origin(index)))
        };
        Ok(WindowBatch {
            windows: indices
                .iter()
                .enumerate()
                .map(window)
                .collect::<Result<_>>()?,
            labels: self.labels(&indices),
            indices,
            step,
        })
    }

    /// The place in the epoch of this process's batch `step`.
    fn place(&self, step: u64) -> u64 {
        let Shard { rank, world } = self.config.shard;
        step * world as u64 + rank as u64
    }

    /// The samples that the batch at place `step` of the epoch is made for.
    fn anchors<'a>(&self, order: &'a Order, step: u64) -> Anchors<'a> {
        let batch = self.config.batch;
        order.anchors(step as usize * batch, batch)
    }

    /// The draws of one row of a batch.
    fn stream(&self, anchors: Anchors, epoch: u64, row: usize) -> ChaCha8Rng {
        let count = anchors.samples.len();
        let key = anchors.key(row % count, self.samples.len());
        let purpose = match row / count {
            0 => Purpose::Augment,
            block => Purpose::Block(block as u32),
        };
        stream(self.config.seed, epoch, key, purpose)
    }

    fn labels(&self, indices: &[u32]) -> Vec<u32> {
        let label = |&index: &u32| self.samples.label(index as usize);
        indices.iter().map(label).collect()
    }

    fn write(&self, index: usize, rng: &mut ChaCha8Rng, out: &mut [f32]) -> Result<()> {
        // Readers and augmentations may be somebody else's: what they panic with is an error of that image.
        let work = || {
            let prepared = if let Some(view) = self.samples.view(index) {
                self.pipeline.apply(view, self.size, rng, out)
            } else {
                let image = self.samples.image(index)?;
                self.pipeline.apply(image.view(), self.size, rng, out)
            };
            prepared.map_err(|error| error.of(self.samples.origin(index)))
        };
        std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let said = (panic.downcast_ref::<&str>().copied())
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(Error::Image {
                origin: self.samples.origin(index),
                message: format!(
                    "reading or augmenting it panicked: {}",
                    said.unwrap_or("no message")
                ),
                hint: "this is a mistake in the reader or an augmentation".into(),
            })
        })
    }
}
