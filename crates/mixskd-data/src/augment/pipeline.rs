//! Augmentations in a row, then numbers for the network.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;

use super::canvas::{TOO_LARGE, is_too_large};
use super::{Augment, AugmentConfig, Canvas, Normalised, Window};
use crate::decode::MAX_PIXELS;
use crate::rng::{Purpose, stream};
use crate::{Error, Image, ImageView, Result};

/// Augmentations in order, then `(byte / 255 - mean) / std` for each channel.
#[derive(Debug, Clone)]
pub struct Pipeline {
    ops: Vec<Arc<dyn Augment>>,
    /// The normalised value of each byte, by channel.
    table: Vec<[f32; 256]>,
}

/// What helps where sizes do not fit.
const SIZES: &str = "images of different sizes need an augmentation that fixes the size, such as random_resized_crop";

/// What is said of an image whose name the caller knows.
fn refused(message: String, hint: &str) -> Error {
    Error::Image {
        origin: "an image".into(),
        message,
        hint: hint.into(),
    }
}

impl Pipeline {
    /// Strings `ops` together. `mean` and `std` have one number for each channel, on the scale where a byte of 255 is 1.
    ///
    /// # Errors
    /// When `mean` and `std` differ in length, are neither 1 nor 3 long, or hold a number that is not finite or a `std` of 0.
    pub fn new(ops: Vec<Arc<dyn Augment>>, mean: &[f32], std: &[f32]) -> Result<Self> {
        let finite = mean.iter().chain(std).all(|v| v.is_finite()) && std.iter().all(|s| *s > 0.0);
        if mean.len() != std.len() || !matches!(mean.len(), 1 | 3) || !finite {
            return Err(Error::config(
                "mean, std",
                format!("cannot normalise with mean {mean:?} and std {std:?}"),
                "give 1 (grey) or 3 (RGB) finite numbers each, std above 0",
            ));
        }
        let row =
            |(mean, std): (&f32, &f32)| std::array::from_fn(|v| (v as f32 / 255.0 - mean) / std);
        Ok(Self {
            ops,
            table: mean.iter().zip(std).map(row).collect(),
        })
    }

    /// [`Pipeline::new`] from plain data.
    ///
    /// # Errors
    /// As [`Pipeline::new`] and [`AugmentConfig::build`].
    pub fn from_config(ops: &[AugmentConfig], mean: &[f32], std: &[f32]) -> Result<Self> {
        Self::new(
            ops.iter()
                .map(AugmentConfig::build)
                .collect::<Result<_>>()?,
            mean,
            std,
        )
    }

    /// Channels it takes.
    pub fn channels(&self) -> usize {
        self.table.len()
    }

    /// Height and width of its results for images of `size`; with `None` (images of many sizes) the answer is `None` unless an
    /// augmentation fixes the size.
    pub fn size(&self, size: Option<(usize, usize)>) -> Option<(usize, usize)> {
        self.ops.iter().fold(size, |size, op| op.size(size))
    }

    /// Augments one image and writes it, `[height, width, channel]`, into `out`.
    ///
    /// # Errors
    /// When the image has no pixel, other channels than the pipeline, or a number of bytes that is not that of its sizes, when an augmentation
    /// refuses it, or when the result is not `size`. Whose image it is the caller knows: [`Error::of`](crate::Error::of).
    pub fn apply(
        &self,
        view: ImageView<'_>,
        size: (usize, usize),
        rng: &mut ChaCha8Rng,
        out: &mut [f32],
    ) -> Result<()> {
        self.check(view)?;
        let mut canvas = Canvas::new(view);
        for op in &self.ops {
            op.apply(&mut canvas, rng)?;
        }
        let got = (canvas.height(), canvas.width());
        if got != size || out.len() != size.0 * size.1 * self.channels() {
            let ((h, w), (gh, gw)) = (size, got);
            return Err(refused(
                format!("is {gh}×{gw} after augmentation where {h}×{w} is wanted"),
                SIZES,
            ));
        }
        canvas.normalise_into(&self.table, out);
        if let Some(mut image) = Normalised::new(size, self.channels(), out) {
            for op in &self.ops {
                op.finish(&mut image, rng);
            }
        }
        Ok(())
    }

