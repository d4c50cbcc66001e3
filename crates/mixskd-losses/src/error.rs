//! What can go wrong in a loss.

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a loss or of its configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's shape does not fit the loss.
    #[error("{op}: {what} must be {wanted}, got {got:?}")]
    Shape {
        /// The loss.
        op: &'static str,
        /// Which argument.
        what: String,
        /// The shape that was wanted, in words.
        wanted: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A tensor's number type does not fit the loss.
    #[error("{op}: {what} must be {wanted}, got {got:?}")]
    DType {
        /// The loss.
        op: &'static str,
        /// Which argument.
        what: String,
        /// The type that was wanted, in words.
        wanted: &'static str,
        /// The type that came.
        got: candle_core::DType,
    },
    /// The lists of one network's outputs do not agree in length.
    #[error(
        "objective: {what} holds {got} tensors, wanted {wanted}, one for each branch and the backbone"
    )]
    Heads {
        /// Which list.
        what: &'static str,
        /// How many were wanted.
        wanted: usize,
        /// How many came.
        got: usize,
    },
    /// A number is outside its range.
    #[error("{key} = {value} is out of range\nhint: {hint}")]
    Range {
        /// The argument or configuration key.
        key: &'static str,
        /// What it was set to.
        value: f64,
        /// What it may be.
        hint: &'static str,
    },
    /// No objective has this name.
    #[error("unknown objective `{name}`\nhint: did you mean `{nearest}`? known: {known}")]
    UnknownObjective {
        /// The name asked for.
        name: String,
        /// The known name most like it.
        nearest: &'static str,
        /// Every known name.
        known: String,
    },
    /// The kernels refused.
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
