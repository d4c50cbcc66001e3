//! A copy of a folder of images whose pictures are smaller: most of the time that large photographs take to load is decoding.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fast_image_resize::FilterType;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, ImageResult};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::augment::Canvas;
use crate::decode::read_whole;
use crate::readers::images_below;
use crate::{Error, Image, Result};

/// Says in a copy's folder how it was made; hidden, so that readers do not see it.
const MARK: &str = ".mixskd-shrink.toml";
/// Longest file that is no image and is copied all the same, in bytes.
const MOST: u64 = 16 << 20;

/// How small pictures become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShrinkConfig {
    /// The shorter side of pictures that are larger, in pixels.
    pub side: usize,
    /// Quality of JPEG files, 1 to 100.
    pub quality: u8,
}

impl Default for ShrinkConfig {
    fn default() -> Self {
        Self {
            side: 512,
            quality: 95,
        }
    }
}

/// A copy to be made.
///
/// Pictures are turned upright, scaled with a Lanczos filter, and written as what they were where that is JPEG (chroma in full), otherwise as PNG of eight bits. Those
/// that are no larger, and up to 16 MiB each files that are no images, are copied byte for byte. A file is there under its own name once it is whole, with its
/// original's time of change: another time says that the original is another one.
#[derive(Debug)]
pub struct Shrink {
    config: ShrinkConfig,
    from: PathBuf,
    to: PathBuf,
    images: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shrunk {
    /// Pictures that were made smaller.
    pub scaled: usize,
    /// Pictures that were copied as they are.
    pub copied: usize,
    /// Pictures that were there, made by an earlier run with the same settings.
    pub there: usize,
    /// Files that are no images, and were copied.
    pub others: usize,
    /// Those that were not: what is longer, and what is no file.
    pub left_out: Vec<PathBuf>,
    /// Pictures that are in the copy and come of no original, as when it was moved since: to be removed by whoever knows them.
    pub strange: Vec<PathBuf>,
    /// Pictures that are not in the copy, as they cannot be read: each with the reason.
    pub unreadable: Vec<String>,
    /// Bytes of the originals of all pictures of the copy.
    pub bytes_before: u64,
    /// Bytes of all pictures of the copy.
    pub bytes_after: u64,
}

/// What became of one picture.
enum Done {
    Scaled,
    Copied,
    There,
}

impl Shrink {
    /// Lists what there is in `from` and the folders below it. Nothing is written yet.
    ///
    /// # Errors
    /// When a setting is out of range, `from` is no folder or holds no image, one of the two lies in the other, or `to` holds something else than what an earlier run
    /// with the same settings began.
    pub fn new(config: ShrinkConfig, from: &Path, to: &Path) -> Result<Self> {
        if !(16..=8192).contains(&config.side) {
            let message = format!("must be between 16 and 8192, got {}", config.side);
            return Err(Error::config("side", message, "for example 512"));
        }
        if !(1..=100).contains(&config.quality) {
            let message = format!("must be between 1 and 100, got {}", config.quality);
            return Err(Error::config("quality", message, "for example 95"));
        }
        if !from.is_dir() {
            let hint = "copies are made of folders of image files";
            return Err(Error::source(
                from.display().to_string(),
                "is no folder",
                hint,
            ));
        }
        let (real_from, real_to) = (real(from)?, real(to)?);
        if let Some(copy) = real_to
            .ancestors()
            .skip(1)
            .find(|dir| dir.join(MARK).exists())
        {
            let message = format!("lies in {}, which is a copy", copy.display());
            let hint = "a copy has a folder of its own, beside";
            return Err(Error::source(to.display().to_string(), message, hint));
        }
        if real_from.starts_with(&real_to) || real_to.starts_with(&real_from) {
            let message = format!("lies in {}, or that in it", from.display());
            let hint = "a copy has a folder of its own, beside";
            return Err(Error::source(to.display().to_string(), message, hint));
        }
        let mut others = Vec::new();
        let images = images_below(from, &mut others)?;
        if images.is_empty() {
            let hint = format!("files that end in {} are", crate::EXTENSIONS.join(", "));
            return Err(Error::layout(from, "holds no image", hint));
        }
        if let Some(link) = others.iter().find(|path| path.is_dir()) {
            let hint = "links to folders are not followed: put the folder in the link's place";
            return Err(Error::source(
                link.display().to_string(),
                "is a link to a folder",
                hint,
            ));
        }
        // What is no JPEG gets an ending behind its own.
        let names: BTreeSet<&Path> = images.iter().map(PathBuf::as_path).collect();
        let taken = |path: &&PathBuf| {
            let mut longer = ["jpg", "png"]
                .iter()
                .map(|ending| with_ending(path, ending));
            longer.any(|longer| names.contains(longer.as_path()))
        };
        if let Some(path) = images.iter().find(taken) {
            let message =
                "and another with one more ending (.jpg, .png) would have the same name in a copy";
            return Err(Error::source(
                path.display().to_string(),
                message,
                "rename one of the two",
            ));
        }
        let shrink = Self {
            config,
            from: from.into(),
            to: to.into(),
            images,
            others,
        };
        shrink.check_target(&real_from)?;
        Ok(shrink)
    }

