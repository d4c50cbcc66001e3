//! IDX files: MNIST, Fashion-MNIST and their like.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::{Reader, Source, moments};
use crate::recipe::Recipe;
use crate::{DataConfig, Dataset, Error, PackedSamples, Result};

pub(super) const READER: Reader = Reader {
    name: "idx",
    summary: "IDX as MNIST has it (train-images-idx3-ubyte …, plain or .gz)",
    coarse: false,
    splits: false,
    detect,
    open,
};

/// Magic numbers: type 8 (unsigned byte) and the number of dimensions.
const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;
/// Largest number of bytes of pixels that is believed of a header.
const MOST: u64 = 16 << 30;
const AGAIN: &str = "it is truncated or of another format; fetch or unpack it again";

/// `stem` as it is spelt in `dir`: with a dash or a dot before `idx`, plain or gzipped.
fn find(dir: &Path, stem: &str) -> Option<PathBuf> {
    let dotted = stem.replace("-idx", ".idx");
    [
        stem.to_string(),
        format!("{stem}.gz"),
        dotted.clone(),
        format!("{dotted}.gz"),
    ]
    .into_iter()
    .map(|name| dir.join(name))
    .find(|path| path.is_file())
}

fn detect(source: &Source) -> bool {
    matches!(source, Source::Folder { dir, .. } if find(dir, "train-images-idx3-ubyte").is_some())
}

fn open(source: &Source, _config: &DataConfig) -> Result<Dataset> {
    let Source::Folder { dir, recipe } = source else {
        return Err(Error::source(
            "idx",
            "is read from folders only",
            "give a folder",
        ));
    };
    let read = |stem: &str| {
        let Some(path) = find(dir, stem) else {
            return Err(Error::layout(
                dir,
                format!("has no {stem}[.gz]"),
                "all four files of the set are needed",
            ));
        };
        let file = std::fs::File::open(&path).map_err(Error::io(&path, "read"))?;
        let gzipped = path.extension().is_some_and(|extension| extension == "gz");
        let data: Box<dyn Read> = if gzipped {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(std::io::BufReader::new(file))
        };
        Ok((path, data))
    };
    let split = |name: &str| {
        let (images, labels) = (
            read(&format!("{name}-images-idx3-ubyte"))?,
            read(&format!("{name}-labels-idx1-ubyte"))?,
        );
        parse((&images.0, images.1), (&labels.0, labels.1))
    };
    let name = dir.file_name().map_or_else(
        || dir.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    assemble(&name, *recipe, split("train")?, split("t10k")?)
}

/// Images and their shape.
pub(super) struct Split {
    samples: PackedSamples,
    height: usize,
    width: usize,
}

/// A data set of two splits. What `recipe` knows of classes and constants is used when it fits; else classes are numbers and the
/// constants are those of the training images.
pub(super) fn assemble(
    name: &str,
    recipe: Option<&Recipe>,
    train: Split,
    test: Split,
) -> Result<Dataset> {
    if (train.height, train.width) != (test.height, test.width) {
        return Err(Error::source(
            name,
            format!(
                "training images are {}×{}, test images {}×{}",
                train.height, train.width, test.height, test.width
            ),
            "both must be of one size",
        ));
    }
    let count = train
        .samples
        .labels()
        .iter()
        .max()
        .map_or(0, |label| *label as usize + 1);
    let recipe = recipe.filter(|recipe| recipe.channels == 1 && recipe.class_names.len() >= count);
    let classes = match recipe {
        Some(recipe) => recipe.class_names[..count].to_vec(),
        None => (0..count).map(|class| class.to_string()).collect(),
    };
    let (mean, std) = match recipe {
        Some(recipe) => (recipe.mean.clone(), recipe.std.clone()),
        None => moments(&train.samples, 1),
    };
    Ok(Dataset {
        name: recipe.map_or(name, |recipe| recipe.name.as_str()).into(),
        classes,
        channels: 1,
        size: (train.height, train.width),
        mean,
        std,
        train: Arc::new(train.samples),
        test: Arc::new(test.samples),
        uniform: true,
        // An unknown grey set of this format is most likely one of digits or letters.
        mirror: recipe.is_some_and(|recipe| recipe.mirror),
        crop: true,
        augment: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
    })
}

/// An images file and its labels file; the paths serve the messages.
pub(super) fn parse(images: (&Path, impl Read), labels: (&Path, impl Read)) -> Result<Split> {
    let (path, mut data) = images;
    let [count, height, width] = header::<3>(path, &mut data, IMAGES)?;
    // Three such numbers can be more than 64 bits hold: then they are more than is believed, too.
    let bytes = u128::from(count) * u128::from(height) * u128::from(width);
    let pixels = body(path, data, u64::try_from(bytes).unwrap_or(u64::MAX))?;
    let (label_path, mut data) = labels;
    let [label_count] = header::<1>(label_path, &mut data, LABELS)?;
    if label_count != count {
        return Err(Error::layout(
            label_path,
            format!(
                "has {label_count} labels, but {} has {count} images",
                path.display()
            ),
            "both files must come from the same set",
        ));
    }
    if pixels.is_empty() {
        return Err(Error::layout(
            path,
            format!("declares {count} images of {height}×{width}"),
            AGAIN,
        ));
    }
    let labels = body(label_path, data, u64::from(count))?
        .into_iter()
        .map(u32::from)
        .collect();
    let (height, width) = (height as usize, width as usize);
    let samples = PackedSamples::new(
        (height, width, 1),
        pixels,
        labels,
        path.display().to_string(),
    )?;
    Ok(Split {
        samples,
        height,
        width,
    })
}

fn header<const D: usize>(path: &Path, data: &mut impl Read, magic: u32) -> Result<[u32; D]> {
    let mut next = || -> Result<u32> {
        let mut word = [0; 4];
        data.read_exact(&mut word).map_err(|error| {
            Error::layout(path, format!("its header cannot be read: {error}"), AGAIN)
        })?;
        Ok(u32::from_be_bytes(word))
    };
    let got = next()?;
    if got != magic {
        return Err(Error::layout(
            path,
            format!("begins with {got:#010x}, expected {magic:#010x}"),
            AGAIN,
        ));
    }
    let mut sizes = [0; D];
    for size in &mut sizes {
        *size = next()?;
    }
    Ok(sizes)
}

/// Exactly `wanted` bytes, and then the end.
fn body(path: &Path, data: impl Read, wanted: u64) -> Result<Vec<u8>> {
    if wanted > MOST {
        return Err(Error::layout(
            path,
            format!("declares {wanted} bytes"),
            AGAIN,
        ));
    }
    let mut bytes = Vec::new();
    data.take(wanted + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            Error::layout(path, format!("cannot be read to its end: {error}"), AGAIN)
        })?;
    if bytes.len() as u64 != wanted {
        let got = if bytes.len() as u64 > wanted {
            "more".into()
        } else {
            format!("only {}", bytes.len())
        };
        return Err(Error::layout(
            path,
            format!("declares {wanted} bytes of data and holds {got}"),
            AGAIN,
        ));
    }
    Ok(bytes)
}
