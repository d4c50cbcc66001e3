//! Where labels go, so that they do not lie on each other.

use crate::{Anchor, Svg};

/// Mean width of a letter, and height of a line, at 13 px: labels are kept apart by these.
const LETTER: f64 = 7.2;
const LINE: f64 = 16.0;
/// Points nearer than this to their neighbour, from left to right, are labelled together.
const TOGETHER: f64 = 20.0;
/// How far a column of labels may stand from its points, the nearest first: beyond other points where those are in the way.
const GAPS: [f64; 7] = [22.0, 40.0, 60.0, 85.0, 110.0, 140.0, 170.0];
/// Where a line to a point ends before its middle.
const CLEAR: f64 = 7.0;
/// A line from a label to its point.
const LEADER: &str = "#999";
/// Rings of places around a point; those within `NEAR` want no line.
const RINGS: u8 = 40;
const NEAR: u8 = 3;

/// A rectangle that labels keep clear of: left, top, right, bottom.
type Box = [f64; 4];

/// A name and its point.
type Named<'a> = (&'a str, (f64, f64));

/// Places names beside points so that none covers another or a point.
#[derive(Debug, Clone)]
pub struct Labels {
    within: Box,
    taken: Vec<Box>,
}

/// A name with the place found for it.
struct Placed<'a> {
    name: &'a str,
    /// Left, top, right, bottom.
    place: Box,
    anchor: Anchor,
    /// The point that a line leads to.
    leads_to: Option<(f64, f64)>,
}

/// Which side of its points a label stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
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

    /// Writes each name beside its point. Points that stand too close for that get their names in columns at their sides, from top
    /// to bottom as the points are, with thin lines that do not cross; where there is no room for columns either, each name stands
    /// at the nearest free place, and where nothing is free, it is left out.
    pub fn write(&mut self, svg: &mut Svg, names: &[(&str, (f64, f64))]) {
        let mut names: Vec<Named> = names.to_vec();
        names.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
        for group in names.chunk_by(|a, b| b.1.0 - a.1.0 < TOGETHER) {
            let placed = self
                .beside(group)
                .or_else(|| self.in_columns(group))
                .unwrap_or_else(|| self.around(group));
            for label in placed {
                self.taken.push(label.place);
                draw(svg, &label);
            }
        }
    }

    /// Every name of a group right beside its point, if there is room.
    fn beside<'a>(&self, group: &[Named<'a>]) -> Option<Vec<Placed<'a>>> {
        let mut trial = self.clone();
        let place = |named: &Named<'a>| trial.nearest(*named, NEAR);
        group.iter().map(place).collect()
    }

    /// Every name of a group at the nearest place that is free.
    fn around<'a>(&self, group: &[Named<'a>]) -> Vec<Placed<'a>> {
        let mut trial = self.clone();
        let place = |named: &Named<'a>| trial.nearest(*named, RINGS);
        group.iter().filter_map(place).collect()
    }

    /// The nearest free place on `rings` around a point, which is taken.
    fn nearest<'a>(&mut self, (name, (px, py)): Named<'a>, rings: u8) -> Option<Placed<'a>> {
        let (width, half) = (width(name), LINE / 2.0);
        for ring in 0..rings {
            let away = 11.0 + 9.0 * f64::from(ring);
            for turn in 0..16 {
                let (sine, cosine) = (f64::from(turn) * std::f64::consts::TAU / 16.0).sin_cos();
                // The label's near edge lies on the ring.
                let left = px + away * cosine - width * (0.5 - 0.5 * cosine);
                let middle = py + away * sine;
                let place = [left, middle - half, left + width, middle + half];
                if self.is_free(&place) {
                    self.taken.push(place);
                    return Some(Placed {
                        name,
                        place,
                        anchor: Anchor::Start,
                        leads_to: (ring >= NEAR).then_some((px, py)),
                    });
                }
            }
        }
        None
    }

    /// The names of a group in a column on its right, on its left, or in turn in both.
    fn in_columns<'a>(&self, group: &[Named<'a>]) -> Option<Vec<Placed<'a>>> {
        let mut group = group.to_vec();
        group.sort_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let both = |at: usize| {
            if at.is_multiple_of(2) {
                Side::Left
            } else {
                Side::Right
            }
        };
        let sides: [&dyn Fn(usize) -> Side; 3] = [&both, &|_| Side::Left, &|_| Side::Right];
        GAPS.iter().find_map(|&gap| {
            sides.iter().find_map(|side| {
                let mut placed = Vec::with_capacity(group.len());
                for wanted in [Side::Left, Side::Right] {
                    let column: Vec<Named> = group
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| side(*at) == wanted)
                        .map(|(_, named)| *named)
                        .collect();
                    placed.extend(self.column(&group, &column, wanted, gap));
                }
                let free = placed.iter().all(|label| self.is_free(&label.place));
                free.then_some(placed)
            })
        })
    }

    /// One column, `gap` pixels beside all of the group.
    fn column<'a>(
        &self,
        group: &[Named],
        column: &[Named<'a>],
        side: Side,
        gap: f64,
    ) -> Vec<Placed<'a>> {
        let xs = group.iter().map(|(_, at)| at.0);
        let edge = match side {
            Side::Left => xs.fold(f64::INFINITY, f64::min) - gap,
            Side::Right => xs.fold(f64::NEG_INFINITY, f64::max) + gap,
        };
        let wanted: Vec<f64> = column.iter().map(|(_, at)| at.1).collect();
        // Just inside of the frame.
        let (top, bottom) = (self.within[1] + 1.0, self.within[3] - 1.0);
        let middles = apart(&wanted, top + LINE / 2.0, bottom - LINE / 2.0);
        let label = |((name, at), middle): (&Named<'a>, f64)| {
            let (left, anchor) = match side {
                Side::Left => (edge - width(name), Anchor::End),
                Side::Right => (edge, Anchor::Start),
            };
            Placed {
                name,
                place: [
                    left,
                    middle - LINE / 2.0,
                    left + width(name),
                    middle + LINE / 2.0,
                ],
                anchor,
                leads_to: Some(*at),
            }
        };
        column.iter().zip(middles).map(label).collect()
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

