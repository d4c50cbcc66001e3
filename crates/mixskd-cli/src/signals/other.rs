//! Systems without Unix signals: whoever stops the program stops it at once, and the newest checkpoint stays.

use std::process::Command;

use super::Request;
use crate::failure::Result;

/// Listens to nothing.
#[allow(clippy::unnecessary_wraps, reason = "its twin can fail")]
pub(crate) fn watch(_listener: impl Fn(Request) + Send + 'static) -> Result<()> {
    Ok(())
}

/// What its twin says of SIGINT.
pub(crate) fn status() -> u8 {
    130
}

/// Nobody is asked.
pub(crate) fn pass_on(_child: u32, _request: Request) {}

/// Nobody is asked.
pub(crate) fn end_with_parent(_command: &mut Command) {}
