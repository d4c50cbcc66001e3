//! Augmentations: one file each, one line each in [`ALL`].
//!
//! An augmentation moves the window of a [`Canvas`], resizes it, or changes its pixels ([`Op`]), with numbers drawn from the
//! sample's own stream. [`Pipeline`] strings them together and ends in normalised f32.

mod augmix;
mod autoaugment;
mod buffers;
mod canvas;
mod centre_crop;
mod cutout;
mod flip;
mod normalised;
mod ops;
mod pad_crop;
mod pipeline;
mod policy;
mod preset;
mod randaugment;
mod random_erasing;
mod random_resized_crop;
mod resize;
mod space;
mod trivialaugment;

use std::fmt::Debug;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use augmix::AugMix;
pub use autoaugment::{AutoAugment, Policy};
pub use canvas::{Canvas, Window};
pub use centre_crop::CentreCrop;
pub use cutout::Cutout;
pub use flip::Flip;
pub use normalised::Normalised;
pub use ops::Op;
pub use pad_crop::PadCrop;
pub use pipeline::Pipeline;
pub use preset::Preset;
pub use randaugment::RandAugment;
pub use random_erasing::{Erased, RandomErasing};
pub use random_resized_crop::RandomResizedCrop;
pub use resize::Resize;
pub use trivialaugment::TrivialAugment;

use crate::nearest::did_you_mean;
use crate::{Error, Result};

/// Largest side that an image is scaled or cut to, in pixels.
pub(crate) const MAX_SIZE: usize = 8192;

/// One augmentation.
pub trait Augment: Debug + Send + Sync {
    /// Does it to `canvas`.
    ///
    /// # Errors
    /// When the image does not allow it.
    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()>;

    /// Does what has to be done to normalised numbers, after every augmentation's [`apply`](Self::apply), with the same stream.
    fn finish(&self, _image: &mut Normalised<'_>, _rng: &mut ChaCha8Rng) {}

    /// Whether all it ever does is to move the canvas's window: crops, pads, mirrors.
    fn moves_only(&self) -> bool {
        false
    }

    /// Whether all it ever does is to mirror the canvas.
    fn mirrors_only(&self) -> bool {
        false
    }

    /// Height and width after it, for an image of `size`; `None` stands for a size that is not the same for all images.
    fn size(&self, size: Option<(usize, usize)>) -> Option<(usize, usize)> {
        size
    }
}

/// One row of the table of augmentations.
pub struct Entry {
    /// Name in a configuration.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its defaults as TOML.
    pub defaults: fn() -> toml::Table,
    /// Makes it from its options.
    pub build: fn(toml::Table) -> std::result::Result<Arc<dyn Augment>, String>,
}

/// Every augmentation.
pub static ALL: &[Entry] = &[
    pad_crop::ENTRY,
    flip::ENTRY,
    random_resized_crop::ENTRY,
    resize::ENTRY,
    centre_crop::ENTRY,
    cutout::ENTRY,
    random_erasing::ENTRY,
    autoaugment::ENTRY,
    randaugment::ENTRY,
    augmix::ENTRY,
    trivialaugment::ENTRY,
];

/// An augmentation by name with its options: `op = "pad_crop"`, `padding = 4`. Options left out keep their defaults, and in a
/// list a bare name stands for a table without options.
///
/// ```
/// use mixskd_data::augment::AugmentConfig;
///
/// let config: AugmentConfig = toml::from_str("op = 'pad_crop'\npadding = 2").unwrap();
/// config.build()?;
/// # Ok::<(), mixskd_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AugmentConfig {
    /// A name of [`ALL`].
    pub op: String,
    /// Its options.
    pub options: toml::Table,
}

impl Serialize for AugmentConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if self.options.is_empty() {
            return serializer.serialize_str(&self.op);
        }
        let mut map = serializer.serialize_map(Some(1 + self.options.len()))?;
        map.serialize_entry("op", &self.op)?;
        for (key, value) in &self.options {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for AugmentConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let wanted = "an augmentation is a name, or a table with its name as `op` and its options";
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(op) => Ok(Self {
                op,
                options: toml::Table::new(),
            }),
            toml::Value::Table(mut options) => match options.remove("op") {
                Some(toml::Value::String(op)) => Ok(Self { op, options }),
                _ => Err(D::Error::custom(wanted)),
            },
            _ => Err(D::Error::custom(wanted)),
        }
    }
}

impl AugmentConfig {
    /// Makes the augmentation.
    ///
    /// # Errors
    /// When there is none of that name, or an option is unknown or out of range.
    pub fn build(&self) -> Result<Arc<dyn Augment>> {
        let Some(entry) = ALL.iter().find(|entry| entry.name == self.op) else {
            let message = format!("there is no augmentation called `{}`", self.op);
            return Err(Error::config(
                "augment",
                message,
                did_you_mean(&self.op, ALL.iter().map(|entry| entry.name)),
            ));
        };
        (entry.build)(self.options.clone()).map_err(|message| {
            let hint = format!(
                "its options with their defaults: {}",
                inline(&(entry.defaults)())
            );
            Error::config(format!("augment.{}", entry.name), message, hint)
        })
    }
}

