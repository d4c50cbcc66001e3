//! What a weights file says about its network.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ModelConfig;
use crate::config::MAX_INPUT;

/// How a picture of any size becomes a square input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Resize {
    /// The shorter side scaled to `shorter` pixels, then the centre square of the input side cut out: ImageNet's.
    CentreCrop {
        /// Shorter side before the cut, in pixels.
        shorter: usize,
    },
}

/// Everything prediction needs besides the tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// The network; its `input` and `channels` are the picture's.
    pub model: ModelConfig,
    /// Name of each class, in logit order; empty when the classes have no names.
    pub classes: Vec<String>,
    /// Mean per channel, of values in 0…1.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, of values in 0…1.
    pub std: Vec<f32>,
    /// How pictures are brought to the input's size.
    pub resize: Resize,
    /// Version of mixskd that wrote the file.
    pub version: String,
    /// Anything else the writer had to say.
    pub extra: BTreeMap<String, String>,
}

const EXTRA: &str = "extra.";

/// The key by which a file is known for mixskd's.
pub(super) const VERSION: &str = "mixskd.version";

impl Metadata {
    /// Metadata of a network whose pictures are scaled and cut to the input and not normalised (mean 0, deviation 1).
    pub fn new(model: ModelConfig) -> Self {
        Self {
            classes: Vec::new(),
            mean: vec![0.0; model.channels],
            std: vec![1.0; model.channels],
            resize: Resize::CentreCrop {
                shorter: model.input,
            },
            version: env!("CARGO_PKG_VERSION").into(),
            extra: BTreeMap::new(),
            model,
        }
    }

    /// Metadata as the weights of other programs want it: for RGB images ImageNet's mean and deviation, or CIFAR-100's where the
    /// recommended input is below 64 pixels; torchvision's resize to 8/7 of the input before the cut, or none.
    pub fn usual(model: ModelConfig) -> Self {
        let small = model.input < 64;
        let (mean, std) = if small {
            ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761])
        } else {
            ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        };
        let shorter = if small {
            model.input
        } else {
            // Evaluation's rule in mixskd-data, which models do not know: `Preset::eval_shorter`.
            (model.input.saturating_mul(8) / 7).min(MAX_INPUT)
        };
        let rgb = model.channels == 3;
        let plain = Self::new(model);
        Self {
            mean: if rgb { mean.to_vec() } else { plain.mean },
            std: if rgb { std.to_vec() } else { plain.std },
            resize: Resize::CentreCrop { shorter },
            ..plain
        }
    }

    /// As safetensors wants it: strings by key; lists and records are JSON.
    pub(crate) fn to_strings(&self) -> serde_json::Result<BTreeMap<String, String>> {
        let mut map = BTreeMap::from([
            // Readers in Python look for this key to learn whose conventions the tensors follow.
            ("format".into(), "pt".into()),
            (VERSION.into(), self.version.clone()),
            ("model".into(), serde_json::to_string(&self.model)?),
            ("classes".into(), serde_json::to_string(&self.classes)?),
            ("mean".into(), serde_json::to_string(&self.mean)?),
            ("std".into(), serde_json::to_string(&self.std)?),
            ("resize".into(), serde_json::to_string(&self.resize)?),
        ]);
        for (key, value) in &self.extra {
            map.insert(format!("{EXTRA}{key}"), value.clone());
        }
        Ok(map)
    }

    /// The reverse of [`Self::to_strings`]; the error names the key.
    pub(super) fn from_strings(map: &BTreeMap<String, String>) -> Result<Self, String> {
        let model: ModelConfig = parse(map, "model")?;
        let metadata = Self {
            classes: parse(map, "classes")?,
            mean: parse(map, "mean")?,
            std: parse(map, "std")?,
            resize: parse(map, "resize")?,
            version: text(map, VERSION)?.into(),
            extra: map
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(EXTRA)?.into(), value.clone())))
                .collect(),
            model,
        };
        metadata.check()?;
        Ok(metadata)
    }

    /// Whether the lists have the lengths the model wants, and pictures can be scaled and normalised as it says.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ModelConfig {
            classes,
            channels,
            input,
            ..
        } = self.model;
        if !self.classes.is_empty() && self.classes.len() != classes {
            let names = self.classes.len();
            return Err(format!(
                "metadata key `classes` has {names} names for {classes} classes"
            ));
        }
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != channels {
                let got = values.len();
                return Err(format!(
                    "metadata key `{key}` has {got} values for {channels} channels"
                ));
            }
        }
        if let Some(mean) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return Err(format!(
                "metadata key `mean` must hold finite numbers, has {mean}"
            ));
        }
        if let Some(std) = self
            .std
            .iter()
            .find(|std| !(std.is_finite() && **std > 0.0))
        {
            return Err(format!(
                "metadata key `std` must hold finite numbers above 0, has {std}"
            ));
        }
        let Resize::CentreCrop { shorter } = self.resize;
        for (what, side) in [
            ("input` of `model", input),
            ("shorter` of `resize", shorter),
        ] {
            if !(1..=MAX_INPUT).contains(&side) {
                return Err(format!(
                    "metadata key `{what}` must be from 1 to {MAX_INPUT}, is {side}"
                ));
            }
        }
        Ok(())
    }
}

fn text<'a>(map: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, String> {
    map.get(key)
        .map(String::as_str)
        .ok_or_else(|| format!("the metadata has no key `{key}`"))
}

fn parse<T: DeserializeOwned>(map: &BTreeMap<String, String>, key: &str) -> Result<T, String> {
    serde_json::from_str(text(map, key)?).map_err(|error| format!("metadata key `{key}`: {error}"))
}
