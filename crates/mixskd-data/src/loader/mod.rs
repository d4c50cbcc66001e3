//! Batches: built in parallel, ahead of the step that eats them.

mod build;
mod epoch;
pub(crate) mod order;
mod windows;

use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use epoch::Epoch;
pub use windows::{WindowBatch, Windows};

use crate::{BatchNeeds, Error, Pipeline, Result, Samples};
use build::Builder;

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Images in a batch; what `needs` asks for comes on top.
    pub batch: usize,
    /// What a batch holds beside one view of each image.
    pub needs: BatchNeeds,
    /// Draw a new order each epoch.
    pub shuffle: bool,
    /// How often the images of small classes are taken beside those of large ones.
    pub balance: Balance,
    /// Leave out the last batch when it is not full.
    pub drop_last: bool,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Batches built ahead by a thread of their own. With 0, each is built when it is asked for, on the caller's thread pool.
    pub prefetch: usize,
    /// Which of an epoch's batches this loader makes.
    pub shard: Shard,
}

/// How far an epoch makes up for classes of unequal numbers. It takes as many images as there are; a class's share of them is by its number of images to the power
/// of `1 − strength` (Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020). Images of small classes are taken several times,
/// each time augmented otherwise, and of large ones others in every epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balance {
    /// From 0, every image once, to 1, every class as often.
    pub strength: f64,
    /// Epochs before it, in which every image is taken once.
    pub after: u64,
}

impl Balance {
    /// Checks the strength.
    ///
    /// # Errors
    /// When it is not between 0 and 1.
    pub(crate) fn check(self) -> Result<()> {
        if (0.0..=1.0).contains(&self.strength) {
            return Ok(());
        }
        let message = format!("must lie between 0 and 1, got {}", self.strength);
        Err(Error::config("balance", message, "for example 0.5"))
    }
}

/// The part of an epoch that one of several processes takes: of every `world` batches the one at `rank`, so that step s is batch
/// `s·world + rank` of the epoch. With `drop_last`, batches at the end that do not go round are left out, and every rank has as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Number of the process, from 0.
    pub rank: usize,
    /// Processes that share an epoch.
    pub world: usize,
}

impl Default for Shard {
    /// One process takes every batch.
    fn default() -> Self {
        Self { rank: 0, world: 1 }
    }
}

impl Shard {
    /// How many of `batches` are this shard's.
    fn share(self, batches: usize, whole_rounds: bool) -> usize {
        if whole_rounds {
            batches / self.world
        } else {
            batches.saturating_sub(self.rank).div_ceil(self.world)
        }
    }
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch: 64,
            needs: BatchNeeds::Anchors,
            shuffle: true,
            balance: Balance::default(),
            drop_last: true,
            seed: 0,
            prefetch: 4,
            shard: Shard::default(),
        }
    }
}

/// One batch: the anchors, then what [`LoaderConfig::needs`] asks for, block by block ([`BatchNeeds`]).
#[derive(Debug, Clone)]
pub struct Batch {
    /// Normalised images, `[rows, height, width, channel]`, float32, on the CPU; `rows` is `batch` times the number of blocks.
    pub images: Tensor,
    /// Class of each image.
    pub labels: Vec<u32>,
    /// Index of each image among the samples.
    pub indices: Vec<u32>,
    /// Epoch it belongs to.
    pub epoch: u64,
    /// Place among the batches of the epoch, from 0: the step, where one process takes all of them ([`Shard`]).
    pub step: u64,
}

/// Makes the batches of any epoch.
///
/// A batch is a function of (seed, epoch, place in the epoch): the number of threads, the prefetching, the step an epoch was entered
/// at and who takes the other batches change nothing.
#[derive(Clone)]
pub struct Loader {
    builder: Arc<Builder>,
    prefetch: usize,
}

/// Most images of a batch, all its blocks together.
const MOST_ROWS: usize = 1 << 20;

impl Loader {
    /// A loader of `samples` through `pipeline`.
    ///
    /// # Errors
    /// When the batch is 0; when there are no samples; when a training batch (shuffled, or full batches only) is larger than the
    /// set; when the first image cannot be read while the pipeline leaves sizes to the images.
    pub fn new(
        samples: Arc<dyn Samples>,
        pipeline: Pipeline,
        config: LoaderConfig,
    ) -> Result<Self> {
        let (len, batch) = (samples.len(), config.batch);
        if batch == 0 {
            return Err(Error::config(
                "batch",
                "must be at least 1, got 0",
                "for example 64",
            ));
        }
        let blocks = config.needs.blocks();
        if batch
            .checked_mul(blocks)
            .is_none_or(|rows| rows > MOST_ROWS)
        {
            return Err(Error::config(
                "needs",
                format!("a batch of {batch} with {blocks} blocks is more than {MOST_ROWS} images"),
                "ask for fewer views or companions, or a smaller batch",
            ));
        }
        config.balance.check()?;
        if len == 0 {
            return Err(Error::config(
                "data",
                "there is no image to load",
                "check the folder or file it came from",
            ));
        }
        let Shard { rank, world } = config.shard;
        if rank >= world {
            return Err(Error::config(
                "shard",
                format!("there is no rank {rank} among {world} processes"),
                "ranks count from 0",
            ));
        }
        if batch.saturating_mul(world) > len && (config.drop_last || config.shuffle) {
            let asked = match world {
                1 => format!("{batch} is larger than"),
                world => format!("{batch} for each of {world} processes is more than"),
            };
            return Err(Error::config(
                "batch",
                format!("{asked} the set of {len} images"),
                format!("use a batch of at most {}, or more images", len / world),
            ));
        }
        let prefetch = config.prefetch;
        Ok(Self {
            builder: Arc::new(Builder::new(samples, pipeline, config)?),
            prefetch,
        })
    }

    /// Batches in an epoch, of this loader's share.
    pub fn steps_per_epoch(&self) -> usize {
        self.builder.steps() as usize
    }

    /// Height and width of the batches' images.
    pub fn size(&self) -> (usize, usize) {
        self.builder.size
    }

    /// The batches of `epoch`.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of `epoch` from `first_step` on: the same as without those before.
    pub fn epoch_from(&self, epoch: u64, first_step: u64) -> Epoch {
        Epoch::start(Arc::clone(&self.builder), epoch, first_step, self.prefetch)
    }
}

#[cfg(test)]
mod tests;
