//! Pictures with what is said of each, for a page or for a sheet of their own.

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, replace, resize};
use image::{ExtendedColorType, RgbImage};
use mixskd_analyze::{base64, picture, png};
use mixskd_chart::{Anchor, Svg};
use mixskd_data::{Dataset, EXTENSIONS};
use mixskd_train::Seen;

use crate::predictions::{Answer, Predictions};
use crate::{Error, Result};

/// Pictures up to this many pixels a side keep every pixel; larger ones are photographs, and are stored as such.
const SMALL: u32 = 96;
/// No picture is stored larger.
const LARGEST: u32 = 256;

/// A picture and lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) image: RgbImage,
    /// What it is, the most important first.
    pub(crate) lines: Vec<String>,
}

/// The same as a page holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Embedded {
    /// The picture as a data URI.
    pub(crate) uri: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) lines: Vec<String>,
}

impl Cell {
    /// A training image as the network sees it.
    pub(crate) fn seen(seen: &Seen, dataset: &Dataset) -> Result<Self> {
        let name = |label: u32| class(dataset, label as usize);
        let mut lines = Vec::new();
        if let [source] = seen.sources[..] {
            lines.push(name(source.label));
            lines.push(match seen.what.as_str() {
                "image" => format!("image {}", source.index),
                what => format!("{what}, image {}", source.index),
            });
        } else {
            for source in &seen.sources {
                lines.push(format!("{:.3} {}", source.share, name(source.label)));
            }
            let lambda = seen.sources.first().map_or(1.0, |source| source.share);
            lines.push(format!("{}, λ\u{a0}=\u{a0}{lambda:.3}", seen.what));
        }
        Ok(Self {
            image: shown(&seen.image, dataset)?,
            lines,
        })
    }

    /// A test image as it is evaluated at an input of `size` pixels a side, and what the network says of it.
    pub(crate) fn answered(
        answer: &Answer,
        predictions: &Predictions,
        dataset: &Dataset,
        size: usize,
    ) -> Result<Self> {
        let image = dataset.test.image(answer.image)?;
        let tensor = dataset.eval_pipeline(size)?.tensor(&image)?;
        let name = |label: usize| predictions.classes[label].clone();
        let mut lines = vec![
            name(answer.label),
            format!(
                "predicted {}, {}",
                name(answer.predicted),
                share(answer.confidence)
            ),
            format!(
                "{} given {}",
                name(answer.label),
                share((-answer.loss).exp())
            ),
            format!("loss {:.2}, image {}", answer.loss, answer.image),
        ];
        // A file has a name; a record of a file has its number, which is told already.
        let origin = PathBuf::from(dataset.test.origin(answer.image));
        if let Some(name) = origin.file_name().filter(|_| {
            origin
                .extension()
                .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
        }) {
            lines.push(name.to_string_lossy().into());
        }
        Ok(Self {
            image: shown(&tensor, dataset)?,
            lines,
        })
    }

    /// The same as a page holds it.
    pub(crate) fn embedded(&self) -> Result<Embedded> {
        let (width, height) = self.image.dimensions();
        Ok(Embedded {
            uri: self.uri()?,
            width,
            height,
            lines: self.lines.clone(),
        })
    }

    fn uri(&self) -> Result<String> {
        if self.image.width().max(self.image.height()) <= SMALL {
            return Ok(format!(
                "data:image/png;base64,{}",
                base64(&png(&self.image)?)
            ));
        }
        let mut bytes = Vec::new();
        let (width, height) = self.image.dimensions();
        JpegEncoder::new_with_quality(&mut bytes, 85)
            .encode(self.image.as_raw(), width, height, ExtendedColorType::Rgb8)
            .map_err(|error| Error::Picture(error.to_string()))?;
        Ok(format!("data:image/jpeg;base64,{}", base64(&bytes)))
    }
}

/// A probability with as many digits as tell it from 0; number and unit stay on one line.
fn share(value: f64) -> String {
    match 100.0 * value {
        percent if percent >= 0.05 => format!("{percent:.1}\u{a0}%"),
        percent => format!("{percent:.1e}\u{a0}%"),
    }
}

fn class(dataset: &Dataset, label: usize) -> String {
    let name = dataset.classes.get(label);
    name.cloned().unwrap_or_else(|| label.to_string())
}

/// A normalised image as a picture.
fn shown(image: &Tensor, dataset: &Dataset) -> Result<RgbImage> {
    let mean = Tensor::new(dataset.mean.as_slice(), &Device::Cpu)?;
    let std = Tensor::new(dataset.std.as_slice(), &Device::Cpu)?;
    let image = picture(&image.broadcast_mul(&std)?.broadcast_add(&mean)?)?;
    Ok(fitted(&image, LARGEST))
}

