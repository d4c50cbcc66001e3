//! Pictures of images and of heat laid over them.

use candle_core::{DType, Tensor};
use image::codecs::png::PngEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};

use crate::grad_cam::ClassActivationMap;
use crate::{Error, Result};

/// Smaller pictures are enlarged by a whole factor until their longer side is about this many pixels.
const SIDE: u32 = 224;

/// Dark violet to yellow through equal steps of lightness, readable in grey and to the colour-blind: nine colours of matplotlib's
/// viridis, between which it is linear.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// The colour of `heat` between 0 and 1.
fn colour(heat: f32) -> [f32; 3] {
    let place = heat.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let low = (place.floor() as usize).min(VIRIDIS.len() - 2);
    let f = place - low as f32;
    std::array::from_fn(|c| {
        let (a, b) = (f32::from(VIRIDIS[low][c]), f32::from(VIRIDIS[low + 1][c]));
        a + f * (b - a)
    })
}

/// An image, its pixels between 0 and 1; what lies outside is cut.
///
/// # Shapes
/// `[1, height, width, channel]`, one channel (grey) or three.
///
/// # Errors
/// When it has another shape.
pub fn picture(pixels: &Tensor) -> Result<RgbImage> {
    let (images, height, width, channels) = pixels.dims4()?;
    if images != 1 || !matches!(channels, 1 | 3) {
        return Err(Error::Fit {
            message: format!(
                "a picture is [1, height, width, 1 or 3], got {:?}",
                pixels.dims()
            ),
            hint: "take one image of the batch".into(),
        });
    }
    let values = pixels
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let at = (y as usize * width + x as usize) * channels;
        Rgb(std::array::from_fn(|c| {
            let value = values[at + if channels == 3 { c } else { 0 }];
            (value.clamp(0.0, 1.0) * 255.0).round() as u8
        }))
    }))
}

/// A small picture enlarged by a whole factor until its longer side is about 224 pixels; a larger one as it is.
pub fn enlarged(image: &RgbImage) -> RgbImage {
    let factor = (SIDE / image.width().max(image.height()).max(1)).max(1);
    let (wide, high) = (image.width() * factor, image.height() * factor);
    // Pixels of small images are meant to be seen.
    resize(image, wide, high, FilterType::Nearest)
}

/// `heat` laid over a picture: the picture in grey and paler, the colours half through.
pub(crate) fn overlay(picture: &RgbImage, heat: &ClassActivationMap) -> RgbImage {
    let heat = heat
        .resized(picture.height() as usize, picture.width() as usize)
        .scaled();
    let mut over = picture.clone();
    for (pixel, &heat) in over.pixels_mut().zip(&heat.values) {
        let [r, g, b] = pixel.0.map(f32::from);
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        let colour = colour(heat);
        pixel.0 = std::array::from_fn(|c| (0.45 * grey + 0.55 * colour[c]).round() as u8);
    }
    over
}

/// A picture as a PNG file's bytes.
///
/// # Errors
/// When it cannot be encoded: it has no pixel.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(
            picture.as_raw(),
            picture.width(),
            picture.height(),
            ExtendedColorType::Rgb8,
        )
        .map_err(|error| Error::Encode {
            what: "a PNG picture",
            message: error.to_string(),
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_small_grey_image_is_enlarged_by_a_whole_factor() {
        let pixels = Tensor::from_vec(vec![0f32, 1.0, 0.5, 2.0], (1, 2, 2, 1), &Device::Cpu);
        let shown = enlarged(&picture(&pixels.unwrap()).unwrap());
        assert_eq!(shown.dimensions(), (224, 224));
        assert_eq!(shown.get_pixel(0, 0).0, [0; 3]);
        assert_eq!(shown.get_pixel(223, 0).0, [255; 3]);
        assert_eq!(shown.get_pixel(0, 223).0, [128; 3]);
        let heat = ClassActivationMap {
            height: 1,
            width: 2,
            values: vec![0.0, 3.0],
        };
        let over = overlay(&shown, &heat);
        // Black under no heat, white under the greatest.
        assert_eq!(over.get_pixel(0, 0).0, [37, 1, 46]);
        assert_eq!(over.get_pixel(223, 0).0, [254, 242, 135]);
        let read = image::load_from_memory(&png(&over).unwrap()).unwrap();
        assert_eq!(read.to_rgb8(), over);
    }

    #[test]
    fn heat_grows_lighter() {
        let light = |heat: f32| {
            let [r, g, b] = colour(heat);
            0.299 * r + 0.587 * g + 0.114 * b
        };
        let steps = (0..=100)
            .map(|k| light(k as f32 / 100.0))
            .collect::<Vec<_>>();
        assert!(steps.windows(2).all(|two| two[1] > two[0]), "{steps:?}");
    }
}
