//! CIFAR-100's official binary layout.

use std::sync::Arc;

use super::{Reader, Source, cifar, moments};
use crate::recipe::recipe;
use crate::{DataConfig, Dataset, Error, LabelKind, Result};

pub(super) const READER: Reader = Reader {
    name: "cifar100",
    summary: "CIFAR-100 binary (train.bin, test.bin)",
    coarse: true,
    splits: false,
    detect,
    open,
};

const INNER: &str = "cifar-100-binary";
const TRAIN: &str = "train.bin";

fn detect(source: &Source) -> bool {
    matches!(source, Source::Folder { dir, .. } if cifar::locate(dir, INNER, TRAIN).is_some())
}

/// Reads `train.bin` and `test.bin`: records of a coarse label byte, a fine label byte and 3,072 pixel bytes. There are as many
/// classes as the highest training label says, so a file of the first 20 classes trains a network of 20.
fn open(source: &Source, config: &DataConfig) -> Result<Dataset> {
    let dir = match source {
        Source::Folder { dir, .. } => cifar::locate(dir, INNER, TRAIN),
        _ => None,
    };
    let Some(dir) = dir else {
        return Err(Error::source(
            "cifar-100",
            format!("has no {TRAIN}"),
            "mixskd datasets fetch cifar-100",
        ));
    };
    let (name, class, file, count) = match config.labels {
        LabelKind::Coarse => ("cifar-100 (coarse)", 0, "coarse_label_names.txt", 20),
        LabelKind::Fine => ("cifar-100", 1, "fine_label_names.txt", 100),
    };
    let names = cifar::names(&dir.join(file), count)?;
    let layout = cifar::Layout {
        labels: 2,
        class,
        names: &names,
    };
    let train = layout.read(&dir.join(TRAIN))?;
    let test = layout.read(&dir.join("test.bin"))?;
    let (mean, std) = match recipe("cifar-100") {
        Some(recipe) => (recipe.mean.clone(), recipe.std.clone()),
        None => moments(&train, 3),
    };
    Ok(Dataset {
        name: name.into(),
        classes: cifar::occurring(names, &train),
        channels: 3,
        size: (cifar::SIDE, cifar::SIDE),
        mean,
        std,
        train: Arc::new(train),
        test: Arc::new(test),
        uniform: true,
        mirror: true,
        crop: true,
        augment: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
    })
}
