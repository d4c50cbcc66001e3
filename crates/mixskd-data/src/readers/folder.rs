//! Image folders: one folder per class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::{Reader, Source};
use crate::dataset::SMALL;
use crate::decode::{EXTENSIONS, read_image, read_size};
use crate::rng::{Purpose, stream};
use crate::{DataConfig, Dataset, Error, FileSamples, Result};

pub(super) const READER: Reader = Reader {
    name: "folder",
    summary: "an image folder (train/CLASS/*, val|test/CLASS/*; or CLASS/* with --val-fraction)",
    coarse: false,
    splits: true,
    detect,
    open,
};

/// ImageNet's constants, in use for photographs everywhere.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Input size recommended for photographs, in pixels.
const INPUT: usize = 224;

/// Files of each class.
type Classes = BTreeMap<String, Vec<PathBuf>>;

fn detect(source: &Source) -> bool {
    matches!(source, Source::Folder { dir, .. } if entries(dir).is_ok_and(|found| found.iter().any(|path| path.is_dir())))
}

/// Reads `train/CLASS/*` with `val/CLASS/*` or `test/CLASS/*`; a single folder of classes (or a lone `train`) is split by
/// `val_fraction`, class by class. Classes are sorted by name; hidden files and files that are no images are passed over.
fn open(source: &Source, config: &DataConfig) -> Result<Dataset> {
    let Source::Folder { dir, recipe } = source else {
        return Err(Error::source(
            "folder",
            "is read from folders only",
            "give a folder",
        ));
    };
    let inner = dir.join("train");
    let train_dir = if inner.is_dir() { inner } else { dir.clone() };
    let test_dir = ["val", "test"]
        .map(|name| dir.join(name))
        .into_iter()
        .find(|path| path.is_dir() && train_dir != *dir);
    let mut train = classes_of(&train_dir)?;
    let mut test = match &test_dir {
        Some(path) => classes_of(path)?,
        None => Classes::new(),
    };
    if let (Some(path), true) = (&test_dir, config.val_fraction.is_some()) {
        let message = format!("{} holds test images already", path.display());
        return Err(Error::config(
            "val_fraction",
            message,
            "leave it out, or give the training folder alone",
        ));
    }
    let skipped = if config.skip_unreadable {
        drop_unreadable([&mut train, &mut test])
    } else {
        Vec::new()
    };
    for (class, files) in &train {
        if files.is_empty() {
            let hint = format!(
                "a class needs images ({}); remove the folder if it is no class",
                EXTENSIONS.join(", ")
            );
            return Err(Error::layout(
                &train_dir.join(class),
                "holds no readable image",
                hint,
            ));
        }
    }
    match (&test_dir, config.val_fraction) {
        (Some(path), _) => same_classes(&train, &test, path)?,
        (None, Some(fraction)) => test = split(&mut train, fraction, config.seed, &train_dir)?,
        (None, None) => {
            let message = "has no val or test folder beside its training images";
            return Err(Error::layout(
                dir,
                message,
                "add one, or split some off with --val-fraction 0.2",
            ));
        }
    }
    let classes: Vec<String> = train.keys().cloned().collect();
    let (train, test) = (label(&classes, train), label(&classes, test));
    let uniform = uniform_size(&train, &test);
    let recommended = recipe.map_or((INPUT, INPUT), |recipe| (recipe.size[0], recipe.size[1]));
    let folder = dir.file_name().map_or_else(
        || dir.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok(Dataset {
        name: recipe.map_or(folder, |recipe| recipe.name.clone()),
        classes,
        channels: 3,
        size: uniform.unwrap_or(recommended),
        mean: MEAN.to_vec(),
        std: STD.to_vec(),
        train: Arc::new(FileSamples::new(train, 3)),
        test: Arc::new(FileSamples::new(test, 3)),
        uniform: uniform.is_some(),
        mirror: true,
        skipped,
    })
}

/// What a folder holds, sorted, hidden entries left out.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let path = entry.map_err(Error::io(dir, "list"))?.path();
        if path
            .file_name()
            .is_some_and(|name| !name.to_string_lossy().starts_with('.'))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_image(path: &Path) -> bool {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) && path.is_file()
}

fn classes_of(dir: &Path) -> Result<Classes> {
    let mut classes = Classes::new();
    for path in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        classes.insert(
            name,
            entries(&path)?
                .into_iter()
                .filter(|path| is_image(path))
                .collect(),
        );
    }
    if classes.is_empty() {
        return Err(Error::layout(
            dir,
            "holds no class folder",
            "wanted is CLASS/IMAGE: one folder for each class",
        ));
    }
    Ok(classes)
}

/// Decodes every file, takes out those that cannot be, and says which and why.
fn drop_unreadable(splits: [&mut Classes; 2]) -> Vec<String> {
    let mut skipped = Vec::new();
    for files in splits.into_iter().flat_map(Classes::values_mut) {
        let checked: Vec<(PathBuf, Option<String>)> = std::mem::take(files)
            .into_par_iter()
            .map(|path| {
                let reason = read_image(&path, 3).err().map(|error| match error {
                    Error::Image {
                        origin, message, ..
                    } => format!("{origin}: {message}"),
                    other => other.to_string(),
                });
                (path, reason)
            })
            .collect();
        for (path, reason) in checked {
            match reason {
                None => files.push(path),
                Some(reason) => skipped.push(reason),
            }
        }
    }
    skipped
}

fn same_classes(train: &Classes, test: &Classes, test_dir: &Path) -> Result<()> {
    match test.keys().find(|class| !train.contains_key(*class)) {
        None => Ok(()),
        Some(class) => {
            let message = "is a class that training does not have";
            Err(Error::layout(
                &test_dir.join(class),
                message,
                "class folders are matched by name",
            ))
        }
    }
}

/// Moves `fraction` of each class, at least one image, from `train` to the result.
fn split(train: &mut Classes, fraction: f64, seed: u64, dir: &Path) -> Result<Classes> {
    let mut test = Classes::new();
    for (at, (class, files)) in train.iter_mut().enumerate() {
        if files.len() < 2 {
            let message = "has one image only, which cannot be split into training and test";
            return Err(Error::layout(
                &dir.join(class),
                message,
                "add images or remove the class",
            ));
        }
        let count = ((files.len() as f64 * fraction).round() as usize).clamp(1, files.len() - 1);
        files.shuffle(&mut stream(seed, 0, at as u64, Purpose::Split));
        let mut taken = files.split_off(files.len() - count);
        files.sort();
        taken.sort();
        test.insert(class.clone(), taken);
    }
    Ok(test)
}

fn label(classes: &[String], files: Classes) -> Vec<(PathBuf, u32)> {
    let index = |class: &String| classes.binary_search(class).unwrap_or_default() as u32;
    files
        .into_iter()
        .flat_map(|(class, files)| {
            let label = index(&class);
            files.into_iter().map(move |path| (path, label))
        })
        .collect()
}

/// The size all images share, if they do and it is small: such folders are treated like CIFAR.
///
/// A few headers tell most folders apart; only when those agree are all of them read.
fn uniform_size(train: &[(PathBuf, u32)], test: &[(PathBuf, u32)]) -> Option<(usize, usize)> {
    let size = train.first().and_then(|(path, _)| read_size(path).ok())?;
    let same = |(path, _): &(PathBuf, u32)| read_size(path).is_ok_and(|other| other == size);
    let probe = train.iter().step_by((train.len() / 16).max(1)).all(same);
    let small = size.0.max(size.1) <= SMALL;
    (small && probe && train.par_iter().chain(test).all(same)).then_some(size)
}
