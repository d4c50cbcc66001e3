//! Image files to pixels.

use std::path::Path;

use image::{ImageReader, Limits};

use crate::{Error, Image, Result};

/// File name extensions that are taken for images, in lower case.
pub const EXTENSIONS: &[&str] = &["bmp", "jpeg", "jpg", "png", "webp"];

/// Longest side of an image, in pixels. A file that declares more is refused before its pixels are given memory.
const MAX_SIDE: u32 = 16_384;
/// Memory that decoding one image may take, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// Reads an image file (JPEG, PNG, WebP, BMP; told by its contents, not its name) as `channels` bytes a pixel: 1 for grey, 3 for
/// RGB. Grey is repeated, colour is weighted to luma, transparency is dropped.
///
/// # Shapes
/// `[height, width, channels]`.
///
/// # Errors
/// When the file cannot be read, is damaged, or declares more than 16,384 pixels a side or 512 MiB.
pub fn read_image(path: &Path, channels: usize) -> Result<Image> {
    let decoded = open(path)?
        .decode()
        .map_err(|error| Error::unreadable(path.display().to_string(), error.to_string()))?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let pixels = match channels {
        1 => decoded.into_luma8().into_raw(),
        3 => decoded.into_rgb8().into_raw(),
        other => {
            return Err(Error::config(
                "channels",
                format!("cannot read an image as {other}"),
                "use 1 or 3",
            ));
        }
    };
    Ok(Image {
        height,
        width,
        channels,
        pixels,
    })
}

/// Height and width of an image file, from its header.
pub(crate) fn read_size(path: &Path) -> Result<(usize, usize)> {
    let (width, height) = open(path)?
        .into_dimensions()
        .map_err(|error| Error::unreadable(path.display().to_string(), error.to_string()))?;
    Ok((height as usize, width as usize))
}

fn open(path: &Path) -> Result<ImageReader<std::io::BufReader<std::fs::File>>> {
    let mut reader = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(Error::io(path, "read the image"))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    Ok(reader)
}
