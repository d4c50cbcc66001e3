//! Where a network looks: Selvaraju et al., Grad-CAM, ICCV 2017, section 3.
//!
//! With A the feature map of a stage and z_c the logit of class c, each channel's weight is the mean over the map of its gradient
//! (equation 1), and the picture is the positive part of the weighted sum of channels (equation 2).

use candle_core::Tensor;

use crate::{Classifier, Result};

/// One number for each place of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassActivationMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[height, width]`, row by row, none below 0.
    pub values: Vec<f32>,
}

impl ClassActivationMap {
    /// The Grad-CAM of `class` after stage `stage` (0-based), as large as that stage's map, in the logit's units.
    ///
    /// # Shapes
    /// `image`: normalised, `[1, height, width, channel]`
    ///
    /// # Errors
    /// When the image does not fit or there is no such stage or class.
    pub fn grad_cam(
        network: &Classifier,
        image: &Tensor,
        stage: usize,
        class: usize,
    ) -> Result<Self> {
        let (map, gradient) = network.stage_gradient(image, stage, class)?;
        let (_, height, width, channels) = map.dims4()?;
        let map = map.flatten_all()?.to_vec1::<f32>()?;
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        let places = (height * width) as f64;
        let mut weights = vec![0.0f64; channels];
        for row in gradient.chunks_exact(channels) {
            for (weight, &g) in weights.iter_mut().zip(row) {
                *weight += f64::from(g) / places;
            }
        }
        let heat = |row: &[f32]| {
            let sum = row.iter().zip(&weights).map(|(&a, w)| f64::from(a) * w);
            sum.sum::<f64>().max(0.0) as f32
        };
        Ok(Self {
            height,
            width,
            values: map.chunks_exact(channels).map(heat).collect(),
        })
    }

    /// Bilinear interpolation to `height × width`, pixel centres aligned as in PyTorch's `interpolate(…, align_corners=False)`.
    #[must_use]
    pub fn resized(&self, height: usize, width: usize) -> Self {
        let rows = taps(self.height, height);
        let columns = taps(self.width, width);
        let at = |y: usize, x: usize| self.values[y * self.width + x];
        let mut values = Vec::with_capacity(height * width);
        for &(y0, y1, fy) in &rows {
            for &(x0, x1, fx) in &columns {
                let top = at(y0, x0) + fx * (at(y0, x1) - at(y0, x0));
                let bottom = at(y1, x0) + fx * (at(y1, x1) - at(y1, x0));
                values.push(top + fy * (bottom - top));
            }
        }
        Self {
            height,
            width,
            values,
        }
    }

    /// Divided by its largest value, so that it runs from 0 to 1; zeros stay zeros.
    #[must_use]
    pub fn scaled(mut self) -> Self {
        let largest = self.values.iter().copied().fold(0.0, f32::max);
        if largest > 0.0 {
            self.values.iter_mut().for_each(|value| *value /= largest);
        }
        self
    }
}

/// For each place of the result the two places it lies between, and how far it is from the first.
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|k| {
            let place = ((k as f64 + 0.5) * scale - 0.5).max(0.0);
            let low = (place.floor() as usize).min(from - 1);
            (low, (low + 1).min(from - 1), (place - low as f64) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_wide_by_hand() {
        let heat = ClassActivationMap {
            height: 1,
            width: 2,
            values: vec![0.0, 4.0],
        };
        assert_eq!(heat.resized(1, 4).values, [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(heat.resized(2, 2).values, [0.0, 4.0, 0.0, 4.0]);
        assert_eq!(heat.scaled().values, [0.0, 1.0]);
    }
}
