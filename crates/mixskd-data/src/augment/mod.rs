//! Augmentations: one file each, one line each in [`ALL`].
//!
//! An augmentation moves the window of a [`Canvas`], or resizes it, with numbers drawn from the sample's own stream.
//! [`Pipeline`] strings them together and ends in normalised f32.

mod canvas;
mod centre_crop;
mod flip;
mod pad_crop;
mod pipeline;
mod preset;
mod random_resized_crop;
mod resize;

use std::fmt::Debug;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use canvas::Canvas;
pub use centre_crop::CentreCrop;
pub use flip::Flip;
pub use pad_crop::PadCrop;
pub use pipeline::Pipeline;
pub use preset::Preset;
pub use random_resized_crop::RandomResizedCrop;
pub use resize::Resize;

use crate::nearest::did_you_mean;
use crate::{Error, Result};

/// One augmentation.
pub trait Augment: Debug + Send + Sync {
    /// Does it to `canvas`.
    ///
    /// # Errors
    /// When the image does not allow it.
    fn apply(&self, canvas: &mut Canvas<'_>, rng: &mut ChaCha8Rng) -> Result<()>;

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
];

/// An augmentation by name with its options: `op = "pad_crop"`, `padding = 4`. Options left out keep their defaults.
///
/// ```
/// use mixskd_data::augment::AugmentConfig;
///
/// let config: AugmentConfig = toml::from_str("op = 'pad_crop'\npadding = 2").unwrap();
/// config.build()?;
/// # Ok::<(), mixskd_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AugmentConfig {
    /// A name of [`ALL`].
    pub op: String,
    /// Its options.
    #[serde(flatten)]
    pub options: toml::Table,
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
    use crate::ImageView;
    use crate::rng::{Purpose, stream};

    fn picture() -> Vec<u8> {
        (0..40 * 36 * 3).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn every_entry_builds_applies_and_repeats() {
        let pixels = picture();
        for entry in ALL {
            let op = (entry.build)((entry.defaults)()).unwrap();
            let run = |index| {
                let mut canvas = Canvas::new(ImageView {
                    height: 40,
                    width: 36,
                    channels: 3,
                    pixels: &pixels,
                });
                op.apply(&mut canvas, &mut stream(1, 2, index, Purpose::Augment))
                    .unwrap();
                let mut out = vec![0.0; canvas.height() * canvas.width() * 3];
                canvas.normalise_into(&[std::array::from_fn(|v| v as f32); 3], &mut out);
                ((canvas.height(), canvas.width()), out)
            };
            for index in 0..20 {
                let (size, out) = run(index);
                assert_eq!(
                    (size, &out),
                    (run(index).0, &run(index).1),
                    "{} does not repeat",
                    entry.name
                );
                assert_eq!(
                    op.size(Some((40, 36))),
                    Some(size),
                    "{} gives another size than it says",
                    entry.name
                );
                assert!(
                    out.iter().all(|v| (0.0..=255.0).contains(v)),
                    "{}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn names_are_unique_and_options_round_trip() {
        for (at, entry) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != entry.name));
            assert!(!entry.summary.is_empty());
            let config = AugmentConfig {
                op: entry.name.into(),
                options: (entry.defaults)(),
            };
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<AugmentConfig>(&text).unwrap(), config);
            config.build().unwrap();
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
        check("op = 'padcrop'", "did you mean `pad_crop`");
        check("op = 'pad_crop'\npad = 4", "unknown field `pad`");
        check("op = 'flip'\np = 1.5", "p must be between 0 and 1");
        check("op = 'resize'\nsize = 0", "size must be");
        check("op = 'centre_crop'\nsize = 0", "size must be");
        check(
            "op = 'random_resized_crop'\nscale = [0.5, 0.1]",
            "scale must be",
        );
    }
}