fn inline(table: &toml::Table) -> String {
    let options = table
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect::<Vec<_>>();
    if options.is_empty() {
        "none".into()
    } else {
        options.join(", ")
    }
}

/// A table's defaults, for [`Entry::defaults`].
fn defaults<T: Default + Serialize>() -> toml::Table {
    toml::Table::try_from(T::default()).unwrap_or_default()
}

/// Options to an augmentation, for [`Entry::build`].
fn build<T>(options: toml::Table) -> std::result::Result<Arc<dyn Augment>, String>
where
    T: Augment + DeserializeOwned + Validate + 'static,
{
    let op: T = options
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_string())?;
    op.validate()?;
    Ok(Arc::new(op))
}

/// A check of options that their types cannot make.
trait Validate {
    fn validate(&self) -> std::result::Result<(), String>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};
    use crate::{DataConfig, ImageView};

    fn picture() -> Vec<u8> {
        (0..40 * 36 * 3).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn every_entry_builds_applies_and_repeats() {
        let pixels = picture();
        let view = ImageView {
            height: 40,
            width: 36,
            channels: 3,
            pixels: &pixels,
        };
        for entry in ALL {
            let op = (entry.build)((entry.defaults)()).unwrap();
            let size = op.size(Some((40, 36))).unwrap();
            // Bytes stay bytes in this normalisation, so that every number but an erased one must be whole.
            let pipeline = Pipeline::new(vec![op], &[0.0; 3], &[1.0 / 255.0; 3]).unwrap();
            let run = |index| {
                let mut out = vec![-1.0; size.0 * size.1 * 3];
                let mut rng = stream(1, 2, index, Purpose::Augment);
                // Refuses a result of another size than the augmentation says.
                pipeline.apply(view, size, &mut rng, &mut out).unwrap();
                out
            };
            for index in 0..50 {
                let out = run(index);
                assert_eq!(out, run(index), "{} does not repeat", entry.name);
                assert!(
                    out.iter().all(|v| (0.0..=255.001).contains(v)),
                    "{}",
                    entry.name
                );
            }
            let random = (0..50).any(|index| run(index) != run(0));
            let fixed = ["resize", "centre_crop"].contains(&entry.name);
            assert_eq!(random, !fixed, "{}", entry.name);
        }
    }

    #[test]
    fn names_are_unique_and_options_round_trip() {
        for (at, entry) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != entry.name));
            assert!(!entry.summary.is_empty());
            let full = AugmentConfig {
                op: entry.name.into(),
                options: (entry.defaults)(),
            };
            let bare = AugmentConfig {
                op: entry.name.into(),
                options: toml::Table::new(),
            };
            let text = toml::to_string(&full).unwrap();
            assert_eq!(toml::from_str::<AugmentConfig>(&text).unwrap(), full);
            // Alone, side by side, and bare names beside tables.
            for augment in [vec![full.clone()], vec![bare.clone()], vec![bare, full]] {
                let config = DataConfig {
                    augment,
                    ..DataConfig::default()
                };
                let text = toml::to_string(&config).unwrap();
                assert_eq!(
                    toml::from_str::<DataConfig>(&text).unwrap(),
                    config,
                    "{text}"
                );
                for op in config.augment {
                    op.build().unwrap();
                }
            }
        }
    }

    #[test]
    fn unknown_names_and_options_are_refused_with_a_hint() {
        let check = |text: &str, expected: &str| {
            let error = toml::from_str::<AugmentConfig>(text)
                .unwrap()
                .build()
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        let error = toml::from_str::<DataConfig>("augment = [{ size = 3 }]").unwrap_err();
        assert!(error.to_string().contains("a name, or a table"), "{error}");
        check("op = 'padcrop'", "did you mean `pad_crop`");
        check("op = 'pad_crop'\npad = 4", "unknown field `pad`");
        check("op = 'flip'\np = 1.5", "p must be between 0 and 1");
        check("op = 'resize'\nsize = 0", "size must be");
        check("op = 'centre_crop'\nsize = 0", "size must be");
        check("op = 'cutout'\nsize = 0", "size must be");
        check("op = 'random_erasing'\np = 2", "p must be");
        check("op = 'autoaugment'\npolicy = 'cifar'", "`cifar10`");
        check("op = 'randaugment'\nmagnitude = 31", "magnitude must be");
        check("op = 'trivialaugment'\nbins = 1", "bins must be");
        check("op = 'augmix'\nseverity = 11", "severity must be");
        check(
            "op = 'random_resized_crop'\nscale = [0.5, 0.1]",
            "scale must be",
        );
    }
}
