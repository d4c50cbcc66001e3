//! Image folders: one folder per class.

use std::fs::FileType;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::files::{self, Classes};
use super::{Reader, Source};
use crate::decode::EXTENSIONS;
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

fn detect(source: &Source) -> bool {
    matches!(source, Source::Folder { dir, .. } if folders(dir).is_ok_and(|mut found| found.next().is_some()))
}

/// Reads `train/CLASS/*` (or `training`) with `val/CLASS/*` (or `valid`, `validation`) or `test/CLASS/*` (or `testing`), in whatever case; a single folder of classes (or a lone `train`) is split by
/// `val_fraction`, class by class. Classes are sorted by name; their images are those of all folders below, too. Hidden files and
/// files that are no images are passed over.
fn open(source: &Source, config: &DataConfig) -> Result<Dataset> {
    let Source::Folder { dir, recipe } = source else {
        return Err(Error::source(
            "folder",
            "is read from folders only",
            "give a folder",
        ));
    };
    let (val_dir, unused) = (
        split_folder(dir, &["val", "valid", "validation"])?,
        split_folder(dir, &["test", "testing"])?,
    );
    let inner = match split_folder(dir, &["train", "training"])? {
        // By another name it may be a class, unless there is something to test on beside it.
        Some(path) if path.ends_with("train") || val_dir.is_some() || unused.is_some() => {
            Some(path)
        }
        _ => None,
    };
    let (train_dir, val_dir, unused) = match inner {
        Some(inner) => (inner, val_dir, unused),
        None => (dir.clone(), None, None),
    };
    let (test_dir, unused) = match (val_dir, unused) {
        (Some(val), unused) => (Some(val), unused),
        (None, test) => (test, None),
    };
    if train_dir == *dir
        && let Some(inner) = set_within(dir)?
    {
        let message = format!("is not the set itself: that is {}", inner.display());
        let hint = format!("give {}, or take it out of there", inner.display());
        return Err(Error::layout(dir, message, hint));
    }
    let mut others = Vec::new();
    let mut train = classes_of(&train_dir, &mut others)?;
    let mut test = match &test_dir {
        Some(path) => classes_of(path, &mut others)?,
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
    let skipped = files::skip(config, &mut train, &mut test, |class, others| {
        let hint = format!(
            "a class needs images ({}); remove the folder if it is no class",
            EXTENSIONS.join(", ")
        );
        let message = format!("holds no readable image{}", files::as_are(others));
        Error::layout(&train_dir.join(class), message, hint)
    })?;
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
    let mut dataset = files::assemble(dir, *recipe, train, test, skipped);
    dataset.notes.extend(passed_over(dir, &others));
    if let (Some(used), Some(unused)) = (test_dir, unused) {
        let used = used.file_name().unwrap_or_default().to_string_lossy();
        let note = format!(
            "{} is not read: the test images are those of {used}",
            unused.display()
        );
        dataset.notes.push(note);
    }
    Ok(dataset)
}

/// The folder in `dir` called by the first of `names`; without one, that with folders in it which is called by any of them, in whatever case.
///
/// # Errors
/// When several are: which is meant?
fn split_folder(dir: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    // By the listing: there are file systems where `Train`, which may be a class, answers to `train`.
    if let Some(usual) = folders(dir)?.find(|path| path.ends_with(names[0])) {
        return Ok(Some(usual));
    }
    let is_called = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let holds_classes = || folders(path).is_ok_and(|mut inner| inner.next().is_some());
        names.contains(&name.to_lowercase().as_str()) && holds_classes()
    };
    let mut found = folders(dir)?.filter(is_called);
    let first = found.next();
    match found.next() {
        None => Ok(first),
        Some(other) => Err(Error::layout(
            &other,
            format!(
                "is one of several folders that could be meant by {}",
                names[0]
            ),
            "leave one of them there",
        )),
    }
}

/// The set that lies in `dir`, where that is none itself: the only folder that has both splits, or the only folder, either with several classes.
fn set_within(dir: &Path) -> Result<Option<PathBuf>> {
    // What cannot be listed is told by whoever reads the set.
    let has_classes = |path: &Path| {
        classes_of(path, &mut Vec::new()).is_ok_and(|classes| {
            let with_images = classes.values().filter(|images| !images.is_empty());
            with_images.count() > 1
        })
    };
    let has_splits = |path: &&PathBuf| {
        let Ok(inner) = folders(path) else {
            return false;
        };
        let inner: Vec<PathBuf> = inner.collect();
        let split = |names: &[&str]| {
            let is_called = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                names.contains(&name.to_lowercase().as_str())
            };
            inner.iter().find(is_called)
        };
        split(&["val", "valid", "validation", "test", "testing"]).is_some()
            && split(&["train", "training"]).is_some_and(|train| has_classes(train))
    };
    let inner: Vec<PathBuf> = folders(dir)?.collect();
    let mut sets = inner.iter().filter(has_splits);
    match (sets.next(), sets.next(), &inner[..]) {
        (Some(set), None, _) => Ok(Some(set.clone())),
        (None, _, [only]) if has_classes(only) => Ok(Some(only.clone())),
        _ => Ok(None),
    }
}

/// The images in `dir` and all folders below it, sorted; hidden ones are left out, and links to folders not followed. With a word on what was passed over, where
/// anything was.
///
/// # Errors
/// When a folder cannot be listed.
pub fn image_files(dir: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let mut others = Vec::new();
    let images = images_below(dir, &mut others)?;
    Ok((images, passed_over(dir, &others)))
}