/// `image`, made smaller where a side is above `side`.
fn fitted(image: &RgbImage, side: u32) -> RgbImage {
    let longest = image.width().max(image.height());
    if longest <= side {
        return image.clone();
    }
    let scaled = |length: u32| (length * side / longest).max(1);
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    resize(image, width, height, FilterType::Triangle)
}

/// Side of a picture on a sheet, and the space around it; height of a line of text and how many letters fit one.
const SIDE: u32 = 168;
const GAP: u32 = 16;
const LINE: u32 = 18;
const LETTERS: usize = 22;

/// Pictures in rows with their lines below them, as a PNG file's bytes: black on white.
pub(crate) fn sheet(cells: &[Cell], title: &str) -> Result<Vec<u8>> {
    let columns = (cells.len() as f64 * 1.4).sqrt().ceil().max(1.0) as u32;
    let rows = (cells.len() as u32).div_ceil(columns);
    let lines = cells.iter().map(|cell| cell.lines.len()).max().unwrap_or(0) as u32;
    let (wide, high) = (SIDE + GAP, SIDE + LINE * lines + GAP);
    let top = GAP + 28;
    let place = |at: usize| {
        let (column, row) = (at as u32 % columns, at as u32 / columns);
        (GAP + column * wide, top + row * high)
    };
    // A title is as wide as its letters, which are narrower than this.
    let width = (GAP + columns * wide).max(GAP + 9 * title.chars().count() as u32);
    let mut svg = Svg::new(f64::from(width), f64::from(top + rows * high));
    let at = |(x, y): (u32, u32)| (f64::from(x), f64::from(y));
    svg.text(at((GAP, GAP + 12)), Anchor::Start, title);
    for (k, cell) in cells.iter().enumerate() {
        let (x, y) = place(k);
        for (line, text) in cell.lines.iter().enumerate() {
            let below = y + SIDE + LINE * (line as u32 + 1) - 2;
            svg.text(at((x, below)), Anchor::Start, &shortened(text));
        }
    }
    let drawn = mixskd_chart::png(&svg.finish(), 1.0)?;
    let drawn = image::load_from_memory(&drawn);
    let mut sheet = drawn
        .map_err(|error| Error::Picture(error.to_string()))?
        .to_rgb8();
    for (k, cell) in cells.iter().enumerate() {
        let image = fitted(&cell.image, SIDE);
        let factor = (SIDE / image.width().max(image.height()).max(1)).max(1);
        let (w, h) = (image.width() * factor, image.height() * factor);
        let (x, y) = place(k);
        let image = resize(&image, w, h, FilterType::Nearest);
        replace(&mut sheet, &image, i64::from(x), i64::from(y + SIDE - h));
    }
    Ok(png(&sheet)?)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LETTERS {
        return text.into();
    }
    text.chars().take(LETTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(side: u32, lines: &[&str]) -> Cell {
        Cell {
            image: RgbImage::from_pixel(side, side, image::Rgb([200, 0, 0])),
            lines: lines.iter().map(|line| (*line).to_string()).collect(),
        }
    }

    #[test]
    fn small_pictures_keep_every_pixel_and_large_ones_are_photographs() {
        assert!(
            cell(28, &[])
                .uri()
                .unwrap()
                .starts_with("data:image/png;base64,iVBOR")
        );
        assert!(
            cell(224, &[])
                .uri()
                .unwrap()
                .starts_with("data:image/jpeg;base64,/9j/")
        );
        let wide = RgbImage::new(1024, 512);
        assert_eq!(fitted(&wide, LARGEST).dimensions(), (256, 128));
    }

    #[test]
    fn every_picture_of_a_sheet_is_whole_and_none_covers_another() {
        for (count, side) in [(1, 8), (7, 28), (24, 32), (5, 300)] {
            let cells = vec![cell(side, &["0.731 ankle boot of a long name", "λ"]); count];
            let bytes = sheet(&cells, "a title that is longer than one picture is wide").unwrap();
            let drawn = image::load_from_memory(&bytes).unwrap().to_rgb8();
            let red = drawn.pixels().filter(|p| p.0 == [200, 0, 0]).count();
            let shown = if side > SIDE {
                SIDE
            } else {
                side * (SIDE / side)
            };
            assert_eq!(red, count * (shown * shown) as usize, "{count} of {side}");
        }
    }

    #[test]
    fn small_probabilities_are_told_from_nothing() {
        assert_eq!(
            [0.5, 0.0005, 1e-7].map(share),
            ["50.0\u{a0}%", "0.1\u{a0}%", "1.0e-5\u{a0}%"]
        );
    }
}
