//! Augmentations in a row, then numbers for the network.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;

use super::{Augment, AugmentConfig, Canvas, Normalised, Window};
use crate::rng::{Purpose, stream};
use crate::{Error, Image, ImageView, Result};

/// Augmentations in order, then `(byte / 255 - mean) / std` for each channel.
#[derive(Debug, Clone)]
pub struct Pipeline {
    ops: Vec<Arc<dyn Augment>>,
    /// The normalised value of each byte, by channel.
    table: Vec<[f32; 256]>,
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
    /// When an augmentation refuses the image, or the result is not `size` or has other channels than the pipeline.
    pub fn apply(
        &self,
        view: ImageView<'_>,
        size: (usize, usize),
        rng: &mut ChaCha8Rng,
        out: &mut [f32],
    ) -> std::result::Result<(), String> {
        if view.channels != self.channels() {
            return Err(format!(
                "has {} channels, the pipeline takes {}",
                view.channels,
                self.channels()
            ));
        }
        let mut canvas = Canvas::new(view);
        for op in &self.ops {
            op.apply(&mut canvas, rng)
                .map_err(|error| error.to_string())?;
        }
        let got = (canvas.height(), canvas.width());
        if got != size || out.len() != size.0 * size.1 * self.channels() {
            let ((h, w), (gh, gw)) = (size, got);
            return Err(format!(
                "is {gh}×{gw} after augmentation where {h}×{w} is wanted"
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

    /// Whether no augmentation does more than move a window over the image, so that [`Self::window`] says all there is to say.
    pub fn moves_only(&self) -> bool {
        self.ops.iter().all(|op| op.moves_only())
    }

    /// What of `view` becomes the result of [`Self::apply`], where no augmentation changes a pixel.
    ///
    /// # Errors
    /// When an augmentation refuses the image, or the result is not `size`.
    pub fn window(
        &self,
        view: ImageView<'_>,
        size: (usize, usize),
        rng: &mut ChaCha8Rng,
    ) -> std::result::Result<Window, String> {
        let mut canvas = Canvas::new(view);
        for op in &self.ops {
            op.apply(&mut canvas, rng)
                .map_err(|error| error.to_string())?;
        }
        let got = (canvas.height(), canvas.width());
        match canvas.window() {
            Some(window) if got == size => Ok(window),
            _ => Err(format!(
                "is no window of {}×{} pixels onto the image after augmentation",
                size.0, size.1
            )),
        }
    }

    /// One image as a network's input, for pipelines that draw nothing (evaluation).
    ///
    /// # Shapes
    /// `[1, height, width, channel]`, float32.
    ///
    /// # Errors
    /// When the image does not fit the pipeline.
    pub fn tensor(&self, image: &Image) -> Result<Tensor> {
        let refuse = |message: String| Error::Image {
            origin: "image".into(),
            message,
            hint: "resize it or convert its channels first".into(),
        };
        let Some((height, width)) = self.size(Some((image.height, image.width))) else {
            return Err(refuse("has no size after augmentation".into()));
        };
        let mut out = vec![0.0; height * width * self.channels()];
        let mut rng = stream(0, 0, 0, Purpose::Augment);
        self.apply(image.view(), (height, width), &mut rng, &mut out)
            .map_err(refuse)?;
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
    use crate::augment::{Flip, PadCrop};

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
