//! Operations that look each byte up in a table of 256.

use crate::augment::Canvas;

/// Keeps the highest `bits` bits; 8 keeps all, 0 leaves black.
pub(super) fn posterize(canvas: &mut Canvas<'_>, bits: u32) {
    let mask = !(0xFF_u32 >> bits.min(8)) as u8;
    for byte in canvas.pixels_mut() {
        *byte &= mask;
    }
}

/// Inverts bytes that are not below `threshold`.
pub(super) fn solarize(canvas: &mut Canvas<'_>, threshold: f64) {
    // A byte lies below the threshold when it lies below the next whole number; 256 is above every byte.
    let first = threshold.ceil().clamp(0.0, 256.0) as u16;
    for byte in canvas.pixels_mut() {
        if u16::from(*byte) >= first {
            *byte = !*byte;
        }
    }
}

/// `255 − byte`.
pub(super) fn invert(canvas: &mut Canvas<'_>) {
    for byte in canvas.pixels_mut() {
        *byte = !*byte;
    }
}

/// Maps each channel's darkest byte to 0 and its brightest to 255, linearly.
pub(super) fn autocontrast(canvas: &mut Canvas<'_>) {
    by_channel(canvas, |histogram| {
        let low = histogram.iter().position(|&count| count > 0)?;
        let high = histogram.iter().rposition(|&count| count > 0)?;
        if high <= low {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        Some(std::array::from_fn(|byte| {
            (byte as f64 * scale + offset).clamp(0.0, 255.0) as u8
        }))
    });
}

/// Spreads each channel's bytes so that all levels are about equally frequent.
pub(super) fn equalize(canvas: &mut Canvas<'_>) {
    by_channel(canvas, |histogram| {
        let last = histogram.iter().rposition(|&count| count > 0)?;
        let total: u32 = histogram.iter().sum();
        // How many pixels a level has to hold; the brightest byte's own do not count.
        let step = (total - histogram[last]) / 255;
        if step == 0 {
            return None;
        }
        let mut seen = step / 2;
        Some(std::array::from_fn(|byte| {
            let level = (seen / step).min(255) as u8;
            seen += histogram[byte];
            level
        }))
    });
}

/// Replaces the bytes of each channel by what `table` makes of its histogram; `None` leaves the channel as it is.
fn by_channel(canvas: &mut Canvas<'_>, table: impl Fn(&[u32; 256]) -> Option<[u8; 256]>) {
    let channels = canvas.channels();
    let pixels = canvas.pixels_mut();
    for channel in 0..channels {
        let mut histogram = [0_u32; 256];
        for &byte in pixels.iter().skip(channel).step_by(channels) {
            histogram[usize::from(byte)] += 1;
        }
        if let Some(table) = table(&histogram) {
            for byte in pixels.iter_mut().skip(channel).step_by(channels) {
                *byte = table[usize::from(*byte)];
            }
        }
    }
}
