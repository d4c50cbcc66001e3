//! Boxes that CutMix cuts from one image and puts into another.

use rand::Rng;

use crate::rng::{Purpose, stream};
use crate::{Error, LambdaPer, PairSampler, Pairs, Result};

/// A rectangle of an image, in pixels; it may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelBox {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl PixelBox {
    /// For every row and every column of an image of size `image` = (height, width): 1 where the box has it, else 0. A pixel lies in the box where its row
    /// and its column do.
    pub fn lines(&self, image: (usize, usize)) -> (Vec<u8>, Vec<u8>) {
        let within = |first, size, length| {
            let inside = first..first + size;
            (0..length).map(move |at| u8::from(inside.contains(&at)))
        };
        (
            within(self.top, self.height, image.0).collect(),
            within(self.left, self.width, image.1).collect(),
        )
    }

    /// For every position of a map of `map` = (height, width) over an image of size `image`, row by row: the share of its area
    /// that lies outside the box. On the image itself it is 0 or 1.
    pub fn kept(&self, image: (usize, usize), map: (usize, usize)) -> Vec<f32> {
        let rows = covered(self.top, self.height, image.0, map.0);
        let columns = covered(self.left, self.width, image.1, map.1);
        rows.iter()
            .flat_map(|row| {
                columns
                    .iter()
                    .map(move |column| (1.0 - row * column) as f32)
            })
            .collect()
    }
}

/// The share of each of `cells` equal parts of `length` pixels that `size` pixels from `first` cover.
fn covered(first: usize, size: usize, length: usize, cells: usize) -> Vec<f64> {
    let cell = length as f64 / cells as f64;
    let (first, end) = (first as f64, (first + size) as f64);
    (0..cells)
        .map(|at| {
            let (low, high) = (at as f64 * cell, (at + 1) as f64 * cell);
            ((high.min(end) - low.max(first)) / cell).clamp(0.0, 1.0)
        })
        .collect()
}

impl PairSampler {
    /// The pairs of batch `step` of `epoch` with a box for each image of `size` = (height, width) (CutMix, Yun et al., 2019,
    /// equation 2): λ is drawn, a box of `√(1 − λ)` times height and width is centred on a pixel drawn uniformly and cut to the
    /// image, and λ becomes the area outside it. One box per batch, or per sample.
    ///
    /// # Errors
    /// When α is not above 0 and at most a million, or an image has no pixel.
    pub fn draw_boxes(
        &self,
        epoch: u64,
        step: u64,
        batch: usize,
        size: (usize, usize),
    ) -> Result<(Pairs, Vec<PixelBox>)> {
        if size.0 == 0 || size.1 == 0 {
            let message = format!("must be above 0, got {} × {}", size.0, size.1);
            return Err(Error::config("size", message, "images have pixels"));
        }
        let mut pairs = self.draw(epoch, step, batch)?;
        let mut rng = stream(self.seed, epoch, step, Purpose::Box);
        let mut next = |lambda: f32| {
            let side = (1.0 - f64::from(lambda)).max(0.0).sqrt();
            let mut span = |length: usize| {
                let half = (length as f64 * side) as usize / 2;
                let centre = rng.random_range(0..length);
                let first = centre.saturating_sub(half);
                (first, (centre + half).min(length) - first)
            };
            let ((top, height), (left, width)) = (span(size.0), span(size.1));
            PixelBox {
                top,
                left,
                height,
                width,
            }
        };
        let boxes: Vec<PixelBox> = match (self.per, pairs.lambda.first()) {
            (LambdaPer::Batch, Some(&lambda)) => vec![next(lambda); batch],
            _ => pairs.lambda.iter().map(|&lambda| next(lambda)).collect(),
        };
        let area = (size.0 * size.1) as f64;
        for (lambda, cut) in pairs.lambda.iter_mut().zip(&boxes) {
            *lambda = (1.0 - (cut.height * cut.width) as f64 / area) as f32;
        }
        Ok((pairs, boxes))
    }

