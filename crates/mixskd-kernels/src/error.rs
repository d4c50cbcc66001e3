//! What can go wrong in a kernel.

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a kernel call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's shape does not fit the operation.
    #[error("{op}: {what} must be {wanted}, got {got:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// The shape that was wanted, in words.
        wanted: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A setting of the operation is out of its range.
    #[error("{op}: {message}")]
    Config {
        /// The operation.
        op: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(inner) => inner,
            other => Self::wrap(other),
        }
    }
}
