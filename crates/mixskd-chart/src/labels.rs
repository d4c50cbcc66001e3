//! Where labels go, so that they do not lie on each other.

use crate::{Anchor, Svg};

/// Mean width of a letter, and height of a line, at 13 px: labels are kept apart by these.
const LETTER: f64 = 8.0;
const LINE: f64 = 16.0;

/// A rectangle that labels keep clear of: left, top, right, bottom.
type Box = [f64; 4];

/// Places names beside points so that none covers another or a point.
#[derive(Debug, Clone)]
pub struct Labels {
    within: Box,
    taken: Vec<Box>,
}

impl Labels {
    /// Labels between `left_top` and `right_bottom`.
    pub fn new(left_top: (f64, f64), right_bottom: (f64, f64)) -> Self {
        Self {
            within: [left_top.0, left_top.1, right_bottom.0, right_bottom.1],
            taken: Vec::new(),
        }
    }

    /// Keeps the rectangle of `width` × `height` pixels around `at` free.
    pub fn keep_free(&mut self, at: (f64, f64), width: f64, height: f64) {
        let (x, y) = (width / 2.0, height / 2.0);
        self.taken.push([at.0 - x, at.1 - y, at.0 + x, at.1 + y]);
    }

    /// Writes `name` at the nearest free place beside `(px, py)`, with a thin line to it where that is far. Where nothing is free,
    /// it is left out.
    pub fn write(&mut self, svg: &mut Svg, name: &str, (px, py): (f64, f64)) {
        let (width, half) = (LETTER * name.chars().count() as f64, LINE / 2.0);
        for ring in 0..40 {
            let away = 11.0 + 9.0 * f64::from(ring);
            for turn in 0..16 {
                let (sine, cosine) = (f64::from(turn) * std::f64::consts::TAU / 16.0).sin_cos();
                // The label's near edge lies on the ring.
                let left = px + away * cosine - width * (0.5 - 0.5 * cosine);
                let middle = py + away * sine;
                let place = [left, middle - half, left + width, middle + half];
                if !self.is_free(&place) {
                    continue;
                }
                if ring > 1 {
                    let end = (px.clamp(place[0], place[2]), py.clamp(place[1], place[3]));
                    svg.line((px, py), end, "#666");
                }
                svg.text((left, middle + 4.5), Anchor::Start, name);
                self.taken.push(place);
                return;
            }
        }
    }

    fn is_free(&self, place: &Box) -> bool {
        let within = &self.within;
        place[0] > within[0]
            && place[2] < within[2]
            && place[1] > within[1]
            && place[3] < within[3]
            && !self.taken.iter().any(|other| overlap(place, other))
    }
}

fn overlap(a: &Box, b: &Box) -> bool {
    a[0] <= b[2] && a[2] >= b[0] && a[1] <= b[3] && a[3] >= b[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_crowded_points_do_not_overlap() {
        let mut labels = Labels::new((80.0, 60.0), (830.0, 490.0));
        let mut svg = Svg::new(860.0, 560.0);
        for k in 0..12 {
            labels.write(&mut svg, "random-erasing", (400.0 + f64::from(k), 250.0));
        }
        assert_eq!(labels.taken.len(), 12);
        for (at, a) in labels.taken.iter().enumerate() {
            assert!(!labels.taken[..at].iter().any(|b| overlap(a, b)), "{a:?}");
        }
        assert_eq!(svg.finish().matches("random-erasing").count(), 12);
    }
}
