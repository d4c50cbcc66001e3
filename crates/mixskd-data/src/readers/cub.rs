//! CUB-200-2011's own layout: lists of images, labels and splits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::{self, Classes};
use super::{Reader, Source};
use crate::{DataConfig, Dataset, Error, Result};

pub(super) const READER: Reader = Reader {
    name: "cub",
    summary: "CUB-200-2011 (images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images/)",
    coarse: false,
    splits: false,
    detect,
    open,
};

const IMAGES: &str = "images.txt";
const LABELS: &str = "image_class_labels.txt";
const SPLIT: &str = "train_test_split.txt";
const CLASSES: &str = "classes.txt";

/// The folder with the lists: `dir`, or the one the archive unpacks to.
fn locate(dir: &Path) -> Option<PathBuf> {
    [dir.to_path_buf(), dir.join("CUB_200_2011")]
        .into_iter()
        .find(|dir| {
            [IMAGES, LABELS, SPLIT, CLASSES]
                .iter()
                .all(|name| dir.join(name).is_file())
        })
}

fn detect(source: &Source) -> bool {
    matches!(source, Source::Folder { dir, .. } if locate(dir).is_some())
}

/// Reads the four lists, each line an id and a value: an image's path under `images/`, its class, whether it is for training (1)
/// or testing (0), and a class's name.
fn open(source: &Source, config: &DataConfig) -> Result<Dataset> {
    let (dir, recipe) = match source {
        Source::Folder { dir, recipe } => (locate(dir), *recipe),
        _ => (None, None),
    };
    let Some(dir) = dir else {
        return Err(Error::source(
            "cub-200-2011",
            format!("has no {IMAGES}"),
            "mixskd datasets fetch cub-200-2011",
        ));
    };
    let names = list(&dir.join(CLASSES))?;
    let labels = list(&dir.join(LABELS))?;
    let split = list(&dir.join(SPLIT))?;
    let images = dir.join("images");
    let (mut train, mut test) = (Classes::new(), Classes::new());
    for (id, path) in list(&dir.join(IMAGES))? {
        let class = look_up(&labels, &id, &dir.join(LABELS))?;
        let name = look_up(&names, class, &dir.join(CLASSES))?.clone();
        let into = match look_up(&split, &id, &dir.join(SPLIT))?.as_str() {
            "1" => &mut train,
            "0" => &mut test,
            other => {
                let message = format!("image {id} is marked `{other}`");
                return Err(Error::layout(
                    &dir.join(SPLIT),
                    message,
                    "1 is for training, 0 for testing",
                ));
            }
        };
        into.entry(name).or_default().push(images.join(path));
    }
    if let Some(class) = test.keys().find(|class| !train.contains_key(*class)) {
        let message = format!("class {class} has test images and no training image");
        return Err(Error::layout(
            &dir.join(SPLIT),
            message,
            "both splits must hold the same classes",
        ));
    }
    let skipped = files::skip(config, &mut train, &mut test, |class, others| {
        let also = files::as_are(others);
        let message = format!("holds no readable training image of class {class}{also}");
        Error::layout(&images, message, "unpack or fetch the set again")
    })?;
    // Lists have any order; files are taken in the order of their names.
    train
        .values_mut()
        .chain(test.values_mut())
        .for_each(|files| files.sort());
    Ok(files::assemble(&dir, recipe, train, test, skipped))
}

/// Lines of an id, a space and a value.
fn list(path: &Path) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let (id, value) = line.trim().split_once(' ').ok_or_else(|| {
                let message = format!("line {} is `{line}`", at + 1);
                Error::layout(path, message, "each line is an id, a space and a value")
            })?;
            Ok((id.to_string(), value.to_string()))
        })
        .collect()
}

fn look_up<'a>(list: &'a HashMap<String, String>, id: &str, path: &Path) -> Result<&'a String> {
    list.get(id).ok_or_else(|| {
        Error::layout(
            path,
            format!("has no line for id {id}"),
            "the lists must belong together; fetch or unpack them again",
        )
    })
}
