//! Shear, translation, rotation: nearest neighbour.

use crate::augment::Canvas;

/// Where the result's pixel (x, y) is taken from: (m0·x + m1·y + m2, m3·x + m4·y + m5), in pixel edges.
type Matrix = [f64; 6];

/// Source x = x + `along_x`·y, source y = y + `along_y`·x, about the top left corner.
pub(super) fn shear(canvas: &mut Canvas<'_>, along_x: f64, along_y: f64, fill: u8) {
    // By way of the angle in degrees, as torchvision does it; the rounding is the point.
    let tangent = |slope: f64| slope.atan().to_degrees().to_radians().tan();
    if along_x != 0.0 || along_y != 0.0 {
        affine(
            canvas,
            [1.0, tangent(along_x), 0.0, tangent(along_y), 1.0, 0.0],
            fill,
        );
    }
}

/// Moves the image by whole pixels, to the right and down.
pub(super) fn translate(canvas: &mut Canvas<'_>, right: i64, down: i64, fill: u8) {
    let (height, width) = (canvas.height() as i64, canvas.width() as i64);
    let pixel = canvas.channels() as i64;
    if (right, down) == (0, 0) {
        return;
    }
    canvas.repaint(fill, |old, new| {
        let columns = width - right.abs();
        if columns <= 0 {
            return;
        }
        let bytes = (columns * pixel) as usize;
        for y in down.max(0)..(height + down).min(height) {
            let from = (((y - down) * width + (-right).max(0)) * pixel) as usize;
            let to = ((y * width + right.max(0)) * pixel) as usize;
            new[to..to + bytes].copy_from_slice(&old[from..from + bytes]);
        }
    });
}

/// Turns the image about its centre by `degrees`, counter-clockwise.
pub(super) fn rotate(canvas: &mut Canvas<'_>, degrees: f64, fill: u8) {
    let degrees = degrees.rem_euclid(360.0);
    let (height, width) = (canvas.height(), canvas.width());
    // Pillow turns by whole quarters without a matrix, where the shape stays.
    if degrees == 0.0 {
        return;
    }
    if degrees == 180.0 {
        let pixel = canvas.channels();
        let pixels = canvas.pixels_mut();
        pixels.reverse();
        pixels.chunks_exact_mut(pixel).for_each(<[u8]>::reverse);
        return;
    }
    if height == width && (degrees == 90.0 || degrees == 270.0) {
        return quarter(canvas, degrees == 90.0);
    }
    let angle = -degrees.to_radians();
    let (sine, cosine) = (fifteen_digits(angle.sin()), fifteen_digits(angle.cos()));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    let matrix = [
        cosine,
        sine,
        (cosine * -x + sine * -y) + x,
        -sine,
        cosine,
        (-sine * -x + cosine * -y) + y,
    ];
    affine(canvas, matrix, fill);
}

/// Pillow rounds the matrix to 15 decimals, so that a quarter turn is exact.
fn fifteen_digits(value: f64) -> f64 {
    (value * 1e15).round_ties_even() / 1e15
}

/// A quarter turn of a square.
fn quarter(canvas: &mut Canvas<'_>, counter_clockwise: bool) {
    let (side, pixel) = (canvas.width(), canvas.channels());
    canvas.repaint(0, |old, new| {
        for (at, place) in new.chunks_exact_mut(pixel).enumerate() {
            let (y, x) = (at / side, at % side);
            let from = if counter_clockwise {
                x * side + side - 1 - y
            } else {
                (side - 1 - x) * side + y
            };
            place.copy_from_slice(&old[from * pixel..(from + 1) * pixel]);
        }
    });
}

fn affine(canvas: &mut Canvas<'_>, matrix: Matrix, fill: u8) {
    let size = (canvas.height(), canvas.width());
    let channels = canvas.channels();
    canvas.repaint(fill, |old, new| match channels {
        1 => nearest::<1>(old, new, size, matrix),
        3 => nearest::<3>(old, new, size, matrix),
        _ => new.copy_from_slice(old),
    });
}

/// Nearest neighbour in Pillow's 16.16 fixed-point arithmetic: positions are rounded once and then added up.
fn nearest<const C: usize>(old: &[u8], new: &mut [u8], (height, width): (usize, usize), m: Matrix) {
    let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
    let (dx, dy) = (fixed(m[0]), fixed(m[3]));
    let (next_x, next_y) = (fixed(m[1]), fixed(m[4]));
    let mut row_x = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5);
    let mut row_y = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
    let old = old.as_chunks::<C>().0;
    for line in new.as_chunks_mut::<C>().0.chunks_exact_mut(width) {
        let (mut x, mut y) = (row_x, row_y);
        for place in line {
            // A negative position is a huge one when taken as unsigned.
            let (column, row) = ((x >> 16) as usize, (y >> 16) as usize);
            if column < width && row < height {
                *place = old[row * width + column];
            }
            x += dx;
            y += dy;
        }
        row_x += next_x;
        row_y += next_y;
    }
}
