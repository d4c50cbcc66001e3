//! Windows' console: Ctrl-C and Ctrl-Break reach every process that shares it.

use std::process::Command;

use super::Request;
use crate::failure::{Failure, Result};

/// Exit status of what a user ended by SIGINT elsewhere.
const STATUS: u8 = 130;

/// Tells `listener` of every Ctrl-C, on a thread of its own, from now on.
pub(crate) fn watch(listener: impl Fn(Request) + Send + 'static) -> Result<()> {
    let mut stopping = false;
    let work = move || {
        if std::mem::replace(&mut stopping, true) {
            listener(Request::Now);
            std::process::exit(STATUS.into());
        }
        listener(Request::Stop);
    };
    ctrlc::set_handler(work)
        .map_err(|error| Failure::failed(format!("cannot listen to Ctrl-C: {error}"), None))
}

/// Exit status of a process that ended because somebody asked it to.
pub(crate) fn status() -> u8 {
    STATUS
}

/// A child shares the console, which has asked it already.
pub(crate) fn pass_on(_child: u32, _request: Request) {}

/// A child whose parent was killed finishes the run that it has: nothing asks it.
pub(crate) fn end_with_parent(_command: &mut Command) {}