    /// How many pictures there are.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Makes the copy, or what is missing of it, on all threads. `done` is called for each picture.
    ///
    /// # Errors
    /// When another process makes the same copy, a file cannot be written, or a file that is no image not read. What is there by then stays.
    pub fn run(&self, done: impl Fn(&Path) + Sync) -> Result<Shrunk> {
        fs::create_dir_all(&self.to).map_err(Error::io(&self.to, "make the folder"))?;
        let mark = self.to.join(MARK);
        if !mark.exists() {
            write(&mark, self.mark(&real(&self.from)?).as_bytes(), None)?;
        }
        let lock = fs::File::options().append(true).open(&mark);
        let lock = lock.map_err(Error::io(&mark, "open"))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            let hint = "wait until it is done";
            return Err(Error::layout(
                &self.to,
                "is being made by another process",
                hint,
            ));
        }
        let all = Mutex::new((Shrunk::default(), BTreeSet::new()));
        self.images.par_iter().try_for_each(|path| {
            let outcome = self.picture(path);
            done(path);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            let (all, known) = &mut *all;
            match outcome {
                Ok((what, to, [before, after])) => {
                    match what {
                        Done::Scaled => all.scaled += 1,
                        Done::Copied => all.copied += 1,
                        Done::There => all.there += 1,
                    }
                    all.bytes_before += before;
                    all.bytes_after += after;
                    known.insert(to);
                }
                Err(Error::Image {
                    origin, message, ..
                }) => all.unreadable.push(format!("{origin}: {message}")),
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        let (mut all, known) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.unreadable.sort();
        for path in &self.others {
            match fs::metadata(path) {
                Ok(data) if data.is_file() && data.len() <= MOST => {
                    self.other(path, &data)?;
                    all.others += 1;
                }
                _ => all.left_out.push(path.clone()),
            }
        }
        all.strange = images_below(&self.to, &mut Vec::new())?;
        all.strange.retain(|path| !known.contains(path));
        Ok(all)
    }

    /// Copies a file that is no image, unless it is there and no older: somebody may have written to it since.
    fn other(&self, path: &Path, data: &fs::Metadata) -> Result<()> {
        let to = self.target(path, None);
        let there = fs::metadata(&to).and_then(|there| there.modified()).ok();
        if there.is_some() && there >= data.modified().ok() {
            return Ok(());
        }
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        write(&to, &bytes, data.modified().ok())
    }

    /// Where a file goes, with another ending behind its own where there is one.
    fn target(&self, path: &Path, ending: Option<&str>) -> PathBuf {
        let to = self.to.join(path.strip_prefix(&self.from).unwrap_or(path));
        ending.map_or_else(|| to.clone(), |ending| with_ending(&to, ending))
    }

    /// What became of it, where it is, and its bytes before and after.
    fn picture(&self, path: &Path) -> Result<(Done, PathBuf, [u64; 2])> {
        let unreadable = |error: std::io::Error| {
            let message = format!("cannot be read: {error}");
            Error::unreadable(path.display().to_string(), message)
        };
        let before = fs::metadata(path).map_err(unreadable)?;
        let changed = before.modified().ok();
        for ending in [None, Some("jpg"), Some("png")] {
            let to = self.target(path, ending);
            if let Ok(there) = fs::metadata(&to)
                && is_same_time(there.modified().ok(), changed)
            {
                return Ok((Done::There, to, [before.len(), there.len()]));
            }
        }
        // Small ones, too: what cannot be read is not in the copy.
        let (image, format) = read_whole(path)?;
        if image.height.min(image.width) <= self.config.side {
            let (bytes, to) = (fs::read(path).map_err(unreadable)?, self.target(path, None));
            write(&to, &bytes, changed)?;
            return Ok((Done::Copied, to, [before.len(), bytes.len() as u64]));
        }
        let is_jpeg = format == Some(ImageFormat::Jpeg);
        let small = self.scaled(&image)?;
        let bytes = encoded(&small, is_jpeg, self.config.quality)
            .map_err(|error| Error::unreadable(path.display().to_string(), error.to_string()))?;
        let endings: &[&str] = if is_jpeg { &["jpg", "jpeg"] } else { &["png"] };
        let own = path
            .extension()
            .map(|own| own.to_string_lossy().to_lowercase());
        let fits = own.is_some_and(|own| endings.contains(&own.as_str()));
        let to = self.target(path, (!fits).then_some(endings[0]));
        write(&to, &bytes, changed)?;
        Ok((Done::Scaled, to, [before.len(), bytes.len() as u64]))
    }

    fn scaled(&self, image: &Image) -> Result<Image> {
        let (height, width) = (image.height as f64, image.width as f64);
        let factor = self.config.side as f64 / height.min(width);
        let side = |length: f64| (length * factor).round() as usize;
        let mut canvas = Canvas::new(image.view());
        canvas.resize_by(FilterType::Lanczos3, side(height), side(width))?;
        Ok(canvas.to_image())
    }

    /// What [`MARK`] says.
    fn mark(&self, from: &Path) -> String {
        let ShrinkConfig { side, quality } = self.config;
        let from = toml::Value::from(from.display().to_string());
        format!(
            "# A copy of a folder of images with smaller pictures.\nfrom = {from}\nside = {side}\nquality = {quality}\n"
        )
    }

    /// Whether there is nothing in the copy's folder, or what an earlier run with the same settings began.
    fn check_target(&self, from: &Path) -> Result<()> {
        let is_file = self.to.exists() && !self.to.is_dir();
        if is_file {
            let (name, hint) = (self.to.display().to_string(), "name a new folder");
            return Err(Error::source(name, "is a file", hint));
        }
        let message = match fs::read_to_string(self.to.join(MARK)) {
            Ok(text) if text == self.mark(from) => return Ok(()),
            Ok(text) => told(&text),
            Err(_) => {
                let mut entries = match fs::read_dir(&self.to) {
                    Ok(entries) => entries,
                    Err(_) if !self.to.exists() => return Ok(()),
                    Err(error) => return Err(Error::io(&self.to, "list")(error)),
                };
                if entries.next().is_none() {
                    return Ok(());
                }
                "holds other files".into()
            }
        };
        let name = self.to.display().to_string();
        Err(Error::source(name, message, "name a new folder"))
    }
}

/// What a copy's mark says of it.
fn told(mark: &str) -> String {
    let mark: toml::Table = toml::from_str(mark).unwrap_or_default();
    match (mark.get("from"), mark.get("side"), mark.get("quality")) {
        (Some(toml::Value::String(from)), Some(side), Some(quality)) => {
            format!("is a copy of {from} with a shorter side of {side} and quality {quality}")
        }
        _ => format!("is a copy of something, and its {MARK} does not say of what"),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Whether two files changed at the same time, as far as a file system keeps it. Where nobody knows, they did not.
fn is_same_time(one: Option<SystemTime>, other: Option<SystemTime>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return false;
    };
    let apart = one.duration_since(other);
    apart.unwrap_or_else(|error| error.duration()) <= Duration::from_secs(2)
}

/// Where a path leads, also where it is not there yet.
fn real(path: &Path) -> Result<PathBuf> {
    if let Ok(real) = fs::canonicalize(path) {
        return Ok(real);
    }
    let absolute = std::path::absolute(path).map_err(Error::io(path, "find"))?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(real(parent)?.join(name)),
        (Some(_), None) => {
            let message = "leads back out of a folder that is not there";
            Err(Error::source(
                path.display().to_string(),
                message,
                "name it without `..`",
            ))
        }
        _ => Ok(absolute),
    }
}

fn encoded(image: &Image, jpeg: bool, quality: u8) -> ImageResult<Vec<u8>> {
    let (width, height) = (image.width as u32, image.height as u32);
    let colour = match image.channels {
        1 => ExtendedColorType::L8,
        _ => ExtendedColorType::Rgb8,
    };
    let mut bytes = Cursor::new(Vec::new());
    if jpeg {
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
        encoder.encode(&image.pixels, width, height, colour)?;
    } else {
        PngEncoder::new(&mut bytes).write_image(&image.pixels, width, height, colour)?;
    }
    Ok(bytes.into_inner())
}

/// Writes a file beside its place, and moves it there once it is whole. Its time of change becomes `modified`.
fn write(path: &Path, bytes: &[u8], modified: Option<SystemTime>) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::layout(path, "is no file's name", "name a folder"));
    };
    fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    // No longer than the name may be, and the same the next time: what a killed process left is written over.
    let number = Sha256::digest(name.as_encoded_bytes());
    let part = folder.join(format!(".{:.16}.part", format!("{number:x}")));
    let whole = || {
        let mut file = fs::File::create(&part)?;
        file.write_all(bytes)?;
        if let Some(modified) = modified {
            // A file system that keeps no times has its copies made anew.
            let _ = file.set_modified(modified);
        }
        drop(file);
        fs::rename(&part, path)
    };
    let done = whole();
    if done.is_err() {
        // What is left of it is nobody's.
        let _ = fs::remove_file(&part);
    }
    done.map_err(Error::io(path, "write"))
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};

    use super::*;
    use crate::read_image;

    fn run(side: usize, from: &Path, to: &Path) -> Result<Shrunk> {
        let config = ShrinkConfig {
            side,
            ..ShrinkConfig::default()
        };
        Shrink::new(config, from, to)?.run(|_| {})
    }

    fn waves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let wave =
                |at: u32, length: f64| ((f64::from(at) / length).sin() * 100.0 + 128.0) as u8;
            Rgb([wave(x, 40.0), wave(y, 25.0), wave(x + y, 60.0)])
        })
    }

    #[test]
    fn large_pictures_become_small_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("pets"), folder.path().join("small"));
        for class in ["train/cat", "train/dog"] {
            fs::create_dir_all(from.join(class)).unwrap();
        }
        let at = |name: &str| from.join("train/cat").join(name);
        waves(300, 200).save(at("wide.jpg")).unwrap();
        waves(200, 300).save(at("tall.JPEG")).unwrap();
        waves(200, 200).save(at("lossless.bmp")).unwrap();
        waves(90, 300).save(at("narrow.png")).unwrap();
        GrayImage::from_fn(200, 250, |x, y| Luma([(x + y) as u8 / 2]))
            .save(from.join("train/dog/grey.png"))
            .unwrap();
        fs::write(at("broken.jpg"), [0xff, 0xd8, 0xff]).unwrap();
        fs::write(from.join("labels.csv"), "cat,0\n").unwrap();
        // A JPEG by another name.
        fs::copy(at("wide.jpg"), at("other.png")).unwrap();

        let shrunk = run(100, &from, &to).unwrap();
        assert_eq!((shrunk.scaled, shrunk.copied, shrunk.there), (5, 1, 0));
        assert_eq!((shrunk.others, shrunk.left_out.len()), (1, 0));
        assert_eq!(shrunk.unreadable.len(), 1);
        assert!(shrunk.unreadable[0].contains("broken.jpg: "));
        let small = |name: &str| to.join("train").join(name);
        let size = |name: &str| {
            let image = read_image(&small(name), 3).unwrap();
            (image.height, image.width)
        };
        assert_eq!(size("cat/wide.jpg"), (100, 150));
        assert_eq!(size("cat/tall.JPEG"), (150, 100));
        assert_eq!(size("cat/lossless.bmp.png"), (100, 100));
        assert_eq!(size("cat/other.png.jpg"), (100, 150));
        assert_eq!(size("dog/grey.png"), (125, 100));
        let same =
            |name: &str| fs::read(from.join(name)).unwrap() == fs::read(to.join(name)).unwrap();
        assert!(same("train/cat/narrow.png") && same("labels.csv"));
        assert!(!small("cat/broken.jpg").exists());
        // The picture is what it was: beside the waves of half the length.
        let got = read_image(&small("cat/lossless.bmp.png"), 3).unwrap();
        let whole = waves(200, 200);
        let want = RgbImage::from_fn(100, 100, |x, y| *whole.get_pixel(2 * x, 2 * y));
        let apart = got.pixels.iter().zip(want.as_raw());
        let most = apart.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(most < 12, "{most}");
        // Grey stays grey.
        let grey = image::open(small("dog/grey.png")).unwrap();
        assert!(!grey.color().has_color());

        // Once more: nothing is left to do but what could not be read, and what has changed since.
        let again = run(100, &from, &to).unwrap();
        assert_eq!((again.scaled, again.copied, again.there), (0, 0, 6));
        assert_eq!(again.bytes_after, shrunk.bytes_after);
        fs::remove_file(small("cat/wide.jpg")).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        let file = fs::File::options()
            .write(true)
            .open(at("narrow.png"))
            .unwrap();
        file.set_modified(later).unwrap();
        let again = run(100, &from, &to).unwrap();
        assert_eq!((again.scaled, again.copied, again.there), (1, 1, 4));
        assert!(again.strange.is_empty());
        // An original that another one, an older one at that, has taken the place of; and one that was moved to another class.
        waves(400, 400).save(at("wide.jpg")).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(at("wide.jpg"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30))
            .unwrap();
        fs::rename(at("tall.JPEG"), from.join("train/dog/tall.JPEG")).unwrap();
        fs::write(to.join("labels.csv"), "mine").unwrap();
        let again = run(100, &from, &to).unwrap();
        assert_eq!((again.scaled, again.copied, again.there), (2, 0, 4));
        assert_eq!(again.strange, [small("cat/tall.JPEG")]);
        assert_eq!(size("cat/wide.jpg"), (100, 100));
        assert_eq!(fs::read(to.join("labels.csv")).unwrap(), b"mine");
    }

    #[test]
    fn what_would_mix_things_up_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("pets");
        fs::create_dir_all(from.join("cat")).unwrap();
        let refused = |to: &Path, text: &str| {
            let error = run(20, &from, to).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        let other = folder.path().join("other");
        refused(&other, "holds no image");
        waves(30, 30).save(from.join("cat/a.png")).unwrap();
        refused(&from.join("cat/small"), "lies in");
        refused(folder.path(), "lies in");
        refused(&from, "lies in");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("mine.txt"), "").unwrap();
        refused(&other, "holds other files");
        refused(&other.join("mine.txt"), "is a file");
        let to = folder.path().join("to");
        run(20, &from, &to).unwrap();
        let error = run(21, &from, &to).unwrap_err().to_string();
        assert!(error.contains("with a shorter side of 20"), "{error}");
        refused(&to.join("nested"), "which is a copy");
        refused(&folder.path().join("gone/../pets/copy"), "leads back out");
        assert!(run(15, &from, &to).is_err());
        // A name that is another's.
        waves(30, 30).save(from.join("cat/b.bmp")).unwrap();
        waves(30, 30).save(from.join("cat/b.bmp.png")).unwrap();
        let error = run(20, &from, &to).unwrap_err().to_string();
        assert!(error.contains("the same name in a copy"), "{error}");
        let none = Shrink::new(ShrinkConfig::default(), &folder.path().join("none"), &to);
        assert!(none.unwrap_err().to_string().contains("is no folder"));
    }
}
