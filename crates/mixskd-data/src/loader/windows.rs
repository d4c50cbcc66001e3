//! Batches as windows onto images that lie elsewhere, such as in a GPU's memory: the same draws as the loader's own batches, and no pixel.

use std::sync::Arc;

use super::Loader;
use super::build::Builder;
use super::order::Order;
use crate::augment::Window;
use crate::{PackedSamples, Result};

/// One batch without its pixels; rows as in [`Batch`](super::Batch).
#[derive(Debug, Clone)]
pub struct WindowBatch {
    /// What each row shows of its image.
    pub windows: Vec<Window>,
    /// Class of each row.
    pub labels: Vec<u32>,
    /// Image of each row among the samples.
    pub indices: Vec<u32>,
    /// Its place in the epoch, from 0.
    pub step: u64,
}

/// Iterator over the batches of one epoch. An error is an item, and the last one.
pub struct Windows {
    builder: Arc<Builder>,
    order: Order,
    epoch: u64,
    step: u64,
    end: u64,
}

impl Loader {
    /// The samples, where every batch of them can be said by windows: they lie in memory as one array, and what augmentation makes of an
    /// image is one window onto it ([`Pipeline::moves_only`](crate::Pipeline::moves_only)).
    pub fn windowed(&self) -> Option<&PackedSamples> {
        let packed = self.builder.samples.packed()?;
        self.builder.pipeline.moves_only().then_some(packed)
    }

    /// The batches of `epoch` from `first_step` on, for loaders that have [`Self::windowed`] samples.
    pub fn windows_from(&self, epoch: u64, first_step: u64) -> Windows {
        Windows {
            order: self.builder.order(epoch),
            epoch,
            step: first_step,
            end: self.builder.steps(),
            builder: Arc::clone(&self.builder),
        }
    }
}

impl Iterator for Windows {
    type Item = Result<WindowBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.step >= self.end {
            return None;
        }
        let item = self.builder.windows(&self.order, self.epoch, self.step);
        self.step = if item.is_ok() {
            self.step + 1
        } else {
            self.end
        };
        Some(item)
    }
}
