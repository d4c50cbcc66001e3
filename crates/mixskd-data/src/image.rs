//! Pixels.

/// An owned image: bytes, row by row, the channels of a pixel side by side.
///
/// # Shapes
/// `pixels` is `[height, width, channel]`, channel order red, green, blue, or one grey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height · width · channels` bytes.
    pub pixels: Vec<u8>,
}

impl Image {
    /// The image, borrowed.
    pub fn view(&self) -> ImageView<'_> {
        ImageView {
            height: self.height,
            width: self.width,
            channels: self.channels,
            pixels: &self.pixels,
        }
    }
}

/// A borrowed [`Image`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageView<'a> {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height · width · channels` bytes.
    pub pixels: &'a [u8],
}

impl ImageView<'_> {
    /// A copy that owns its pixels.
    pub fn to_image(self) -> Image {
        Image {
            height: self.height,
            width: self.width,
            channels: self.channels,
            pixels: self.pixels.to_vec(),
        }
    }
}
