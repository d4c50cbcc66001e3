//! CIFAR-10's official binary layout.

use std::sync::Arc;

use super::{Reader, Source, cifar, moments};
use crate::recipe::recipe;
use crate::{DataConfig, Dataset, Error, Result};

pub(super) const READER: Reader = Reader {
    name: "cifar10",
    summary: "CIFAR-10 binary (data_batch_1.bin …, test_batch.bin)",
    coarse: false,
    splits: false,
    detect,
    open,
};

const INNER: &str = "cifar-10-batches-bin";
const FIRST: &str = "data_batch_1.bin";

fn detect(source: &Source) -> bool {
    matches!(source, Source::Folder { dir, .. } if cifar::locate(dir, INNER, FIRST).is_some())
}

/// Reads `data_batch_1.bin` … `data_batch_5.bin` (as many as there are) and `test_batch.bin`: records of 1 label byte and 3,072
/// pixel bytes. There are as many classes as the highest training label says.
fn open(source: &Source, _config: &DataConfig) -> Result<Dataset> {
    let dir = match source {
        Source::Folder { dir, .. } => cifar::locate(dir, INNER, FIRST),
        _ => None,
    };
    let Some(dir) = dir else {
        return Err(Error::source(
            "cifar-10",
            format!("has no {FIRST}"),
            "mixskd datasets fetch cifar-10",
        ));
    };
    let names = cifar::names(&dir.join("batches.meta.txt"), 10)?;
    let layout = cifar::Layout {
        labels: 1,
        class: 0,
        names: &names,
    };
    let mut train = layout.read(&dir.join(FIRST))?;
    // A smaller set may end before the fifth file, but a gap is a file lost: reading it says which.
    let batch = |n: usize| dir.join(format!("data_batch_{n}.bin"));
    let last = (1..=5).rev().find(|&n| batch(n).exists()).unwrap_or(1);
    for n in 2..=last {
        train.append(layout.read(&batch(n))?);
    }
    let test = layout.read(&dir.join("test_batch.bin"))?;
    let (mean, std) = match recipe("cifar-10") {
        Some(recipe) => (recipe.mean.clone(), recipe.std.clone()),
        None => moments(&train, 3),
    };
    Ok(Dataset {
        name: "cifar-10".into(),
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
