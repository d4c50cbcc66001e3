//! Without the `hub` feature.

use crate::readers::Source;
use crate::{DataConfig, Dataset, Error, Result};

pub(super) fn open(_source: &Source, config: &DataConfig) -> Result<Dataset> {
    Err(Error::source(
        &config.source,
        "this build has no hub support",
        "build again with --features hub",
    ))
}
