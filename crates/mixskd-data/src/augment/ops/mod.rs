//! The operations that augmentation policies are made of, each with one magnitude.
//!
//! They do what torchvision's functions of the same names do to a Pillow image: nearest neighbour for the geometric ones,
//! `fill` where nothing is seen, Pillow's rounding everywhere. Compared with both in `tests/operations.rs`.

mod colour;
mod geometry;
mod tone;

use super::Canvas;

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Nothing.
    Identity,
    /// Moves each row to the left by `magnitude` times its distance from the top.
    ShearX,
    /// Moves each column up by `magnitude` times its distance from the left.
    ShearY,
    /// Moves the image to the right by `magnitude` pixels, fraction dropped.
    TranslateX,
    /// Moves the image down by `magnitude` pixels, fraction dropped.
    TranslateY,
    /// Turns the image about its centre, counter-clockwise, by `magnitude` degrees.
    Rotate,
    /// Blends from black: factor `1 + magnitude`.
    Brightness,
    /// Blends from grey values (saturation): factor `1 + magnitude`.
    Color,
    /// Blends from the mean grey value: factor `1 + magnitude`.
    Contrast,
    /// Blends from a smoothed image: factor `1 + magnitude`.
    Sharpness,
    /// Keeps the `magnitude` highest bits of each byte.
    Posterize,
    /// Inverts bytes of `magnitude` and above.
    Solarize,
    /// Stretches each channel to the whole range.
    AutoContrast,
    /// Levels each channel's histogram.
    Equalize,
    /// `255 − byte`.
    Invert,
}

impl Op {
    /// Every operation.
    pub const ALL: [Self; 15] = [
        Self::Identity,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
        Self::Brightness,
        Self::Color,
        Self::Contrast,
        Self::Sharpness,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
        Self::Invert,
    ];

    /// torchvision's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::ShearX => "ShearX",
            Self::ShearY => "ShearY",
            Self::TranslateX => "TranslateX",
            Self::TranslateY => "TranslateY",
            Self::Rotate => "Rotate",
            Self::Brightness => "Brightness",
            Self::Color => "Color",
            Self::Contrast => "Contrast",
            Self::Sharpness => "Sharpness",
            Self::Posterize => "Posterize",
            Self::Solarize => "Solarize",
            Self::AutoContrast => "AutoContrast",
            Self::Equalize => "Equalize",
            Self::Invert => "Invert",
        }
    }

    /// Whether policies draw a sign for its magnitude.
    pub const fn signed(self) -> bool {
        matches!(
            self,
            Self::ShearX
                | Self::ShearY
                | Self::TranslateX
                | Self::TranslateY
                | Self::Rotate
                | Self::Brightness
                | Self::Color
                | Self::Contrast
                | Self::Sharpness
        )
    }

    /// Does it to `canvas`. Geometric operations show `fill` where the image has nothing; operations without a magnitude
    /// ignore it.
    ///
    /// ```
    /// use mixskd_data::ImageView;
    /// use mixskd_data::augment::{Canvas, Op};
    ///
    /// let mut canvas = Canvas::new(ImageView { height: 1, width: 3, channels: 1, pixels: &[10, 20, 30] });
    /// Op::TranslateX.apply(&mut canvas, 1.7, 0);
    /// assert_eq!(canvas.pixels_mut(), [0, 10, 20]);
    /// ```
    pub fn apply(self, canvas: &mut Canvas<'_>, magnitude: f64, fill: u8) {
        match self {
            Self::Identity => {}
            Self::ShearX => geometry::shear(canvas, magnitude, 0.0, fill),
            Self::ShearY => geometry::shear(canvas, 0.0, magnitude, fill),
            Self::TranslateX => geometry::translate(canvas, magnitude as i64, 0, fill),
            Self::TranslateY => geometry::translate(canvas, 0, magnitude as i64, fill),
            Self::Rotate => geometry::rotate(canvas, magnitude, fill),
            Self::Brightness => colour::brightness(canvas, factor(magnitude)),
            Self::Color => colour::saturation(canvas, factor(magnitude)),
            Self::Contrast => colour::contrast(canvas, factor(magnitude)),
            Self::Sharpness => colour::sharpness(canvas, factor(magnitude)),
            Self::Posterize => tone::posterize(canvas, magnitude as u32),
            Self::Solarize => tone::solarize(canvas, magnitude),
            Self::AutoContrast => tone::autocontrast(canvas),
            Self::Equalize => tone::equalize(canvas),
            Self::Invert => tone::invert(canvas),
        }
    }
}

/// Pillow blends in float32.
fn factor(magnitude: f64) -> f32 {
    (1.0 + magnitude) as f32
}
