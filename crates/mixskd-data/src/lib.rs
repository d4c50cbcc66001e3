//! Image-classification data: readers, augmentation, pair sampling, deterministic parallel batches.
//!
//! A [`DataConfig`] names a data set and opens it as a [`Dataset`]; a [`Pipeline`] augments and normalises its images; a
//! [`Loader`] makes [`Batch`]es of them, in parallel and ahead of the step that eats them; a [`PairSampler`] says which images of
//! a batch are mixed. The crate knows nothing of models.
//!
//! Every random draw is a function of (seed, epoch, sample or step, purpose), see [`rng`]: the same batches come out whatever the
//! number of threads, and an epoch can be entered at any step.
//!
//! # A loader over a folder
//!
//! ```
//! use mixskd_data::{DataConfig, Loader, LoaderConfig};
//!
//! // Two classes of five pictures each: FOLDER/red/*.png and FOLDER/blue/*.png.
//! let folder = tempfile::tempdir()?;
//! for (class, colour) in [("red", [200, 0, 0]), ("blue", [0, 0, 200])] {
//!     std::fs::create_dir(folder.path().join(class))?;
//!     for n in 0..5 {
//!         let picture = image::RgbImage::from_pixel(40, 30, image::Rgb(colour));
//!         picture.save(folder.path().join(class).join(format!("{n}.png")))?;
//!     }
//! }
//!
//! let source = folder.path().display().to_string();
//! let dataset = DataConfig { source, val_fraction: Some(0.2), ..DataConfig::default() }.open()?;
//! assert_eq!(dataset.classes, ["blue", "red"]);
//!
//! let config = LoaderConfig { batch: 4, ..LoaderConfig::default() };
//! let loader = Loader::new(dataset.train.clone(), dataset.train_pipeline(32)?, config)?;
//! for epoch in 0..2 {
//!     for batch in loader.epoch(epoch) {
//!         let batch = batch?;
//!         assert_eq!(batch.images.dims(), [4, 32, 32, 3]);
//!         assert_eq!(batch.labels.len(), 4);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod augment;
mod boxes;
mod companions;
mod config;
mod dataset;
mod decode;
mod duplicates;
mod error;
mod fetch;
mod image;
mod jpeg;
mod loader;
mod nearest;
mod pairs;
pub mod readers;
mod recipe;
pub mod rng;
mod samples;
mod shrink;

/// The version of candle that this crate's tensors are of.
pub use candle_core;
/// What options of augmentations are written in.
pub use toml;
/// The generators that augmentations draw from, and the traits by which one draws.
pub use {rand, rand_chacha};

pub use augment::{AugmentConfig, Pipeline, Preset};
pub use boxes::PixelBox;
pub use companions::BatchNeeds;
pub use config::{DataConfig, LabelKind, data_root};
pub use dataset::{Dataset, Identity};
pub use decode::{EXTENSIONS, read_image};
pub use duplicates::Duplicates;
pub use error::{Error, Result};
pub use fetch::{FetchEvent, fetch};
pub use image::{Image, ImageView};
pub use loader::{Balance, Batch, Epoch, Loader, LoaderConfig, Shard, WindowBatch, Windows};
pub use nearest::did_you_mean;
pub use pairs::{LambdaPer, PairSampler, Pairs};
pub use readers::{image_files, test_images};
pub use recipe::{Recipe, RemoteFile, recipe, recipes};
pub use samples::{FileSamples, PackedSamples, Samples};
pub use shrink::{Shrink, ShrinkConfig, Shrunk};