    /// Whether batch `step` of `epoch` is mixed, where `probability` of all are (CutMix's code).
    pub fn is_mixed(&self, epoch: u64, step: u64, probability: f64) -> bool {
        // At 1 always: what is drawn is below it.
        stream(self.seed, epoch, step, Purpose::Whether).random::<f64>() < probability
    }

    /// How deep batch `step` of `epoch` is mixed: uniform from 0 to `deepest`, both included (Manifold Mixup, Verma et al., 2019).
    pub fn draw_depth(&self, epoch: u64, step: u64, deepest: usize) -> usize {
        stream(self.seed, epoch, step, Purpose::Depth).random_range(0..=deepest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(per: LambdaPer) -> PairSampler {
        PairSampler {
            alpha: 1.0,
            per,
            seed: 9,
        }
    }

    proptest! {
        #[test]
        fn lambda_is_the_area_outside_the_box_at_every_resolution(step in 0u64..500, height in 1usize..40, width in 1usize..40, scale in 1usize..5) {
            let (pairs, boxes) = sampler(LambdaPer::Sample).draw_boxes(0, step, 5, (height, width)).unwrap();
            for (lambda, cut) in pairs.lambda.iter().zip(&boxes) {
                prop_assert!(cut.top + cut.height <= height && cut.left + cut.width <= width);
                for map in [(height, width), (height.div_ceil(scale), width.div_ceil(scale))] {
                    let kept = cut.kept((height, width), map);
                    let mean = kept.iter().map(|&k| f64::from(k)).sum::<f64>() / kept.len() as f64;
                    prop_assert!((mean - f64::from(*lambda)).abs() < 1e-5);
                    prop_assert!(kept.iter().all(|k| (0.0..=1.0).contains(k)));
                }
                let kept = cut.kept((height, width), (height, width));
                let (rows, columns) = cut.lines((height, width));
                prop_assert_eq!((rows.len(), columns.len()), (height, width));
                for (at, &kept) in kept.iter().enumerate() {
                    let inside = rows[at / width] * columns[at % width];
                    prop_assert_eq!(kept, f32::from(1 - inside));
                }
            }
        }
    }

    #[test]
    fn a_map_cell_keeps_what_the_box_leaves_of_it() {
        let cut = PixelBox {
            top: 0,
            left: 1,
            height: 2,
            width: 3,
        };
        // Cells of 2×2 pixels: the left one loses its right half, the right one everything.
        assert_eq!(cut.kept((4, 4), (2, 2)), [0.5, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn one_box_for_a_batch_or_one_for_each() {
        let draw = |per, step| sampler(per).draw_boxes(1, step, 16, (32, 32)).unwrap();
        let (pairs, boxes) = draw(LambdaPer::Batch, 3);
        assert!(boxes.iter().all(|b| *b == boxes[0]));
        assert_eq!(
            (&pairs, &boxes),
            (&draw(LambdaPer::Batch, 3).0, &draw(LambdaPer::Batch, 3).1)
        );
        assert_ne!(boxes, draw(LambdaPer::Batch, 4).1);
        let (_, boxes) = draw(LambdaPer::Sample, 3);
        assert!(boxes.iter().any(|b| *b != boxes[0]));
    }

    #[test]
    fn as_many_batches_are_mixed_as_asked_for() {
        let mixed = |probability: f64| {
            let is_mixed = |step: &u64| sampler(LambdaPer::Batch).is_mixed(2, *step, probability);
            (0..4000).filter(is_mixed).count()
        };
        assert_eq!((mixed(0.0), mixed(1.0)), (0, 4000));
        assert!((1800..2200).contains(&mixed(0.5)), "{}", mixed(0.5));
    }

    #[test]
    fn every_depth_is_drawn_about_as_often() {
        let mut seen = [0; 3];
        for step in 0..3000 {
            seen[sampler(LambdaPer::Batch).draw_depth(0, step, 2)] += 1;
        }
        assert!(
            seen.iter().all(|count| (900..1100).contains(count)),
            "{seen:?}"
        );
    }
}
