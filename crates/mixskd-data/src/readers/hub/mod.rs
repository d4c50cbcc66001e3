//! Sets of a model hub, through candle-datasets.

#[cfg(feature = "hub")]
mod enabled;
#[cfg(feature = "hub")]
use enabled::open;

#[cfg(not(feature = "hub"))]
mod disabled;
#[cfg(not(feature = "hub"))]
use disabled::open;

// Tested without the feature too: it needs candle alone.
#[cfg(any(feature = "hub", test))]
mod layout;

use super::{Reader, Source};

pub(super) const READER: Reader = Reader {
    name: "hub",
    summary: "a set of a model hub (hub:cifar-10, hub:mnist, hub:fashion-mnist)",
    coarse: false,
    splits: false,
    detect,
    open,
};

fn detect(source: &Source) -> bool {
    matches!(source, Source::Hub(_))
}
