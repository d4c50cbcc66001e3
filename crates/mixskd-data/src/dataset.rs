//! An opened data set.

use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::augment::{Augment, Flip, MAX_SIZE};
use crate::{Error, Pipeline, Preset, Result, Samples};

/// Images, labels, and what a network and its augmentation need to know of them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Dataset {
    /// Short name, for reports.
    pub name: String,
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Height and width: of every image when `uniform`, else what is recommended as a network's input.
    pub size: (usize, usize),
    /// Mean of each channel, on the scale where a byte of 255 is 1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, on the same scale.
    pub std: Vec<f32>,
    /// Training images.
    pub train: Arc<dyn Samples>,
    /// Test (or validation) images.
    pub test: Arc<dyn Samples>,
    /// Whether every image has `size` already.
    pub uniform: bool,
    /// Whether the mirror image of a thing is still that thing: not so for digits and letters.
    pub mirror: bool,
    /// Whether training images are cropped at random as suits the data; without it they are prepared as those of evaluation are.
    pub crop: bool,
    /// Training augmentation beyond what suits the data anyway, applied after it.
    pub augment: Vec<Arc<dyn Augment>>,
    /// Unreadable files that were left out, each with the reason.
    pub skipped: Vec<String>,
    /// What its user should know of it.
    pub notes: Vec<String>,
}

/// What makes a data set the same one: what a run that goes on has to find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Classes.
    pub classes: usize,
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
    /// SHA-256 over the names of the classes.
    pub names: String,
    /// SHA-256 over every image's label and, where it is a file, that file's place below the set's folder; in order.
    pub images: String,
    /// Where all pixels lie in memory, SHA-256 over them; `None` where images are files or come one by one, and in what earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<String>,
}

impl Identity {
    /// How `now` differs from it; nothing where it does not.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let counts = |of: &Self| {
            format!(
                "{} classes, {} training and {} test images",
                of.classes, of.train, of.test
            )
        };
        if counts(self) != counts(now) {
            return Some(format!(
                "{}, where there were {}",
                counts(now),
                counts(self)
            ));
        }
        if self.names != now.names {
            return Some("its classes have other names".into());
        }
        if self.images != now.images {
            return Some("as many images as before, but others, or others in the test set".into());
        }
        let known = self.pixels.is_some() && now.pixels.is_some();
        (known && self.pixels != now.pixels)
            .then(|| "the same labels as before, but other pixels".into())
    }
}

/// Uniform images up to this many pixels a side are augmented and fed to networks as they are, like CIFAR's.
pub(crate) const SMALL: usize = 96;

