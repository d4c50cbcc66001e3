//! What can go wrong with a model.

use std::path::PathBuf;

use crate::store::LoadReport;

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of building, running, loading or saving a model. Its text is a cause and, where there is something to be done, a
/// `hint:` on a second line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No network of that name.
    #[error("unknown model `{name}`; there are {known}\nhint: did you mean `{nearest}`?")]
    UnknownModel {
        /// The name that was asked for.
        name: String,
        /// The known name nearest to it.
        nearest: String,
        /// Every known name.
        known: String,
    },
    /// A setting of a model is out of its range.
    #[error("model: `{key}` {message}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What is wrong with it, and what is allowed.
        message: String,
    },
    /// A tensor or stage does not fit a module.
    #[error("{module}: {what} must be {wanted}, got {got}")]
    Shape {
        /// The module.
        module: &'static str,
        /// Which argument.
        what: &'static str,
        /// What was wanted.
        wanted: String,
        /// What came.
        got: String,
    },
    /// Batch statistics of a single value: training cannot normalise.
    #[error(
        "batch norm: training needs more than one value per channel, got batch {batch} at {height}×{width} pixels\n\
         hint: a larger batch or a larger input"
    )]
    SingleValue {
        /// Batch size.
        batch: usize,
        /// Height of the feature map.
        height: usize,
        /// Width of the feature map.
        width: usize,
    },
    /// Tensors do not fit the model they are loaded into.
    #[error(
        "{source_name}: the weights do not fit the model: {report}\nhint: another model, width or number of classes? `mixskd import --partial` takes what fits"
    )]
    Weights {
        /// Where the weights came from.
        source_name: String,
        /// Which tensors are missing, extra or of another shape.
        report: Box<LoadReport>,
    },
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
    /// A file is no weights file, or a damaged one.
    #[error("{}: {message}\nhint: {hint}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A network cannot be written as an ONNX file.
    #[error("onnx: {0}")]
    Onnx(String),
    /// A kernel refused.
    #[error(transparent)]
    Kernel(#[from] mixskd_kernels::Error),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            Error::Kernel(inner) => inner.into(),
            other => Self::wrap(other),
        }
    }
}
