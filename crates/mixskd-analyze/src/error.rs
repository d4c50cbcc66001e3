//! What can go wrong with an analysis.

use std::path::PathBuf;

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range.
    #[error("{key}: {message}\nhint: {hint}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Weights and data, or two weights files, do not belong together.
    #[error("{message}\nhint: {hint}")]
    Fit {
        /// Which, and how they differ.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A network's logits are not finite.
    #[error(
        "{network}: the logits of {image} are not finite\nhint: were these weights of a run that diverged? take an earlier epoch's"
    )]
    NotFinite {
        /// Which weights.
        network: String,
        /// Which image.
        image: String,
    },
    /// A file could not be written.
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A picture or a result could not be encoded.
    #[error("cannot encode {what}: {message}")]
    Encode {
        /// What it is.
        what: &'static str,
        /// What the encoder says.
        message: String,
    },
    /// The data pipeline failed.
    #[error(transparent)]
    Data(#[from] mixskd_data::Error),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] mixskd_models::Error),
    /// A loss failed.
    #[error(transparent)]
    Loss(#[from] mixskd_losses::Error),
    /// A kernel failed.
    #[error(transparent)]
    Kernel(#[from] mixskd_kernels::Error),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(
        key: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Config {
            key,
            message: message.into(),
            hint: hint.into(),
        }
    }
}
