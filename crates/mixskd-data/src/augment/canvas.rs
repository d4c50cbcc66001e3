//! An image with the geometry still to be done to it.

use std::borrow::Cow;
use std::cell::RefCell;

use fast_image_resize as fir;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};

use super::buffers;
use crate::decode::MAX_PIXELS;
use crate::{Error, Image, ImageView, Result};

thread_local! {
    // A resizer keeps its coefficient and row buffers from one image to the next.
    static RESIZER: RefCell<fir::Resizer> = RefCell::new(fir::Resizer::new());
}

/// What helps where [`is_too_large`].
pub(super) const TOO_LARGE: &str =
    "an image so long and thin is to be cut to its subject or left out; or scale to fewer pixels";

/// Whether that many pixels are more than an image may have.
pub(super) fn is_too_large(height: usize, width: usize) -> bool {
    let pixels = height.checked_mul(width);
    pixels.is_none_or(|pixels| pixels as u64 > MAX_PIXELS)
}

/// A window onto an image. Cropping, padding and flipping move the window and touch no pixel; the pixels are read once, when
/// the window is normalised. Resizing makes new pixels, and so does everything that asks for them ([`Canvas::pixels_mut`]).
///
/// Coordinates are those of the window as it is seen: row 0 and column 0 are its top left corner. What lies outside of the
/// picture is black.
#[derive(Debug, Clone)]
pub struct Canvas<'a> {
    pixels: Cow<'a, [u8]>,
    source_width: usize,
    channels: usize,
    /// The window, in source coordinates.
    window: Rect,
    /// The part of the source that may be seen; a crop hides the rest for good.
    picture: Rect,
    flipped: bool,
}

/// What a canvas shows of a picture whose pixels are as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Row of the picture that the first row shows; what lies outside of the picture is black.
    pub top: i32,
    /// The same of columns, before mirroring.
    pub left: i32,
    /// Whether left and right are swapped.
    pub flipped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rect {
    top: i64,
    left: i64,
    bottom: i64,
    right: i64,
}

impl Rect {
    /// The part of it that lies in `frame`; empty at the frame's edge when there is none.
    fn within(self, frame: Self) -> Self {
        Self {
            top: self.top.clamp(frame.top, frame.bottom),
            left: self.left.clamp(frame.left, frame.right),
            bottom: self.bottom.clamp(frame.top, frame.bottom),
            right: self.right.clamp(frame.left, frame.right),
        }
    }
}

impl<'a> Canvas<'a> {
    /// The whole of `view`.
    pub fn new(view: ImageView<'a>) -> Self {
        let whole = Rect {
            top: 0,
            left: 0,
            bottom: view.height as i64,
            right: view.width as i64,
        };
        Self {
            pixels: Cow::Borrowed(view.pixels),
            source_width: view.width,
            channels: view.channels,
            window: whole,
            picture: whole,
            flipped: false,
        }
    }

    /// Rows of the window.
    pub fn height(&self) -> usize {
        (self.window.bottom - self.window.top) as usize
    }

    /// Columns of the window.
    pub fn width(&self) -> usize {
        (self.window.right - self.window.left) as usize
    }

    /// Bytes of a pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Keeps `height × width` pixels from row `top` and column `left` on. The box may reach outside of the window; what it
    /// finds there is black.
    pub fn crop(&mut self, top: i64, left: i64, height: usize, width: usize) {
        self.picture = self.picture.within(self.window);
        let top = self.window.top + top;
        let left = if self.flipped {
            self.window.right - left - width as i64
        } else {
            self.window.left + left
        };
        self.window = Rect {
            top,
            left,
            bottom: top + height as i64,
            right: left + width as i64,
        };
    }

