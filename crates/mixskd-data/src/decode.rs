//! Image files to pixels.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::{Error, Image, Result, jpeg};

/// File name extensions that are taken for images, in lower case.
pub const EXTENSIONS: &[&str] = &[
    "bmp", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp",
];

/// Longest side of an image, in pixels. A file that declares more is refused before its pixels are given memory.
const MAX_SIDE: u32 = 16_384;
/// Most pixels of an image. What a decoder takes for them, 16 bytes a pixel at worst (a TIFF of four channels of 16 bits; a progressive JPEG of four
/// colours takes 12), is 1 GiB.
pub(crate) const MAX_PIXELS: u64 = 1 << 26;
/// Memory that a decoder may take for what is not pixels, and most bytes of a file.
const MAX_BYTES: u64 = 512 << 20;

/// Reads an image file (JPEG, PNG, WebP, BMP, TIFF, PPM, PGM; told by its contents, not its name; of several pictures the first) as `channels` bytes a pixel: 1 for grey, 3 for
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
    of_channels(read_picture(path)?.0, channels)
}

/// The same as it is decoded, of one or three channels, and what its contents are.
pub(crate) fn read_whole(path: &Path) -> Result<(Image, Option<ImageFormat>)> {
    let (decoded, format) = read_picture(path)?;
    let channels = if decoded.color().has_color() { 3 } else { 1 };
    Ok((of_channels(decoded, channels)?, format))
}

fn read_picture(path: &Path) -> Result<(DynamicImage, Option<ImageFormat>)> {
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
    let format = reader.format();
    if format == Some(ImageFormat::Jpeg) {
        // Its decoder fills with grey what is missing, and takes memory for all that is declared.
        jpeg::check(&bytes).map_err(unreadable)?;
    }
    if format == Some(ImageFormat::Tiff) {
        check_tiff(&bytes).map_err(unreadable)?;
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
    Ok((decoded, format))
}

fn of_channels(decoded: DynamicImage, channels: usize) -> Result<Image> {
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

/// Refuses a TIFF with JPEG inside: what is missing at such a file's end would be grey without a word, and it may take more memory than it declares.
fn check_tiff(bytes: &[u8]) -> std::result::Result<(), String> {
    /// `Compression` values of TIFF 6.0 and its technical note 2.
    const JPEG: [u16; 2] = [6, 7];
    // What cannot be read at all is told by the decoder.
    let compression = Decoder::new(Cursor::new(bytes))
        .and_then(|mut decoder| decoder.find_tag_unsigned(Tag::Compression));
    match compression {
        Ok(Some(method)) if JPEG.contains(&method) => {
            Err("is a TIFF that is compressed as JPEG, which is not read".into())
        }
        _ => Ok(()),
    }
}

/// What the decoder says, and of what it does not know, what it does.
fn told(error: &ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => {
            format!("{error}; read are grey and colour of 8 or 16 bits")
        }
        _ => error.to_string(),
    }
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
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| told(&error))?;
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
    let decoder = reader.into_decoder().map_err(|error| told(&error))?;
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
        for extension in ["png", "bmp", "webp", "tiff", "tif", "ppm"] {
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

    /// The same TIFF with another compression.
    fn as_jpeg(mut tiff: Vec<u8>) -> Vec<u8> {
        let entry = tiff
            .windows(2)
            .position(|pair| pair == 259u16.to_le_bytes());
        tiff[entry.unwrap() + 8] = 7;
        tiff
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
        // Grey floats are another thing to the decoder, and so are bits beyond 16.
        let grey = |bits: u16, format: u16| {
            let entry = |tag: u16, value: u16| {
                let mut entry = [tag.to_le_bytes(), 3u16.to_le_bytes()].concat();
                entry.extend(1u32.to_le_bytes());
                entry.extend(u32::from(value).to_le_bytes());
                entry
            };
            // One strip of one pixel behind the directory of ten entries.
            let after = 8 + 2 + 10 * 12 + 4;
            let mut bytes = b"II*\0\x08\0\0\0\x0a\0".to_vec();
            for (tag, value) in [
                (256, 1),
                (257, 1),
                (258, bits),
                (259, 1),
                (262, 1),
                (273, after),
                (277, 1),
                (278, 1),
                (279, bits / 8),
                (339, format),
            ] {
                bytes.extend(entry(tag, value));
            }
            bytes.extend([0; 4 + 8]);
            bytes
        };
        std::fs::write(&path, grey(8, 1)).unwrap();
        assert_eq!(read_image(&path, 1).unwrap().pixels, [0]);
        for (bytes, word) in [
            (grey(32, 3), "8 or 16 bits"),
            (grey(32, 1), "8 or 16 bits"),
            (as_jpeg(grey(8, 1)), "compressed as JPEG"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let refused = read_image(&path, 1).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
