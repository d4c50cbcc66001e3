//! Image files to pixels.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::{Error, Image, Result, jpeg};

/// File name extensions that are taken for images, in lower case.
pub const EXTENSIONS: &[&str] = &[
    "bmp", "gif", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp",
];

/// Longest side of an image, in pixels. A file that declares more is refused before its pixels are given memory.
const MAX_SIDE: u32 = 16_384;
/// Most pixels of an image. What a decoder takes for them, 12 bytes a pixel at worst (a progressive JPEG of four colours), stays
/// below 1 GiB.
pub(crate) const MAX_PIXELS: u64 = 1 << 26;
/// Memory that a decoder may take for what is not pixels, and most bytes of a file.
const MAX_BYTES: u64 = 512 << 20;

/// Reads an image file (JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, PGM; told by its contents, not its name; of several pictures the first) as `channels` bytes a pixel: 1 for grey, 3 for
/// RGB. Grey is repeated, colour becomes ITU-R 601 luma as in Pillow (0.299 red, 0.587 green, 0.114 blue), transparency is dropped, and the
/// picture is turned upright as its Exif orientation says.
///
/// # Shapes
/// `[height, width, channels]`.
///
/// # Errors
/// When the file cannot be read, is damaged or cut short, holds floating-point numbers (of no range that is known), or declares more than 16,384 pixels a side, 67,108,864 pixels in all, or (JPEG) more
/// than a file of its length can hold.
pub fn read_image(path: &Path, channels: usize) -> Result<Image> {
    let unreadable = |message: String| Error::unreadable(path.display().to_string(), message);
    let read = Error::io(path, "read the image");
    let bytes = match bytes(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(unreadable(format!("is larger than {MAX_BYTES} bytes"))),
        Err(error) => return Err(read(error)),
    };
    let reader = reader(path, Cursor::new(bytes.as_slice())).map_err(read)?;
    if bytes.is_empty() {
        return Err(unreadable("the file is empty".into()));
    }
    if reader.format() == Some(ImageFormat::Jpeg) {
        // Its decoder fills with grey what is missing, and takes memory for all that is declared.
        jpeg::check(&bytes).map_err(unreadable)?;
    }
    let decoded = decoder(reader).and_then(upright).map_err(unreadable)?;
    if matches!(
        decoded,
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_)
    ) {
        let message =
            "holds floating-point numbers, whose range is not known; 8 or 16 bits are read";
        return Err(unreadable(message.into()));
    }
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let pixels = match channels {
        1 => grey(decoded),
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

/// One byte a pixel. The image library's own luma of colours is another one, ITU-R 709.
fn grey(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_color() {
        return image.into_luma8().into_raw();
    }
    let rgb = image.into_rgb8();
    rgb.pixels().map(|pixel| luma(pixel.0)).collect()
}

/// ITU-R 601 luma, in Pillow's fixed-point arithmetic.
pub(crate) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471;
    ((sum + 0x8000) >> 16) as u8
}

/// Height and width of an image file, from its header.
pub(crate) fn read_size(path: &Path) -> Result<(usize, usize)> {
    let reader = File::open(path)
        .and_then(|file| reader(path, BufReader::new(file)))
        .map_err(Error::io(path, "read the image"))?;
    let mut decoder = decoder(reader)
        .map_err(|message| Error::unreadable(path.display().to_string(), message))?;
    let (width, height) = decoder.dimensions();
    let (height, width) = (height as usize, width as usize);
    Ok(if is_turned(orientation(&mut decoder)) {
        (width, height)
    } else {
        (height, width)
    })
}

/// How the picture is to be turned; not at all where it does not say so, or says nothing sensible.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

/// Whether height and width change places.
fn is_turned(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(
        orientation,
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH
    )
}

fn upright(mut decoder: impl ImageDecoder) -> std::result::Result<DynamicImage, String> {
    let orientation = orientation(&mut decoder);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The file; `None` where it is too long for an image.
fn bytes(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A reader of the format that the contents tell, or else the name.
fn reader<R: BufRead + Seek>(path: &Path, from: R) -> std::io::Result<ImageReader<R>> {
    let mut reader = ImageReader::new(from);
    if let Ok(format) = ImageFormat::from_path(path) {
        reader.set_format(format);
    }
    reader.with_guessed_format()
}

/// The decoder of a file whose header declares no more than may be.
fn decoder<'a, R: BufRead + Seek + 'a>(
    mut reader: ImageReader<R>,
) -> std::result::Result<impl ImageDecoder + 'a, String> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "declares {width}×{height} pixels; the limit is {MAX_SIDE} a side and {MAX_PIXELS} in all"
        ));
    }
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, Rgb32FImage, RgbImage};

    use super::*;

    #[test]
    fn colour_becomes_pillows_grey() {
        let colours = [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([90, 90, 90], 90),
            ([255; 3], 255),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("colours.png");
        let picture = RgbImage::from_fn(5, 1, |x, _| Rgb(colours[x as usize].0));
        for picture in [
            DynamicImage::from(picture.clone()),
            DynamicImage::from(picture).into_rgba8().into(),
        ] {
            picture.save(&path).unwrap();
            let expected: Vec<u8> = colours.iter().map(|(_, grey)| *grey).collect();
            assert_eq!(read_image(&path, 1).unwrap().pixels, expected);
        }
    }

    #[test]
    fn formats_without_loss_hold_the_same_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let picture = RgbImage::from_fn(5, 3, |x, y| Rgb([50 * x as u8, 100 * y as u8, 7]));
        for extension in ["png", "bmp", "webp", "tiff", "tif", "gif", "ppm"] {
            let path = folder.path().join(format!("a.{extension}"));
            picture.save(&path).unwrap();
            let read = read_image(&path, 3).unwrap();
            assert_eq!((read.height, read.width), (3, 5), "{extension}");
            assert_eq!(read.pixels, picture.as_raw().as_slice(), "{extension}");
            assert_eq!(read_size(&path).unwrap(), (3, 5), "{extension}");
        }
        let path = folder.path().join("a.pgm");
        let grey = image::GrayImage::from_fn(5, 3, |x, y| image::Luma([(x * y) as u8]));
        grey.save(&path).unwrap();
        assert_eq!(read_image(&path, 1).unwrap().pixels, grey.into_raw());
    }

    #[test]
    fn sixteen_bits_become_eight_and_floats_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.tiff");
        let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(3, 1, |x, _| {
            image::Luma([[0, 32_896, 65_535][x as usize]])
        });
        deep.save(&path).unwrap();
        assert_eq!(read_image(&path, 1).unwrap().pixels, [0, 128, 255]);
        Rgb32FImage::new(2, 2).save(&path).unwrap();
        let refused = read_image(&path, 3).unwrap_err().to_string();
        assert!(refused.contains("floating-point"), "{refused}");
    }
}