    /// The window, where no pixel has been changed and no crop hides what it shows.
    pub(crate) fn window(&self) -> Option<Window> {
        let whole = Rect {
            top: 0,
            left: 0,
            bottom: (self.pixels.len() / (self.source_width * self.channels).max(1)) as i64,
            right: self.source_width as i64,
        };
        let untouched = matches!(self.pixels, Cow::Borrowed(_));
        let hidden = self.picture.within(self.window) != whole.within(self.window);
        if !untouched || hidden {
            return None;
        }
        Some(Window {
            top: i32::try_from(self.window.top).ok()?,
            left: i32::try_from(self.window.left).ok()?,
            flipped: self.flipped,
        })
    }

    /// Mirrors the window left to right.
    pub fn flip(&mut self) {
        self.flipped = !self.flipped;
    }

    /// Scales the window to `height × width` with a triangle filter that widens when it shrinks the image, as Pillow's
    /// antialiased bilinear resize does. The filter sees nothing outside of the window.
    ///
    /// # Errors
    /// When the window or the new size is empty, the new size has more than 67,108,864 pixels, or the image is neither grey nor RGB.
    pub fn resize(&mut self, height: usize, width: usize) -> Result<()> {
        self.resize_by(fir::FilterType::Bilinear, height, width)
    }

    /// The same with another filter.
    pub(crate) fn resize_by(
        &mut self,
        filter: fir::FilterType,
        height: usize,
        width: usize,
    ) -> Result<()> {
        if (height, width) == (self.height(), self.width()) {
            return Ok(());
        }
        let refused = |why: &str, hint: &str| {
            let (from_height, from_width) = (self.height(), self.width());
            let message =
                format!("cannot turn {from_height}×{from_width} pixels into {height}×{width}{why}");
            Err(Error::config("resize", message, hint))
        };
        if height == 0 || width == 0 || self.height() == 0 || self.width() == 0 {
            return refused("", "sizes are at least 1");
        }
        if is_too_large(height, width) {
            return refused(&format!(", more than {MAX_PIXELS} in all"), TOO_LARGE);
        }
        if self.picture.within(self.window) != self.window {
            self.draw();
        }
        let scaled = match self.channels {
            1 => self.scaled::<fir::pixels::U8>(filter, height, width),
            3 => self.scaled::<fir::pixels::U8x3>(filter, height, width),
            other => {
                return Err(Error::config(
                    "resize",
                    format!("cannot resize {other} channels"),
                    "use grey or RGB images",
                ));
            }
        };
        let scaled =
            scaled.map_err(|message| Error::config("resize", message, "check the image"))?;
        self.replace(scaled, height, width);
        Ok(())
    }

