//! Which data, and where it lies.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::nearest::did_you_mean;
use crate::readers::{self, Source};
use crate::recipe::{recipe, recipes};
use crate::{AugmentConfig, Balance, Dataset, Error, Result};

/// Which of CIFAR-100's two labels is the class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 superclasses.
    Coarse,
}

/// Which data set, as plain data.
///
/// `source` is one of
/// - a known name (`mixskd datasets`): the shipped `fashion-mnist-mini`, which needs no file, or a set fetched before;
/// - a folder, whose contents tell its layout;
/// - `hub:NAME`, a set from a model hub, when the crate is built with its `hub` feature.
///
/// Fetched sets lie under [`data_root`].
///
/// ```
/// use mixskd_data::DataConfig;
///
/// let dataset = DataConfig::default().open()?;
/// assert_eq!((dataset.train.len(), dataset.classes.len()), (6000, 10));
/// # Ok::<(), mixskd_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A known name, a folder, or `hub:NAME`.
    pub source: String,
    /// CIFAR-100's fine or coarse labels.
    pub labels: LabelKind,
    /// Share of each class that becomes the test set, for folders without one; between 0 and 1.
    pub val_fraction: Option<f64>,
    /// Leave unreadable images out, and count them, instead of stopping.
    pub skip_unreadable: bool,
    /// Seed of the split that `val_fraction` asks for.
    pub seed: u64,
    /// Random horizontal flip of training images. Not set: on for image folders, CIFAR and Fashion-MNIST, off for MNIST and IDX files of no known name.
    pub flip: Option<bool>,
    /// How far an epoch makes up for classes of unequal numbers: 0 takes every training image once, 1 every class as often, 0.5 classes by the square root of
    /// their numbers. Images of small classes are then taken several times, each time augmented otherwise; an epoch stays as long.
    pub balance: f64,
    /// Epochs at the beginning in which every image is taken once all the same: deferred re-balancing (Cao et al., Learning Imbalanced Datasets with
    /// Label-Distribution-Aware Margin Loss, NeurIPS 2019), which from the first epoch on seldom pays.
    pub balance_after: u64,
    /// Whether training images are cropped at random. Sets whose images all have one size of at most 96 pixels: after padding by 2 pixels (inputs below 32) or
    /// an eighth of the side; others: a box of 8 to 100 % of the area, resized. Without it they are prepared as those of evaluation are.
    pub crop: bool,
    /// Training augmentation beyond the crop and flip that suit the data: names of [`augment::ALL`](crate::augment::ALL), or tables
    /// `{ op = "NAME", … }` with options. Applied after crop and flip in this order, but for what is done to normalised numbers (`cutout`,
    /// `random_erasing`): that comes after all others, in this order among themselves.
    pub augment: Vec<AugmentConfig>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: readers::SHIPPED.into(),
            labels: LabelKind::Fine,
            val_fraction: None,
            skip_unreadable: false,
            seed: 0,
            flip: None,
            balance: 0.0,
            balance_after: 0,
            crop: true,
            augment: Vec::new(),
        }
    }
}

/// The folder that fetched data sets lie in: `$MIXSKD_DATA`; else `mixskd` in the user's cache folder (`$XDG_CACHE_HOME`,
/// `~/.cache`); else `./data`.
pub fn data_root() -> PathBuf {
    let set = |key| {
        std::env::var_os(key)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("MIXSKD_DATA")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("mixskd")))
        .or_else(|| set("HOME").map(|home| home.join(".cache").join("mixskd")))
        .unwrap_or_else(|| "data".into())
}

impl DataConfig {
    /// How a training loader balances classes.
    pub fn balance(&self) -> Balance {
        Balance {
            strength: self.balance,
            after: self.balance_after,
        }
    }

    /// Opens the data set, with known names looked up in [`data_root`].
    ///
    /// # Errors
    /// When the source is not there or not known, its files are damaged, its labels are out of range, it has one class only, or
    /// an augmentation is unknown or has an option out of range.
    pub fn open(&self) -> Result<Dataset> {
        self.open_in(&data_root())
    }

    /// [`open`](Self::open), with known names looked up in `root`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(&self, root: &Path) -> Result<Dataset> {
        self.balance().check()?;
        if let Some(fraction) = self.val_fraction
            && !(fraction > 0.0 && fraction < 1.0)
        {
            let message = format!("must lie between 0 and 1, got {fraction}");
            return Err(Error::config("val_fraction", message, "for example 0.2"));
        }
        let augment = self
            .augment
            .iter()
            .map(AugmentConfig::build)
            .collect::<Result<Vec<_>>>()?;
        let source = self.resolve(root)?;
        let Some(reader) = readers::ALL.iter().find(|reader| (reader.detect)(&source)) else {
            return Err(self.unknown_layout(&source));
        };
        if self.labels == LabelKind::Coarse && !reader.coarse {
            let message = format!("{} has no coarse labels", self.source);
            return Err(Error::config(
                "labels",
                message,
                "only CIFAR-100 has; leave it at `fine`",
            ));
        }
        if self.val_fraction.is_some() && !reader.splits {
            let message = format!("{} comes with its own test set", self.source);
            return Err(Error::config("val_fraction", message, "leave it out"));
        }
        let dataset = (reader.open)(&source, self)?.checked()?;
        Ok(Dataset {
            augment,
            mirror: self.flip.unwrap_or(dataset.mirror),
            crop: self.crop,
            ..dataset
        })
    }

    fn resolve(&self, root: &Path) -> Result<Source> {
        let name = self.source.as_str();
        if let Some(hub) = name.strip_prefix("hub:") {
            return Ok(Source::Hub(hub.into()));
        }
        if name == readers::SHIPPED {
            return Ok(Source::Shipped);
        }
        let here = Path::new(name);
        if let Some(recipe) = recipe(name) {
            let fetched = root.join(name);
            if fetched.is_dir() {
                return Ok(Source::Folder {
                    dir: fetched.join(&recipe.root),
                    recipe: Some(recipe),
                });
            }
            if !here.is_dir() {
                let message = format!("is not in {}", root.display());
                return Err(Error::source(
                    name,
                    message,
                    format!("mixskd datasets fetch {name}"),
                ));
            }
        }
        if here.is_dir() {
            let known = here
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(recipe);
            return Ok(Source::Folder {
                dir: here.into(),
                recipe: known,
            });
        }
        if here.exists() {
            return Err(Error::source(
                name,
                "is a file, not a folder",
                "give the folder it lies in",
            ));
        }
        if name.is_empty() {
            return Err(Error::source(
                "data",
                "the name is empty",
                did_you_mean(name, recipes().iter().map(|recipe| recipe.name.as_str())),
            ));
        }
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(Error::source(
                name,
                "there is no such folder",
                "check the path",
            ));
        }
        let hint = did_you_mean(name, recipes().iter().map(|recipe| recipe.name.as_str()));
        Err(Error::source(
            name,
            "there is no folder and no known data set of that name",
            hint,
        ))
    }

    fn unknown_layout(&self, source: &Source) -> Error {
        let empty = match source {
            Source::Folder { dir, .. } => {
                std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
            }
            _ => false,
        };
        let message = if empty {
            "the folder is empty"
        } else {
            "holds none of the known layouts"
        };
        let layouts = readers::ALL
            .iter()
            .map(|reader| reader.summary)
            .collect::<Vec<_>>()
            .join("; ");
        Error::source(&self.source, message, format!("known layouts: {layouts}"))
    }
}