impl Dataset {
    /// Training and test images from anywhere, of `size` = (height, width) or, as files are, of any size, for an input of `size`. Pixels are not
    /// normalised beyond −2 … 2 (mean 0.5, deviation 0.25), and training images are cropped and mirrored: set the fields that are to be
    /// otherwise.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use mixskd_data::{Dataset, PackedSamples};
    ///
    /// let samples = |n: usize| {
    ///     let labels = (0..n as u32).map(|k| k % 2).collect();
    ///     PackedSamples::new((8, 8, 3), vec![128; n * 192], labels, "memory")
    /// };
    /// let classes = vec!["dark".to_string(), "light".to_string()];
    /// let mut dataset = Dataset::new("made", classes, 3, (8, 8), Arc::new(samples(10)?), Arc::new(samples(4)?));
    /// dataset.uniform = true;
    /// dataset.mirror = false;
    /// dataset.check()?;
    /// # Ok::<(), mixskd_data::Error>(())
    /// ```
    pub fn new(
        name: impl Into<String>,
        classes: Vec<String>,
        channels: usize,
        size: (usize, usize),
        train: Arc<dyn Samples>,
        test: Arc<dyn Samples>,
    ) -> Self {
        Self {
            name: name.into(),
            classes,
            channels,
            size,
            mean: vec![0.5; channels],
            std: vec![0.25; channels],
            train,
            test,
            uniform: false,
            mirror: true,
            crop: true,
            augment: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The family of augmentations that suits it.
    pub fn preset(&self) -> Preset {
        if self.uniform && self.size.0.max(self.size.1) <= SMALL {
            Preset::Cifar
        } else {
            Preset::ImageNet
        }
    }

    /// Side of the square input it is best fed at, in pixels.
    pub fn input_size(&self) -> usize {
        self.size.0.min(self.size.1)
    }

    /// Training augmentation for an input of `size × size` pixels.
    ///
    /// # Errors
    /// When `size` is 0 or above 8,192.
    pub fn train_pipeline(&self, size: usize) -> Result<Pipeline> {
        check_size(size)?;
        let preset = self.preset();
        let mut ops = if self.crop {
            preset.train(size, self.size, self.mirror)
        } else {
            let mut ops = preset.eval(size, self.size);
            if self.mirror {
                ops.push(Arc::new(Flip::default()));
            }
            ops
        };
        ops.extend_from_slice(&self.augment);
        Pipeline::new(ops, &self.mean, &self.std)
    }

    /// Evaluation's preparation for an input of `size × size` pixels; it draws nothing.
    ///
    /// # Errors
    /// When `size` is 0 or above 8,192.
    pub fn eval_pipeline(&self, size: usize) -> Result<Pipeline> {
        check_size(size)?;
        Pipeline::new(self.preset().eval(size, self.size), &self.mean, &self.std)
    }

    /// Images of each class, of training and of the test.
    pub fn class_images(&self) -> [Vec<usize>; 2] {
        [&self.train, &self.test].map(|samples| {
            let mut counts = vec![0; self.classes.len()];
            for index in 0..samples.len() {
                if let Some(count) = counts.get_mut(samples.label(index) as usize) {
                    *count += 1;
                }
            }
            counts
        })
    }

    /// What makes it this one. Pixels are looked at where all lie in memory: a quick read beside an epoch, while files would have to be decoded.
    pub fn identity(&self) -> Identity {
        let mut names = Sha256::new();
        for class in &self.classes {
            names.update(class);
            names.update([0]);
        }
        let mut images = Sha256::new();
        for samples in [&self.train, &self.test] {
            for index in 0..samples.len() {
                images.update(samples.label(index).to_le_bytes());
                images.update(samples.file(index).unwrap_or_default());
                images.update([0]);
            }
        }
        let hex = |hash: Sha256| format!("{:x}", hash.finalize());
        Identity {
            classes: self.classes.len(),
            train: self.train.len(),
            test: self.test.len(),
            names: hex(names),
            images: hex(images),
            pixels: self.pixels(),
        }
    }

    /// SHA-256 over shapes and pixels of training and test images, where all lie in memory; made of those of pieces, so that many threads can work on it.
    fn pixels(&self) -> Option<String> {
        const PIECE: usize = 1 << 20;
        let mut whole = Sha256::new();
        for samples in [&self.train, &self.test] {
            let packed = samples.packed()?;
            let (height, width, channels) = packed.shape();
            for side in [height, width, channels] {
                whole.update((side as u64).to_le_bytes());
            }
            let pieces = packed.pixels().par_chunks(PIECE).map(Sha256::digest);
            for piece in pieces.collect::<Vec<_>>() {
                whole.update(piece);
            }
        }
        Some(format!("{:x}", whole.finalize()))
    }

    /// Refuses what no network can learn from.
    ///
    /// # Errors
    /// When there is a single class, no training or no test image, or a label that is no class.
    pub fn checked(self) -> Result<Self> {
        self.check()?;
        Ok(self)
    }

    /// The same, and leaves it where it is.
    ///
    /// # Errors
    /// As [`Self::checked`].
    pub fn check(&self) -> Result<()> {
        if self.classes.len() < 2 {
            return Err(Error::source(
                &self.name,
                format!("has only one class ({})", self.classes.join("")),
                "a classifier needs at least two",
            ));
        }
        for (split, samples) in [("training", &self.train), ("test", &self.test)] {
            if samples.is_empty() {
                let hint = "check that the files are complete";
                return Err(Error::source(
                    &self.name,
                    format!("has no {split} image"),
                    hint,
                ));
            }
            if let Some(view) = samples.view(0)
                && view.channels != self.channels
            {
                return Err(Error::source(
                    &self.name,
                    format!(
                        "its {split} images have {} channels, the set says {}",
                        view.channels, self.channels
                    ),
                    "set `channels` to that of the images",
                ));
            }
            if let Some(index) =
                (0..samples.len()).find(|&i| samples.label(i) as usize >= self.classes.len())
            {
                return Err(Error::source(
                    samples.origin(index),
                    format!(
                        "label {} is out of range: training has {} classes",
                        samples.label(index),
                        self.classes.len()
                    ),
                    "training and test files must hold the same classes",
                ));
            }
        }
        Ok(())
    }
}

fn check_size(size: usize) -> Result<()> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    Err(Error::config(
        "image_size",
        format!("must be between 1 and {MAX_SIZE}, got {size}"),
        "for example 32 or 224",
    ))
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("name", &self.name)
            .field("classes", &self.classes.len())
            .field("channels", &self.channels)
            .field("size", &self.size)
            .field("train", &self.train.len())
            .field("test", &self.test.len())
            .field("uniform", &self.uniform)
            .field("skipped", &self.skipped.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PackedSamples;

    #[test]
    fn pixels_in_memory_are_part_of_what_a_set_is() {
        let set = |test_pixel: u8, shape: (usize, usize, usize)| {
            let samples = |pixel| {
                let pixels = vec![pixel; 2 * 48];
                Arc::new(PackedSamples::new(shape, pixels, vec![0, 1], "memory").unwrap())
            };
            let classes = vec!["a".to_string(), "b".to_string()];
            let size = (shape.0, shape.1);
            Dataset::new("own", classes, 3, size, samples(1), samples(test_pixel))
        };
        let began = set(2, (4, 4, 3)).identity();
        assert_eq!(began.difference(&set(2, (4, 4, 3)).identity()), None);
        for other in [set(3, (4, 4, 3)), set(2, (2, 8, 3))] {
            let told = began.difference(&other.identity()).unwrap();
            assert!(told.contains("other pixels"), "{told}");
        }
        // What was written before pixels were looked at goes with any.
        let earlier = Identity {
            pixels: None,
            ..began
        };
        assert_eq!(earlier.difference(&set(3, (4, 4, 3)).identity()), None);
        let text = serde_json::to_string(&earlier).unwrap();
        assert!(!text.contains("pixels"));
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), earlier);
    }
}
