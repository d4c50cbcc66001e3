//! Image files by class: what the readers of such layouts share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::dataset::SMALL;
use crate::decode::{read_image, read_size};
use crate::recipe::Recipe;
use crate::{DataConfig, Dataset, Error, FileSamples, Result, ShrinkConfig};

/// ImageNet's constants, in use for photographs everywhere.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Input size recommended for photographs, in pixels.
const INPUT: usize = 224;

/// Files of each class.
pub(super) type Classes = BTreeMap<String, Vec<PathBuf>>;

/// A data set of RGB files. Classes are those of `train`, sorted by name; `test` has no others.
pub(super) fn assemble(
    dir: &Path,
    recipe: Option<&Recipe>,
    train: Classes,
    test: Classes,
    skipped: Vec<String>,
) -> Dataset {
    let mut notes = few_images(&train, &test);
    let classes: Vec<String> = train.keys().cloned().collect();
    let (train, test) = (label(&classes, train), label(&classes, test));
    let uniform = uniform_size(&train, &test);
    let recommended = recipe.map_or((INPUT, INPUT), |recipe| (recipe.size[0], recipe.size[1]));
    if uniform.is_none() {
        notes.extend(almost_uniform(&train, &test, recommended));
        notes.extend(large(&train, recommended));
    }
    let folder = dir.file_name().map_or_else(
        || dir.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    Dataset {
        name: recipe.map_or(folder, |recipe| recipe.name.clone()),
        classes,
        channels: 3,
        size: uniform.unwrap_or(recommended),
        mean: MEAN.to_vec(),
        std: STD.to_vec(),
        train: Arc::new(FileSamples::new(train, 3).below(dir.into())),
        test: Arc::new(FileSamples::new(test, 3).below(dir.into())),
        uniform: uniform.is_some(),
        mirror: true,
        crop: true,
        augment: Vec::new(),
        skipped,
        notes,
    }
}

/// What to say of classes that nothing can be learnt or measured of.
fn few_images(train: &Classes, test: &Classes) -> Vec<String> {
    let single = train.iter().filter(|(_, files)| files.len() == 1);
    let single: Vec<_> = single.map(|(class, _)| class.as_str()).collect();
    let missing = train
        .keys()
        .filter(|class| test.get(*class).is_none_or(Vec::is_empty));
    let missing: Vec<_> = missing.map(String::as_str).collect();
    let note = |classes: &[&str], what: &str| {
        let s = if classes.len() == 1 {
            "class has"
        } else {
            "classes have"
        };
        (!classes.is_empty()).then(|| format!("{} {s} {what}: {}", classes.len(), first(classes)))
    };
    let notes = [
        note(&single, "one training image alone"),
        note(&missing, "no test image, and no part in the accuracy"),
    ];
    notes.into_iter().flatten().collect()
}

/// The first few of many names.
pub(super) fn first(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names[..names.len().min(SHOWN)].join(", ") + &more
}

/// That what is said of one holds for `others`, too.
pub(super) fn as_are(others: &[&str]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!(" (the same of {})", first(others))
}

/// What to say of small images that would be taken as they are if all had one size.
fn almost_uniform(
    train: &[(PathBuf, u32)],
    test: &[(PathBuf, u32)],
    (height, width): (usize, usize),
) -> Option<String> {
    let small = |(height, width): (usize, usize)| height.max(width) <= SMALL;
    let size = train.iter().find_map(|(path, _)| read_size(path).ok())?;
    if !small(size) {
        return None;
    }
    let of = |(path, _): &(PathBuf, u32)| {
        let its = read_size(path).ok()?;
        (its != size).then(|| (path.clone(), its))
    };
    let (other, its) = train.par_iter().chain(test).find_map_first(of)?;
    small(its).then(|| {
        format!(
            "the images are small and not all of one size ({}×{}, but {} is {}×{}): they are scaled to {} pixels unless run.image_size says another size",
            size.1,
            size.0,
            other.display(),
            its.1,
            its.0,
            height.min(width)
        )
    })
}

/// What to say of photographs that are much larger than what a network sees of them: loading them is decoding, whatever is cut out.
fn large(train: &[(PathBuf, u32)], (height, width): (usize, usize)) -> Option<String> {
    /// Pictures that are looked at.
    const LOOKED: usize = 15;
    /// How many times the input's side theirs is, at least.
    const TIMES: usize = 4;
    let some = train.iter().step_by((train.len() / LOOKED).max(1));
    let mut sizes: Vec<_> = some.filter_map(|(path, _)| read_size(path).ok()).collect();
    sizes.sort_by_key(|(height, width)| *height.min(width));
    let (high, wide) = *sizes.get(sizes.len() / 2)?;
    let (shorter, side) = (high.min(wide), ShrinkConfig::default().side);
    let is_large = shorter >= TIMES * height.min(width) && 2 * shorter >= 3 * side;
    is_large.then(|| {
        let fewer = (shorter * shorter) as f64 / (side * side) as f64;
        format!(
            "the pictures are large (about {wide} × {high} pixels), and decoding them is most of the work of loading them: `mixskd data shrink` makes a copy with a shorter side of {side} (enough for networks at {INPUT} pixels), {fewer:.0} times fewer"
        )
    })
}

/// Takes unreadable files out if `config` says so, and says which and why. A class that has no training image, or none any more, is
/// what `refuse` says of it, and of the others that have none.
pub(super) fn skip(
    config: &DataConfig,
    train: &mut Classes,
    test: &mut Classes,
    refuse: impl Fn(&str, &[&str]) -> Error,
) -> Result<Vec<String>> {
    let skipped = if config.skip_unreadable {
        drop_unreadable([train, test])
    } else {
        Vec::new()
    };
    let empty = train.iter().filter(|(_, files)| files.is_empty());
    let empty: Vec<&str> = empty.map(|(class, _)| class.as_str()).collect();
    match empty.split_first() {
        Some((class, others)) => Err(refuse(class, others)),
        None => Ok(skipped),
    }
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
/// An unreadable file does not count here; loading it will say what is wrong with it. A few headers tell most folders apart; only when those agree are all of them read.
fn uniform_size(train: &[(PathBuf, u32)], test: &[(PathBuf, u32)]) -> Option<(usize, usize)> {
    let size = train.iter().find_map(|(path, _)| read_size(path).ok())?;
    let same = |(path, _): &(PathBuf, u32)| read_size(path).map_or(true, |other| other == size);
    let probe = train.iter().step_by((train.len() / 16).max(1)).all(same);
    let small = size.0.max(size.1) <= SMALL;
    (small && probe && train.par_iter().chain(test).all(same)).then_some(size)
}
