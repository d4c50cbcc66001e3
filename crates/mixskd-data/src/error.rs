//! What can go wrong with data.

use std::path::{Path, PathBuf};

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of finding, reading, fetching or batching data. Its text is a cause and, on a second line, a `hint:`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No data set answers to the given name or folder.
    #[error("{name}: {message}\nhint: {hint}")]
    Source {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A file or folder does not hold what its format wants.
    #[error("{}: {message}\nhint: {hint}", path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: String,
    },
    /// An image cannot be decoded or does not fit the others.
    #[error("{origin}: {message}\nhint: {hint}")]
    Image {
        /// The image: its file, or its record in a file.
        origin: String,
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: String,
    },
    /// An augmentation refused an image.
    #[error("{origin}: {source}")]
    Augment {
        /// The image: its file, or its record in a file.
        origin: String,
        /// What the augmentation said.
        source: Box<Error>,
    },
    /// A setting is unknown or out of its range.
    #[error("{key}: {message}\nhint: {hint}")]
    Config {
        /// The setting.
        key: String,
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A data set could not be fetched.
    #[error("cannot fetch {name}: {message}\nhint: {hint}")]
    Fetch {
        /// The data set.
        name: String,
        /// What went wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// What [`Pipeline::apply`](crate::Pipeline::apply) said, of the image that is called `origin`.
    #[must_use]
    pub fn of(self, origin: impl Into<String>) -> Self {
        let origin = origin.into();
        match self {
            Self::Image { message, hint, .. } => Self::Image {
                origin,
                message,
                hint,
            },
            other => Self::Augment {
                origin,
                source: Box::new(other),
            },
        }
    }

    /// An [`Error::Io`], as a closure for `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    pub(crate) fn source(
        name: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Source {
            name: name.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn layout(path: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Layout {
            path: path.to_path_buf(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn config(
        key: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Config {
            key: key.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// An image that cannot be decoded.
    pub(crate) fn unreadable(origin: impl Into<String>, message: impl Into<String>) -> Self {
        let hint = "`mixskd data check` lists all of these; mend or remove them, or begin with --skip-unreadable, which leaves them out";
        // Decoders end their words with a full stop, and ours go on behind them.
        let message = message.into();
        Self::Image {
            origin: origin.into(),
            message: message.trim_end_matches('.').into(),
            hint: hint.into(),
        }
    }
}
