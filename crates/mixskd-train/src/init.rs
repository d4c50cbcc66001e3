//! Where a run's weights start: fine-tuning instead of training from random values.

use std::fmt;
use std::path::PathBuf;

use mixskd_models::weights::{ImportReport, StateDict};
use mixskd_models::{ModelConfig, ParamStore, Strictness};
use serde::{Deserialize, Serialize};

use crate::method::BACKBONE;
use crate::{Error, Result, files};

/// Weights to start from, and how what is new learns beside what is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// File of weights of the same network: ours, other safetensors, or PyTorch's, as `mixskd import` takes them. A class head of
    /// another number of classes is dropped and starts anew.
    pub weights: Option<PathBuf>,
    /// Load the tensors that fit and leave the rest at their initial values; otherwise every tensor must fit.
    pub partial: bool,
    /// Leaves everything before the class head as the file has it, running statistics included.
    pub freeze_backbone: bool,
    /// Factor on the learning rate of the class head and of whatever the method puts beside the backbone.
    pub head_lr_factor: f64,
}

impl Default for InitConfig {
    fn default() -> Self {
        Self {
            weights: None,
            partial: false,
            freeze_backbone: false,
            head_lr_factor: 1.0,
        }
    }
}

/// Factors beyond it are a slip of the finger.
const MAX_FACTOR: f64 = 1e4;

impl InitConfig {
    /// Checks every field; the file is not looked at.
    ///
    /// # Errors
    /// Naming the key.
    pub fn validate(&self) -> Result<()> {
        let factor = self.head_lr_factor;
        if !(factor > 0.0 && factor <= MAX_FACTOR) {
            return Err(Error::config(
                "init.head_lr_factor",
                format!("must be above 0 and at most {MAX_FACTOR}, got {factor}"),
            ));
        }
        if self.freeze_backbone && self.weights.is_none() {
            return Err(Error::Config {
                place: "init.freeze_backbone".into(),
                message: "a backbone of random values would stay random".into(),
                hint: Some("name the weights to start from with --init FILE".into()),
            });
        }
        Ok(())
    }

    /// Makes the backbone of `model` in `store` and sets it from the file, where one is named.
    pub(crate) fn load(&self, store: &ParamStore, model: &ModelConfig) -> Result<Option<Start>> {
        let Some(path) = &self.weights else {
            return Ok(None);
        };
        if !path.is_file() {
            return Err(Error::Config {
                place: "init.weights".into(),
                message: format!("{}: there is no such file", path.display()),
                hint: Some("a .safetensors, .pth or .pt file".into()),
            });
        }
        let state = StateDict::read(path)?;
        let strictness = if self.partial {
            Strictness::Partial
        } else {
            Strictness::Exact
        };
        let own = state.metadata().map(|metadata| &metadata.model);
        let own = own.filter(|own| own.name != model.name || own.width != model.width);
        let misfit = |error| match error {
            mixskd_models::Error::Weights {
                source_name,
                report,
            } => Error::Config {
                place: "init.weights".into(),
                message: format!("{source_name} does not fit {}: {report}", model.name),
                hint: Some(match own {
                    Some(own) => {
                        format!(
                            "they are of --model {} --width {}; --set init.partial=true takes what fits",
                            own.name, own.width
                        )
                    }
                    None => {
                        "another --model or --width? --set init.partial=true takes what fits".into()
                    }
                }),
            },
            other => other.into(),
        };
        state.check(model, strictness).map_err(misfit)?;
        model.build(store.builder().pp(BACKBONE))?;
        let report = state
            .load_into(store, BACKBONE, model, strictness)
            .map_err(misfit)?;
        Ok(Some(Start {
            path: path.clone(),
            sha256: files::sha256(path)?,
            report,
            normalised: state
                .metadata()
                .map(|own| (own.mean.clone(), own.std.clone())),
        }))
    }
}

/// What became of the file that a run starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Which of its tensors were taken.
    pub report: ImportReport,
    /// Mean and standard deviation its network was trained with, where the file says so.
    pub normalised: Option<(Vec<f32>, Vec<f32>)>,
}

impl Start {
    /// Says so where the data are normalised otherwise than the file's network wants them.
    pub(crate) fn other_normalisation(&self, mean: &[f32], std: &[f32]) -> Option<String> {
        let (own_mean, own_std) = self.normalised.as_ref()?;
        if own_mean == mean && own_std == std {
            return None;
        }
        Some(format!(
            "{} was trained with mean {own_mean:?} and standard deviation {own_std:?}; these data are normalised with {mean:?} and {std:?}",
            self.path.display()
        ))
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "starts from {}: {}", self.path.display(), self.report)
    }
}

/// Names of the backbone's parameters before its class head, sorted.
pub(crate) fn body(store: &ParamStore, backbone: &dyn mixskd_models::Backbone) -> Vec<String> {
    let classifier = backbone.classifier();
    let head = [classifier.weight().id(), classifier.bias().id()];
    let parameters = store.parameters().into_iter();
    parameters
        .filter(|(name, var)| {
            name.strip_prefix(BACKBONE)
                .is_some_and(|rest| rest.starts_with('.'))
                && !head.contains(&var.id())
        })
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        let check = |change: fn(&mut InitConfig), wanted: &str| {
            let mut config = InitConfig::default();
            config.validate().unwrap();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(wanted));
        };
        check(|c| c.head_lr_factor = 0.0, "init.head_lr_factor");
        check(|c| c.head_lr_factor = f64::NAN, "init.head_lr_factor");
        check(|c| c.freeze_backbone = true, "init.freeze_backbone");
    }
}