fn width(name: &str) -> f64 {
    LETTER * name.chars().count() as f64
}

fn draw(svg: &mut Svg, label: &Placed) {
    let [left, top, right, bottom] = label.place;
    let middle = f64::midpoint(top, bottom);
    if let Some((x, y)) = label.leads_to {
        let from = (x.clamp(left - 3.0, right + 3.0), middle);
        let length = (from.0 - x).hypot(from.1 - y).max(CLEAR);
        let part = CLEAR / length;
        let end = (x + part * (from.0 - x), y + part * (from.1 - y));
        svg.line(from, end, LEADER);
    }
    let x = if label.anchor == Anchor::End {
        right
    } else {
        left
    };
    svg.text((x, middle + 4.5), label.anchor, label.name);
}

/// The places nearest to `wanted`, which rise, that stand a line apart and lie from `top` to `bottom` where they fit in there.
fn apart(wanted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    // With a line taken off for each before it, they only have to rise: runs that fall take their mean (pool adjacent violators).
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (at, want) in wanted.iter().enumerate() {
        let mut pool = (want - LINE * at as f64, 1);
        while let Some(&(sum, count)) = pools.last()
            && sum / count as f64 > pool.0 / pool.1 as f64
        {
            pools.pop();
            pool = (pool.0 + sum, pool.1 + count);
        }
        pools.push(pool);
    }
    let (first, last) = (top, bottom - LINE * wanted.len().saturating_sub(1) as f64);
    let means = pools
        .iter()
        .flat_map(|&(sum, count)| std::iter::repeat_n(sum / count as f64, count));
    means
        .enumerate()
        .map(|(at, mean)| mean.min(last).max(first) + LINE * at as f64)
        .collect()
}