    /// The window scaled, for one kind of pixel: the untyped resize compiles fifteen of them, a minute's work.
    fn scaled<P: fir::PixelTrait>(
        &self,
        filter: fir::FilterType,
        height: usize,
        width: usize,
    ) -> std::result::Result<Vec<u8>, String> {
        let source_height = self.pixels.len() / (self.source_width * self.channels);
        let source = TypedImageRef::<P>::from_buffer(
            self.source_width as u32,
            source_height as u32,
            &self.pixels,
        )
        .map_err(|error| error.to_string())?;
        let seen = TypedCroppedImage::new(
            source,
            self.window.left as u32,
            self.window.top as u32,
            self.width() as u32,
            self.height() as u32,
        )
        .map_err(|error| error.to_string())?;
        let mut drawn = vec![0; height * width * self.channels];
        let mut target = TypedImage::<P>::from_buffer(width as u32, height as u32, &mut drawn)
            .map_err(|error| error.to_string())?;
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(filter))
            .use_alpha(false);
        RESIZER
            .with_borrow_mut(|resizer| resizer.resize_typed(&seen, &mut target, &options))
            .map_err(|error| error.to_string())?;
        Ok(drawn)
    }

    /// Makes the window's pixels real, black borders included; flipping stays to be done.
    fn draw(&mut self) {
        let (height, width, channels) = (self.height(), self.width(), self.channels);
        let mut drawn = buffers::take(height * width * channels, 0);
        let seen = self.picture.within(self.window);
        let bytes = (seen.right - seen.left) as usize * channels;
        if bytes > 0 {
            for row in seen.top..seen.bottom {
                let from = (row as usize * self.source_width + seen.left as usize) * channels;
                let to = ((row - self.window.top) as usize * width
                    + (seen.left - self.window.left) as usize)
                    * channels;
                drawn[to..to + bytes].copy_from_slice(&self.pixels[from..from + bytes]);
            }
        }
        self.replace(drawn, height, width);
    }

    /// The window's pixels as bytes of its own, `[height, width, channel]`, crop, border and flip done.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        let whole = self.window == self.picture
            && (self.window.top, self.window.left) == (0, 0)
            && self.width() == self.source_width
            && self.pixels.len() == self.height() * self.width() * self.channels;
        if !whole || matches!(self.pixels, Cow::Borrowed(_)) {
            self.draw();
        }
        let row = self.width() * self.channels;
        let (turn, channels) = (self.flipped, self.channels);
        self.flipped = false;
        let pixels = self.pixels.to_mut();
        if turn && row > 0 {
            for line in pixels.chunks_exact_mut(row) {
                // Turned byte by byte, then each pixel turned back.
                line.reverse();
                line.chunks_exact_mut(channels).for_each(<[u8]>::reverse);
            }
        }
        pixels
    }

    /// Replaces the window's pixels by what `paint(old, new)` makes of them; `new` is as large as `old` and holds `fill` to begin
    /// with.
    pub(super) fn repaint(&mut self, fill: u8, paint: impl FnOnce(&[u8], &mut [u8])) {
        let (height, width) = (self.height(), self.width());
        let old = self.pixels_mut();
        let mut new = buffers::take(old.len(), fill);
        paint(old, &mut new);
        self.replace(new, height, width);
    }

    /// The window as an image of its own.
    pub fn to_image(&self) -> Image {
        let mut drawn = self.clone();
        drawn.pixels_mut();
        Image {
            height: drawn.height(),
            width: drawn.width(),
            channels: drawn.channels,
            pixels: std::mem::take(&mut drawn.pixels).into_owned(),
        }
    }

    fn replace(&mut self, pixels: Vec<u8>, height: usize, width: usize) {
        if let Cow::Owned(old) = std::mem::replace(&mut self.pixels, Cow::Owned(pixels)) {
            buffers::give_back(old);
        }
        self.source_width = width;
        self.window = Rect {
            top: 0,
            left: 0,
            bottom: height as i64,
            right: width as i64,
        };
        self.picture = self.window;
    }

    /// Writes the window as `table[channel][byte]`, `[height, width, channel]`, into `out`: crop, flip and normalisation in
    /// one pass. `out` has `height · width · channels` places and `table` a row for each channel.
    pub(crate) fn normalise_into(&self, table: &[[f32; 256]], out: &mut [f32]) {
        match table {
            [grey] => self.write::<1>(&[grey], out),
            [red, green, blue] => self.write::<3>(&[red, green, blue], out),
            _ => {}
        }
    }

    fn write<const C: usize>(&self, table: &[&[f32; 256]; C], out: &mut [f32]) {
        let seen = self.picture.within(self.window);
        let black: [f32; C] = std::array::from_fn(|c| table[c][0]);
        let before = (seen.left - self.window.left) as usize;
        let count = (seen.right - seen.left) as usize;
        // Columns of black to the left as seen: flipping swaps the two borders.
        let lead = if self.flipped {
            self.width() - before - count
        } else {
            before
        };
        for (row, line) in out.chunks_exact_mut(self.width() * C).enumerate() {
            let row = self.window.top + row as i64;
            if count == 0 || row < seen.top || row >= seen.bottom {
                fill(line, &black);
                continue;
            }
            let (left, rest) = line.split_at_mut(lead * C);
            let (middle, right) = rest.split_at_mut(count * C);
            fill(left, &black);
            fill(right, &black);
            let from = (row as usize * self.source_width + seen.left as usize) * C;
            let source = self.pixels[from..from + count * C].as_chunks::<C>().0;
            let target = middle.as_chunks_mut::<C>().0.iter_mut();
            if self.flipped {
                for (pixel, bytes) in target.zip(source.iter().rev()) {
                    *pixel = std::array::from_fn(|c| table[c][bytes[c] as usize]);
                }
            } else {
                for (pixel, bytes) in target.zip(source) {
                    *pixel = std::array::from_fn(|c| table[c][bytes[c] as usize]);
                }
            }
        }
    }
}