    /// Whether every result is one window onto the image, so that [`Self::window`] says all there is to say: augmentations mirror, and one
    /// of them at most crops or pads. What a crop hides is black to all later ones, and a second crop may bring such pixels back into view.
    pub fn moves_only(&self) -> bool {
        let crops = self.ops.iter().filter(|op| !op.mirrors_only()).count();
        crops <= 1 && self.ops.iter().all(|op| op.moves_only())
    }

    /// What of `view` becomes the result of [`Self::apply`], for pipelines that [move only](Self::moves_only).
    ///
    /// # Errors
    /// When an augmentation refuses the image, the result is not `size`, or it is no window.
    pub fn window(
        &self,
        view: ImageView<'_>,
        size: (usize, usize),
        rng: &mut ChaCha8Rng,
    ) -> Result<Window> {
        self.check(view)?;
        let mut canvas = Canvas::new(view);
        for op in &self.ops {
            op.apply(&mut canvas, rng)?;
        }
        let got = (canvas.height(), canvas.width());
        match canvas.window() {
            Some(window) if got == size => Ok(window),
            _ => Err(refused(
                format!(
                    "is no window of {}×{} pixels onto the image after augmentation",
                    size.0, size.1
                ),
                SIZES,
            )),
        }
    }

    /// Whether an image is what it says it is, and has this pipeline's channels.
    fn check(&self, view: ImageView<'_>) -> Result<()> {
        let ImageView {
            height,
            width,
            channels,
            pixels,
        } = view;
        if channels != self.channels() {
            return Err(refused(
                format!(
                    "has {channels} channels, the pipeline takes {}",
                    self.channels()
                ),
                "convert its channels, or give the pipeline a mean and a deviation for each",
            ));
        }
        let bytes = height
            .checked_mul(width)
            .and_then(|n| n.checked_mul(channels));
        if bytes != Some(pixels.len()) || pixels.is_empty() {
            return Err(refused(
                format!(
                    "is given as {} bytes for {height}×{width} pixels of {channels} channels",
                    pixels.len()
                ),
                "whoever reads it has to give height · width · channels bytes, and one at least",
            ));
        }
        Ok(())
    }

