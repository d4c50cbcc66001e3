//! What can go wrong with reports and analyses.

use std::path::{Path, PathBuf};

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of reading a run, analysing a network or writing a page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A directory holds no run.
    #[error("{}: {}", path.display(), if *exists { "is no run directory: it holds no config.toml" } else { "there is no such directory" })]
    NoRun {
        /// The directory.
        path: PathBuf,
        /// Whether it is there at all.
        exists: bool,
    },
    /// A picture could not be made.
    #[error("cannot make a picture: {0}")]
    Picture(String),
    /// The run failed.
    #[error(transparent)]
    Train(#[from] mixskd_train::Error),
    /// The network could not be asked.
    #[error(transparent)]
    Analyze(#[from] mixskd_analyze::Error),
    /// A chart could not be drawn.
    #[error(transparent)]
    Chart(#[from] mixskd_chart::Error),
}

impl From<mixskd_data::Error> for Error {
    fn from(error: mixskd_data::Error) -> Self {
        Self::Train(error.into())
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Train(error.into())
    }
}

impl Error {
    /// An [`Error::File`], as a closure for `map_err`.
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            path,
            action,
            source,
        }
    }

    /// What went wrong, without the hint.
    pub fn cause(&self) -> String {
        match self {
            Self::Train(error) => error.cause(),
            _ => split(&self.to_string()).0,
        }
    }

    /// What the user can do about it, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => {
                Some("check that the path is right and that you may read and write there".into())
            }
            Self::Damaged { .. } => {
                Some("leave the run out, or go on with it by `mixskd train --resume`, which writes its files anew".into())
            }
            Self::NoRun { path, .. } if path.join("compare.toml").is_file() => Some(format!(
                "a comparison's runs lie in {}",
                path.join("runs").display()
            )),
            Self::NoRun { .. } => {
                Some("name directories that `mixskd train` wrote, such as runs/001-…".into())
            }
            Self::Train(error) => error.hint(),
            Self::Picture(_) | Self::Analyze(_) | Self::Chart(_) => split(&self.to_string()).1,
        }
    }

    /// Whether the caller asked for something that cannot be, as against something that failed on the way.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Train(error) => error.is_usage(),
            Self::NoRun { .. } => true,
            _ => false,
        }
    }
}

/// A message of a crate below, and the hint behind it.
fn split(text: &str) -> (String, Option<String>) {
    match text.split_once("\nhint: ") {
        Some((cause, hint)) => (cause.into(), Some(hint.into())),
        None => (text.into(), None),
    }
}
