//! Readers: one file each, one line each in [`ALL`].

mod cifar;
mod cifar10;
mod cifar100;
mod cub;
mod files;
mod folder;
mod hub;
mod idx;
mod shipped;

use std::path::PathBuf;

pub(crate) use folder::images_below;
pub use folder::{image_files, test_images};

use crate::recipe::Recipe;
use crate::{DataConfig, Dataset, PackedSamples, Result};

/// Name of the set that is compiled in.
pub const SHIPPED: &str = "fashion-mnist-mini";

/// Where a data set is to be read from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The set that is compiled in.
    Shipped,
    /// A set of a model hub.
    Hub(String),
    /// A folder.
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What is known of it, when it was fetched by name or bears a known name.
        recipe: Option<&'static Recipe>,
    },
}

/// One row of the table of readers.
pub struct Reader {
    /// Name, as recipes use it.
    pub name: &'static str,
    /// What the source looks like, in one line.
    pub summary: &'static str,
    /// Whether it has coarse labels beside the fine ones.
    pub coarse: bool,
    /// Whether it can split a test set off.
    pub splits: bool,
    /// Whether the source is of this kind.
    pub detect: fn(&Source) -> bool,
    /// Reads it.
    pub open: fn(&Source, &DataConfig) -> Result<Dataset>,
}

/// Every reader, the most particular first.
pub static ALL: &[Reader] = &[
    shipped::READER,
    hub::READER,
    cifar100::READER,
    cifar10::READER,
    idx::READER,
    cub::READER,
    folder::READER,
];

/// Mean and standard deviation of each channel, bytes counted as 0…1.
fn moments(samples: &PackedSamples, channels: usize) -> (Vec<f32>, Vec<f32>) {
    let mut sums = vec![(0u64, 0u64); channels];
    for pixel in samples.pixels().chunks_exact(channels) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            sum.0 += u64::from(value);
            sum.1 += u64::from(value).pow(2);
        }
    }
    let count = (samples.pixels().len() / channels).max(1) as f64;
    let both = sums.into_iter().map(|(sum, squares)| {
        let mean = sum as f64 / count;
        let variance = (squares as f64 / count - mean * mean).max(0.0);
        // One grey level everywhere has no spread to divide by.
        (
            (mean / 255.0) as f32,
            (variance.sqrt() / 255.0).max(1e-3) as f32,
        )
    });
    both.unzip()
}

#[cfg(test)]
mod tests;
