//! What a GPU did from one moment to another.

/// One launch, or one convolution's.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The kernel, or the convolution.
    pub what: String,
    /// When the GPU began with it, in milliseconds since the first.
    pub begin_ms: f32,
    /// How long it took, in milliseconds.
    pub ms: f32,
}