fn overlap(a: &Box, b: &Box) -> bool {
    a[0] < b[2] && a[2] > b[0] && a[1] < b[3] && a[3] > b[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels of points in a frame of 750 × 430 pixels, each point kept free, and the picture.
    fn labelled(points: &[(&str, (f64, f64))]) -> (Vec<Box>, String) {
        let mut labels = Labels::new((80.0, 60.0), (830.0, 490.0));
        let mut svg = Svg::new(860.0, 560.0);
        for (_, at) in points {
            labels.keep_free(*at, 14.0, 40.0);
        }
        labels.write(&mut svg, points);
        (labels.taken[points.len()..].to_vec(), svg.finish())
    }

    fn check_apart(boxes: &[Box]) {
        for (at, a) in boxes.iter().enumerate() {
            assert!(!boxes[..at].iter().any(|b| overlap(a, b)), "{a:?}");
        }
    }

    #[test]
    fn a_point_alone_has_its_name_on_its_right() {
        let (boxes, svg) = labelled(&[("ce", (200.0, 100.0)), ("mixup", (400.0, 100.0))]);
        assert_eq!(boxes[0][..2], [211.0, 92.0]);
        assert_eq!(boxes[1][..2], [411.0, 92.0]);
        assert!(!svg.contains(LEADER));
    }

    #[test]
    fn names_of_a_crowd_stand_in_columns_in_the_order_of_the_points() {
        let points: Vec<_> = (0..18)
            .map(|k| {
                (
                    "random-erasing",
                    (300.0 + f64::from(k % 5), 250.0 + 4.0 * f64::from(k)),
                )
            })
            .collect();
        let (boxes, svg) = labelled(&points);
        assert_eq!(boxes.len(), points.len());
        check_apart(&boxes);
        assert_eq!(svg.matches(LEADER).count(), points.len());
        for side in [&boxes[..9], &boxes[9..]] {
            assert!(side.windows(2).all(|pair| pair[1][1] >= pair[0][3]));
        }
        assert!(boxes[..9].iter().all(|b| b[2] < 300.0) && boxes[9..].iter().all(|b| b[0] > 304.0));
    }

    #[test]
    fn where_one_side_is_full_or_outside_the_other_takes_all() {
        let points: Vec<_> = (0..10)
            .map(|k| ("label-smoothing", (100.0, 200.0 + 5.0 * f64::from(k))))
            .collect();
        let (boxes, _) = labelled(&points);
        assert_eq!(boxes.len(), points.len());
        check_apart(&boxes);
        assert!(boxes.iter().all(|b| b[0] > 100.0 && b[2] < 830.0));
    }

    #[test]
    fn a_column_stands_beyond_a_point_in_its_way() {
        let mut points: Vec<_> = (0..20)
            .map(|k| ("label-smoothing", (780.0, 150.0 + 5.0 * f64::from(k))))
            .collect();
        points.push(("bake", (690.0, 200.0)));
        let (boxes, _) = labelled(&points);
        assert_eq!(boxes.len(), points.len());
        check_apart(&boxes);
        // Labels are placed from left to right.
        assert!(boxes[1..].iter().all(|b| b[2] < 683.0), "{boxes:?}");
    }

    #[test]
    fn more_names_than_fit_are_placed_as_far_as_there_is_room() {
        let points: Vec<_> = (0..200)
            .map(|k| ("virtual-softmax", (400.0, 100.0 + f64::from(k))))
            .collect();
        let (boxes, _) = labelled(&points);
        assert!((40..200).contains(&boxes.len()), "{}", boxes.len());
        check_apart(&boxes);
    }

    #[test]
    fn places_a_line_apart_stay_as_near_as_can_be() {
        assert_eq!(apart(&[], 0.0, 100.0), []);
        assert_eq!(apart(&[10.0, 60.0], 0.0, 100.0), [10.0, 60.0]);
        assert_eq!(apart(&[50.0, 50.0], 0.0, 100.0), [42.0, 58.0]);
        assert_eq!(apart(&[50.0, 50.0, 90.0], 0.0, 100.0), [42.0, 58.0, 90.0]);
        assert_eq!(apart(&[1.0, 2.0], 0.0, 100.0), [0.0, 16.0]);
        assert_eq!(apart(&[99.0, 99.0], 0.0, 100.0), [84.0, 100.0]);
    }
}
