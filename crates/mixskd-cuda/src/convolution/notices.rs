//! What whoever trains should know of how convolutions are computed.

use std::sync::{Mutex, PoisonError};

/// What was told, and how much of it has been taken.
static TOLD: Mutex<(Vec<String>, usize)> = Mutex::new((Vec::new(), 0));

/// Has a text told, unless it was before.
pub(super) fn tell(text: String) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.0.contains(&text) {
        told.0.push(text);
    }
}

/// What has come up since this was last asked; each text once in a process.
pub fn take_notices() -> Vec<String> {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let new = told.0[told.1..].to_vec();
    told.1 = told.0.len();
    new
}
