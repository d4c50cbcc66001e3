//! The set that ships with the crate, compiled in.

use std::path::Path;

use flate2::read::GzDecoder;

use super::idx::{Split, assemble, parse};
use super::{Reader, SHIPPED, Source};
use crate::recipe::recipe;
use crate::{DataConfig, Dataset, Result};

pub(super) const READER: Reader = Reader {
    name: "shipped",
    summary: "the set compiled in (fashion-mnist-mini)",
    coarse: false,
    splits: false,
    detect,
    open,
};

macro_rules! file {
    ($name:literal) => {
        (
            concat!("fashion-mnist-mini/", $name),
            include_bytes!(concat!("../../../../datasets/fashion-mnist-mini/", $name)).as_slice(),
        )
    };
}

type File = (&'static str, &'static [u8]);

const TRAIN: [File; 2] = [
    file!("train-images-idx3-ubyte.gz"),
    file!("train-labels-idx1-ubyte.gz"),
];
const TEST: [File; 2] = [
    file!("t10k-images-idx3-ubyte.gz"),
    file!("t10k-labels-idx1-ubyte.gz"),
];

fn detect(source: &Source) -> bool {
    matches!(source, Source::Shipped)
}

fn open(_source: &Source, _config: &DataConfig) -> Result<Dataset> {
    assemble(SHIPPED, recipe(SHIPPED), unpack(TRAIN)?, unpack(TEST)?)
}

fn unpack([images, labels]: [File; 2]) -> Result<Split> {
    let file = |(name, bytes): File| (Path::new(name), GzDecoder::new(bytes));
    parse(file(images), file(labels))
}
