//! What can go wrong on the way to a picture.

/// Why a picture could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no SVG that can be drawn.
    #[error("the chart is no SVG that can be drawn: {0}")]
    Svg(String),
    /// The PNG would be empty, or larger than memory allows.
    #[error(
        "a picture of {width} × {height} pixels cannot be drawn\nhint: choose a scale that makes it 1 to 16384 pixels wide"
    )]
    Size {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
