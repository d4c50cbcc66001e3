//! An image after normalisation.

/// The numbers that the network will see, for what is done to them last.
///
/// # Shapes
/// `[height, width, channel]`.
#[derive(Debug)]
pub struct Normalised<'a> {
    height: usize,
    width: usize,
    channels: usize,
    values: &'a mut [f32],
}

impl<'a> Normalised<'a> {
    /// Borrows `values` as an image; `None` when their number does not fit.
    pub fn new(
        (height, width): (usize, usize),
        channels: usize,
        values: &'a mut [f32],
    ) -> Option<Self> {
        (values.len() == height * width * channels).then_some(Self {
            height,
            width,
            channels,
            values,
        })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Writes what `value` gives, number by number, into rows `top..bottom` of columns `left..right`. What lies outside of the
    /// image is left out.
    pub fn fill(
        &mut self,
        (top, bottom): (usize, usize),
        (left, right): (usize, usize),
        mut value: impl FnMut() -> f32,
    ) {
        let columns = left.min(self.width) * self.channels..right.min(self.width) * self.channels;
        let rows = self
            .values
            .chunks_exact_mut((self.width * self.channels).max(1));
        for row in rows.take(bottom).skip(top) {
            if let Some(part) = row.get_mut(columns.clone()) {
                part.fill_with(&mut value);
            }
        }
    }
}
