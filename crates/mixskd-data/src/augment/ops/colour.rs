//! Operations that blend the image with a degenerate one: `degenerate + factor · (image − degenerate)`.
//!
//! A factor of 0 gives the degenerate image, 1 the image itself, more than 1 goes beyond it (Pillow's `ImageEnhance`).

use crate::augment::Canvas;
use crate::decode::luma;

/// Blends with black.
pub(super) fn brightness(canvas: &mut Canvas<'_>, factor: f32) {
    look_up(canvas, factor, 0);
}

/// Blends with the mean grey value, rounded.
pub(super) fn contrast(canvas: &mut Canvas<'_>, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let count = canvas.height() * canvas.width();
    let sum: u64 = match canvas.channels() {
        3 => {
            let pixels = canvas.pixels_mut().as_chunks::<3>().0;
            pixels.iter().map(|pixel| u64::from(luma(*pixel))).sum()
        }
        _ => canvas.pixels_mut().iter().map(|&v| u64::from(v)).sum(),
    };
    let mean = (sum as f64 / count.max(1) as f64 + 0.5) as u8;
    look_up(canvas, factor, mean);
}

/// Blends with the grey values.
pub(super) fn saturation(canvas: &mut Canvas<'_>, factor: f32) {
    if factor == 1.0 || canvas.channels() != 3 {
        return;
    }
    for pixel in canvas.pixels_mut().as_chunks_mut::<3>().0 {
        let grey = luma(*pixel);
        *pixel = pixel.map(|byte| blend(grey, byte, factor));
    }
}

/// Blends with the image smoothed by a 3×3 window whose middle weighs 5 of 13. Pixels at the border are their own smooth version.
pub(super) fn sharpness(canvas: &mut Canvas<'_>, factor: f32) {
    let (height, width, c) = (canvas.height(), canvas.width(), canvas.channels());
    if factor == 1.0 || height < 3 || width < 3 {
        return;
    }
    let row = width * c;
    canvas.repaint(0, |old, new| {
        new.copy_from_slice(old);
        for y in 1..height - 1 {
            let [above, here, below] = [y - 1, y, y + 1].map(|y| &old[y * row..(y + 1) * row]);
            let inner = &mut new[y * row + c..(y + 1) * row - c];
            for (at, byte) in inner.iter_mut().enumerate() {
                let three = |line: &[u8]| {
                    u32::from(line[at]) + u32::from(line[at + c]) + u32::from(line[at + 2 * c])
                };
                let own = here[at + c];
                let sum = three(above) + three(here) + three(below) + 4 * u32::from(own);
                // Rounded; 13 is odd, so there are no ties.
                let smooth = ((2 * sum + 13) / 26) as u8;
                *byte = blend(smooth, own, factor);
            }
        }
    });
}

/// Blends every byte with the one grey value.
fn look_up(canvas: &mut Canvas<'_>, factor: f32, grey: u8) {
    if factor == 1.0 {
        return;
    }
    let table: [u8; 256] = std::array::from_fn(|byte| blend(grey, byte as u8, factor));
    for byte in canvas.pixels_mut() {
        *byte = table[usize::from(*byte)];
    }
}

/// Fraction dropped, out of range cut off.
fn blend(degenerate: u8, byte: u8, factor: f32) -> u8 {
    let from = i32::from(degenerate);
    let value = from as f32 + factor * (i32::from(byte) - from) as f32;
    // A cast drops the fraction and cuts off at 0 and 255.
    value as u8
}
