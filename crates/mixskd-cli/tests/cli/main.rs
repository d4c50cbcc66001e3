//! The binary, run as a user runs it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, too, stop at the first surprise"
)]

mod analyze;
mod bench;
mod changed_data;
mod compare;
mod configs;
mod data;
mod distributed;
#[cfg(unix)]
mod faults;
mod help_and_lists;
mod report;
mod support;
mod train;
mod travel;
mod wrong_input;
