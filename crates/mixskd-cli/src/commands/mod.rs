//! One file per command: its flags and what it calls.

pub(crate) mod analyze;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod datasets;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod methods;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod shared;
pub(crate) mod train;