/// The images of `dir/CLASS/*` and below as test images for a network that knows `classes`, which folders are matched with by name; not
/// every class needs one. Colour images where `channels` is 3, grey ones where it is 1. With a word on what was passed over, where anything was.
///
/// # Errors
/// When a folder cannot be listed, is no class, or there is no image.
pub fn test_images(
    dir: &Path,
    classes: &[String],
    channels: usize,
) -> Result<(FileSamples, Option<String>)> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for (class, images) in classes_of(dir, &mut others)? {
        let Some(label) = classes.iter().position(|known| *known == class) else {
            return Err(Error::layout(
                &dir.join(&class),
                "is a class that the network does not know",
                "class folders are matched by name",
            ));
        };
        files.extend(images.into_iter().map(|path| (path, label as u32)));
    }
    if files.is_empty() {
        let hint = format!("wanted is CLASS/IMAGE ({})", EXTENSIONS.join(", "));
        return Err(Error::layout(dir, "holds no image", hint));
    }
    let samples = FileSamples::new(files, channels).below(dir.into());
    Ok((samples, passed_over(dir, &others)))
}

/// What to say of what lies among images and is none.
fn passed_over(dir: &Path, others: &[PathBuf]) -> Option<String> {
    let names: Vec<String> = others
        .iter()
        .map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let s = if names.len() == 1 {
        "file is"
    } else {
        "files are"
    };
    (!names.is_empty()).then(|| {
        format!(
            "{} {s} no image of a kind that is read ({}), or a link to a folder, and passed over: {}",
            names.len(),
            EXTENSIONS.join(", "),
            files::first(&names)
        )
    })
}

/// Folders that other systems leave among pictures, with thumbnails in them.
const OF_OTHERS: [&str; 2] = ["@eaDir", "__MACOSX"];

/// What a folder holds and of what kind it is, links as such; sorted, hidden entries and other systems' left out.
fn listing(dir: &Path) -> Result<Vec<(PathBuf, FileType)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
        let entry = entry.map_err(Error::io(dir, "list"))?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with('.') && !OF_OTHERS.iter().any(|other| name == *other)
        {
            let kind = entry.file_type().map_err(Error::io(dir, "list"))?;
            found.push((entry.path(), kind));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// The folders in a folder; here links to folders are some.
fn folders(dir: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    // Only of links is it asked again what they are: there may be millions of images.
    let is_folder =
        |(path, kind): &(PathBuf, FileType)| kind.is_dir() || kind.is_symlink() && path.is_dir();
    let all = listing(dir)?.into_iter().filter(is_folder);
    Ok(all.map(|(path, _)| path))
}

/// Whether it is a link to nothing, as when a disk is not there: an image that cannot be read.
fn is_broken(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

/// Whether its name is an image's.
fn is_named_image(path: &Path) -> bool {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// The images in `dir` and below, a folder's own before those of the folders in it; what is no image goes to `others`. A link to a folder may lead anywhere, to another
/// class or back to where it lies, and is not followed; one to a file is.
pub(crate) fn images_below(dir: &Path, others: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let (mut images, mut folders) = (Vec::new(), Vec::new());
    for (path, kind) in listing(dir)? {
        if kind.is_dir() {
            folders.push(path);
        } else if is_named_image(&path) && (kind.is_file() || path.is_file() || is_broken(&path)) {
            images.push(path);
        } else {
            others.push(path);
        }
    }
    for folder in folders {
        images.extend(images_below(&folder, others)?);
    }
    Ok(images)
}

fn classes_of(dir: &Path, others: &mut Vec<PathBuf>) -> Result<Classes> {
    let mut classes = Classes::new();
    for path in folders(dir)? {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let images = images_below(&path, others)?;
        if classes.insert(name, images).is_some() {
            return Err(Error::layout(
                &path,
                "is a class whose name is not Unicode, and looks like another's",
                "rename it",
            ));
        }
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

fn same_classes(train: &Classes, test: &Classes, test_dir: &Path) -> Result<()> {
    let unknown = test.keys().filter(|class| !train.contains_key(*class));
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    let Some((class, others)) = unknown.split_first() else {
        return Ok(());
    };
    Err(Error::layout(
        &test_dir.join(class),
        format!(
            "is a class that training does not have{}",
            files::as_are(others)
        ),
        "class folders are matched by name",
    ))
}

/// Moves `fraction` of each class, at least one image, from `train` to the result.
fn split(train: &mut Classes, fraction: f64, seed: u64, dir: &Path) -> Result<Classes> {
    let few = train.iter().filter(|(_, files)| files.len() < 2);
    let few: Vec<&str> = few.map(|(class, _)| class.as_str()).collect();
    if let Some((class, others)) = few.split_first() {
        return Err(Error::layout(
            &dir.join(class),
            format!(
                "has one image only, which cannot be split into training and test{}",
                files::as_are(others)
            ),
            "add images or remove the class",
        ));
    }
    let mut test = Classes::new();
    for (at, (class, files)) in train.iter_mut().enumerate() {
        let count = ((files.len() as f64 * fraction).round() as usize).clamp(1, files.len() - 1);
        files.shuffle(&mut stream(seed, 0, at as u64, Purpose::Split));
        let mut taken = files.split_off(files.len() - count);
        files.sort();
        taken.sort();
        test.insert(class.clone(), taken);
    }
    Ok(test)
}
