//! Labelled images by index.

use std::path::{Path, PathBuf};

use crate::{Error, Image, ImageView, Result, decode};

/// Labelled images that can be read in any order from any thread.
///
/// Indices run from 0 to `len() - 1`; `label`, `image`, `view` and `origin` may panic outside of that, as slices do.
pub trait Samples: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of image `index`.
    fn label(&self, index: usize) -> u32;

    /// Image `index`, read and decoded.
    ///
    /// # Errors
    /// When it cannot be read or decoded; the message names it.
    fn image(&self, index: usize) -> Result<Image>;

    /// Image `index` without a copy, where the pixels lie in memory already.
    fn view(&self, _index: usize) -> Option<ImageView<'_>> {
        None
    }

    /// Where image `index` comes from: its file, or `FILE record N` (counted from 0).
    fn origin(&self, index: usize) -> String;

    /// The file of image `index`, below the set's folder, where it has one of its own.
    fn file(&self, _index: usize) -> Option<String> {
        None
    }

    /// Where that file lies.
    fn path(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// All of them as one array, where they lie in memory as one.
    fn packed(&self) -> Option<&PackedSamples> {
        None
    }
}

/// Images of one size, side by side in memory.
#[derive(Debug, Clone)]
pub struct PackedSamples {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    /// File names with the index of each one's first image.
    files: Vec<(String, usize)>,
}

impl PackedSamples {
    /// Takes `pixels`, laid out `[image, height, width, channel]`, with one label each; `file` is named in messages.
    ///
    /// # Errors
    /// When the number of bytes does not fit the number of labels.
    pub fn new(
        (height, width, channels): (usize, usize, usize),
        pixels: Vec<u8>,
        labels: Vec<u32>,
        file: impl Into<String>,
    ) -> Result<Self> {
        let wanted = labels.len() * height * width * channels;
        if pixels.len() != wanted {
            return Err(Error::source(
                file,
                format!(
                    "{} bytes of pixels for {} labels, wanted {wanted}",
                    pixels.len(),
                    labels.len()
                ),
                format!("each image is {height}×{width}×{channels} bytes"),
            ));
        }
        Ok(Self {
            height,
            width,
            channels,
            pixels,
            labels,
            files: vec![(file.into(), 0)],
        })
    }

    /// Puts the images of `other`, which have the same shape, behind these.
    pub(crate) fn append(&mut self, other: Self) {
        let offset = self.labels.len();
        self.pixels.extend(other.pixels);
        self.labels.extend(other.labels);
        self.files.extend(
            other
                .files
                .into_iter()
                .map(|(file, first)| (file, first + offset)),
        );
    }

    /// Every label, in order.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Every pixel, `[image, height, width, channel]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Height, width and channels of every image.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }

    fn slice(&self, index: usize) -> ImageView<'_> {
        let size = self.height * self.width * self.channels;
        let pixels = &self.pixels[index * size..(index + 1) * size];
        ImageView {
            height: self.height,
            width: self.width,
            channels: self.channels,
            pixels,
        }
    }
}

impl Samples for PackedSamples {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<Image> {
        Ok(self.slice(index).to_image())
    }

    fn packed(&self) -> Option<&PackedSamples> {
        Some(self)
    }

    fn view(&self, index: usize) -> Option<ImageView<'_>> {
        Some(self.slice(index))
    }

    fn origin(&self, index: usize) -> String {
        let at = self
            .files
            .partition_point(|(_, first)| *first <= index)
            .saturating_sub(1);
        match self.files.get(at) {
            Some((file, first)) => format!("{file} record {}", index - first),
            None => format!("record {index}"),
        }
    }
}

/// Image files, decoded when they are asked for.
#[derive(Debug, Clone)]
pub struct FileSamples {
    files: Vec<(PathBuf, u32)>,
    channels: usize,
    folder: PathBuf,
}

impl FileSamples {
    /// Files with their classes, to be converted to `channels` (1 or 3).
    pub fn new(files: Vec<(PathBuf, u32)>, channels: usize) -> Self {
        Self {
            files,
            channels,
            folder: PathBuf::new(),
        }
    }

    /// The same as files of the set that lies in `folder`.
    #[must_use]
    pub fn below(self, folder: PathBuf) -> Self {
        Self { folder, ..self }
    }
}

impl Samples for FileSamples {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.files[index].1
    }

    fn image(&self, index: usize) -> Result<Image> {
        decode::read_image(&self.files[index].0, self.channels)
    }

    fn origin(&self, index: usize) -> String {
        self.files[index].0.display().to_string()
    }

    fn path(&self, index: usize) -> Option<&Path> {
        Some(&self.files[index].0)
    }

    fn file(&self, index: usize) -> Option<String> {
        let path = &self.files[index].0;
        let path = path.strip_prefix(&self.folder).unwrap_or(path);
        let parts = path
            .components()
            .map(|part| part.as_os_str().to_string_lossy());
        Some(parts.collect::<Vec<_>>().join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_in_their_own_file() {
        let mut all = PackedSamples::new((1, 1, 1), vec![1, 2], vec![0, 1], "a.bin").unwrap();
        all.append(PackedSamples::new((1, 1, 1), vec![3], vec![1], "b.bin").unwrap());
        assert_eq!(
            (all.origin(1), all.origin(2)),
            ("a.bin record 1".into(), "b.bin record 0".into())
        );
        assert_eq!(all.image(2).unwrap().pixels, [3]);
    }

    #[test]
    fn bytes_must_fit_labels() {
        assert!(PackedSamples::new((2, 2, 3), vec![0; 11], vec![0], "x").is_err());
    }
}
