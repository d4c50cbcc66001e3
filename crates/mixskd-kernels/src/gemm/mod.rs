//! Matrix multiplication in register tiles.
//!
//! The right operand of [`micro::rows`] is packed once per call ([`pack`]); the left one is read where it lies through a
//! table of row pointers, so that a convolution needs no copy of its input.

pub(crate) mod micro;
pub(crate) mod pack;