    /// One image as a network's input, for pipelines that draw nothing (evaluation).
    ///
    /// # Shapes
    /// `[1, height, width, channel]`, float32.
    ///
    /// # Errors
    /// When the image does not fit the pipeline.
    pub fn tensor(&self, image: &Image) -> Result<Tensor> {
        let Some((height, width)) = self.size(Some((image.height, image.width))) else {
            return Err(refused("has no size after augmentation".into(), SIZES));
        };
        if is_too_large(height, width) {
            let message = format!(
                "has {height}×{width} pixels after augmentation, more than {MAX_PIXELS} in all"
            );
            return Err(refused(message, TOO_LARGE));
        }
        let mut out = vec![0.0; height * width * self.channels()];
        let mut rng = stream(0, 0, 0, Purpose::Augment);
        self.apply(image.view(), (height, width), &mut rng, &mut out)?;
        Ok(Tensor::from_vec(
            out,
            (1, height, width, self.channels()),
            &Device::Cpu,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::{CentreCrop, Flip, PadCrop, Resize};

    #[test]
    fn normalises_as_the_formula_says() {
        let pipeline = Pipeline::new(vec![], &[0.5, 0.25, 0.0], &[0.5, 0.25, 1.0]).unwrap();
        let image = Image {
            height: 1,
            width: 1,
            channels: 3,
            pixels: vec![255, 0, 51],
        };
        let values = pipeline
            .tensor(&image)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(values, [1.0, -1.0, 0.2]);
    }

    #[test]
    fn padding_is_black_before_normalisation() {
        let pipeline =
            Pipeline::new(vec![Arc::new(PadCrop { padding: 40 })], &[0.5], &[0.25]).unwrap();
        let image = Image {
            height: 2,
            width: 2,
            channels: 1,
            pixels: vec![255; 4],
        };
        let mut out = [0.0; 4];
        pipeline
            .apply(
                image.view(),
                (2, 2),
                &mut stream(0, 0, 0, Purpose::Augment),
                &mut out,
            )
            .unwrap();
        assert_eq!(out, [-2.0; 4]);
    }

    #[test]
    fn flips_half_of_the_images() {
        let pipeline = Pipeline::new(vec![Arc::new(Flip::default())], &[0.0], &[1.0]).unwrap();
        let image = Image {
            height: 1,
            width: 2,
            channels: 1,
            pixels: vec![0, 255],
        };
        let flipped = (0..1000).filter(|&index| {
            let mut out = [0.0; 2];
            pipeline
                .apply(
                    image.view(),
                    (1, 2),
                    &mut stream(0, 0, index, Purpose::Augment),
                    &mut out,
                )
                .unwrap();
            out == [1.0, 0.0]
        });
        assert!((430..570).contains(&flipped.count()));
    }

    #[test]
    fn only_one_crop_is_a_window() {
        let crop = || -> Arc<dyn Augment> { Arc::new(PadCrop { padding: 4 }) };
        let flip = || -> Arc<dyn Augment> { Arc::new(Flip::default()) };
        let middle = || -> Arc<dyn Augment> { Arc::new(CentreCrop { size: 6 }) };
        let check = |ops: Vec<Arc<dyn Augment>>, expected: bool| {
            let pipeline = Pipeline::new(ops, &[0.0], &[1.0]).unwrap();
            assert_eq!(pipeline.moves_only(), expected, "{pipeline:?}");
            let pixels = [200; 36];
            let view = ImageView {
                height: 6,
                width: 6,
                channels: 1,
                pixels: &pixels,
            };
            let window = |index| {
                let mut rng = stream(0, 0, index, Purpose::Augment);
                pipeline.window(view, (6, 6), &mut rng).is_ok()
            };
            assert_eq!((0..100).all(window), expected, "{pipeline:?}");
        };
        check(vec![], true);
        check(vec![flip(), flip()], true);
        check(vec![flip(), crop(), flip()], true);
        check(vec![middle(), flip()], true);
        check(vec![crop(), flip(), crop()], false);
    }

    #[test]
    fn a_ribbon_is_refused_before_memory_is_taken_for_it() {
        let image = Image {
            height: 16_384,
            width: 1,
            channels: 3,
            pixels: vec![7; 3 * 16_384],
        };
        let resize = || -> Arc<dyn Augment> { Arc::new(Resize { size: 256 }) };
        let crop: Arc<dyn Augment> = Arc::new(CentreCrop { size: 224 });
        for ops in [vec![resize()], vec![resize(), crop]] {
            let pipeline = Pipeline::new(ops, &[0.0; 3], &[1.0; 3]).unwrap();
            let error = pipeline.tensor(&image).unwrap_err().to_string();
            assert!(error.contains("4194304×256"), "{error}");
            assert!(error.contains("hint"), "{error}");
        }
        for size in [usize::MAX, usize::MAX / 2, 1 << 40] {
            let ops: Vec<Arc<dyn Augment>> = vec![Arc::new(Resize { size })];
            let pipeline = Pipeline::new(ops, &[0.0; 3], &[1.0; 3]).unwrap();
            assert!(pipeline.tensor(&image).is_err());
        }
    }

    #[test]
    fn senseless_constants_are_refused() {
        for (mean, std) in [
            (&[0.0][..], &[0.0][..]),
            (&[0.0, 0.0], &[1.0, 1.0]),
            (&[f32::NAN], &[1.0]),
            (&[0.0], &[1.0; 3]),
        ] {
            assert!(
                Pipeline::new(vec![], mean, std).is_err(),
                "{mean:?} {std:?}"
            );
        }
    }
}