impl Drop for Canvas<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(pixels) = std::mem::take(&mut self.pixels) {
            buffers::give_back(pixels);
        }
    }
}

fn fill<const C: usize>(line: &mut [f32], pixel: &[f32; C]) {
    for place in line.as_chunks_mut::<C>().0 {
        *place = *pixel;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The window's bytes as f32, by the fused writer.
    fn read(canvas: &Canvas<'_>) -> Vec<f32> {
        let identity: [f32; 256] = std::array::from_fn(|v| v as f32);
        let mut out = vec![-1.0; canvas.height() * canvas.width() * canvas.channels()];
        canvas.normalise_into(&vec![identity; canvas.channels()], &mut out);
        out
    }

    /// The same operations on a plain array of pixels.
    struct Plain(Vec<Vec<u8>>);

    impl Plain {
        fn crop(&mut self, top: i64, left: i64, height: usize, width: usize) {
            let at = |y: i64, x: i64| {
                let row = usize::try_from(y).ok().and_then(|y| self.0.get(y));
                row.and_then(|row| usize::try_from(x).ok().and_then(|x| row.get(x)))
                    .copied()
                    .unwrap_or(0)
            };
            let rows = (0..height as i64)
                .map(|y| (0..width as i64).map(|x| at(top + y, left + x)).collect());
            self.0 = rows.collect();
        }

        fn flip(&mut self) {
            self.0.iter_mut().for_each(|row| row.reverse());
        }
    }

    proptest! {
        #[test]
        fn crops_and_flips_compose_as_on_a_plain_array(
            steps in prop::collection::vec((any::<bool>(), -4i64..6, -4i64..6, 1usize..7, 1usize..7), 0..5),
        ) {
            let pixels: Vec<u8> = (1..=20).collect();
            let view = ImageView { height: 4, width: 5, channels: 1, pixels: &pixels };
            let mut canvas = Canvas::new(view);
            let mut plain = Plain(pixels.chunks(5).map(<[u8]>::to_vec).collect());
            for (flip, top, left, height, width) in steps {
                if flip {
                    canvas.flip();
                    plain.flip();
                } else {
                    canvas.crop(top, left, height, width);
                    plain.crop(top, left, height, width);
                }
            }
            let expected: Vec<f32> = plain.0.concat().into_iter().map(f32::from).collect();
            prop_assert_eq!(read(&canvas), expected.clone());
            prop_assert_eq!(canvas.to_image().pixels, plain.0.concat());
            canvas.pixels_mut();
            prop_assert_eq!(read(&canvas), expected);
        }
    }

    #[test]
    fn resizing_a_constant_keeps_it_and_a_crop_hides_the_rest() {
        // Left half 10, right half 200: a resize of the left half alone must not see the right one.
        let pixels: Vec<u8> = (0..8 * 8)
            .flat_map(|i| [if i % 8 < 4 { 10 } else { 200 }; 3])
            .collect();
        let mut canvas = Canvas::new(ImageView {
            height: 8,
            width: 8,
            channels: 3,
            pixels: &pixels,
        });
        canvas.crop(0, 0, 8, 4);
        canvas.resize(5, 3).unwrap();
        assert_eq!((canvas.height(), canvas.width()), (5, 3));
        assert!(read(&canvas).iter().all(|v| *v == 10.0));
    }
}
