//! Accuracy against cost as an SVG picture, black on white.

use std::fmt::Write as _;

use super::{Row, Summary};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 830.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 490.0;
/// Mean width of a letter, and height of a line, at 13 px: labels are kept apart by these.
const LETTER: f64 = 7.6;
const LINE: f64 = 16.0;

/// A rectangle that labels keep clear of: left, top, right, bottom.
type Box = [f64; 4];

/// One axis: values to pixels, with round marks.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    /// Covers `low..=high` with some air, from pixel `from` to pixel `to`.
    fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let span = (high - low).max(0.02 * high.abs()).max(1e-9);
        let rough: f64 = span / 5.0;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * unit)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(unit);
        Self {
            low: ((low - 0.05 * span) / step).floor() * step,
            high: ((high + 0.05 * span) / step).ceil() * step,
            from,
            to,
            step,
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count)
            .map(|k| self.low + k as f64 * self.step)
            .collect()
    }

    /// A mark's number with as many decimals as its step needs.
    fn name(&self, mark: f64) -> String {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{mark:.decimals$}")
    }
}

/// Top-1 (mean ± standard deviation) against seconds a run: the first table as discs, the second as squares.
pub(super) fn svg(summary: &Summary) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let points: Vec<(&Row, bool)> = summary
        .equal_epochs
        .iter()
        .map(|row| (row, false))
        .chain(summary.equal_time.iter().map(|row| (row, true)))
        .collect();
    text(&mut svg, LEFT, 24.0, "start", &summary.subject());
    let marks = if summary.equal_time.is_empty() {
        "disc: mean over seeds; bar: ± standard deviation"
    } else {
        "disc: equal epochs; square: equal training time; bar: ± standard deviation over seeds"
    };
    text(&mut svg, LEFT, 44.0, "start", marks);
    let sd = |row: &Row| 100.0 * row.top1.sd.unwrap_or(0.0);
    let range = |values: &mut dyn Iterator<Item = (f64, f64)>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (low, high)| {
            (a.min(low), b.max(high))
        })
    };
    let (low, high) = range(&mut points.iter().map(|(row, _)| {
        let mean = 100.0 * row.top1.mean;
        (mean - sd(row), mean + sd(row))
    }));
    let (fast, slow) = range(&mut points.iter().map(|(row, _)| (row.seconds, row.seconds)));
    if points.is_empty() || !(low + high + fast + slow).is_finite() {
        text(
            &mut svg,
            WIDTH / 2.0,
            HEIGHT / 2.0,
            "middle",
            "no run is done yet",
        );
        return svg + "</svg>\n";
    }
    let x = Axis::new(fast, slow, LEFT, RIGHT);
    let y = Axis::new(low, high, BOTTOM, TOP);
    axes(&mut svg, &x, &y);

    let places: Vec<(f64, f64)> = points
        .iter()
        .map(|(row, _)| (x.at(row.seconds), y.at(100.0 * row.top1.mean)))
        .collect();
    let mut taken: Vec<Box> = Vec::new();
    for ((row, square), &(px, py)) in points.iter().zip(&places) {
        let reach = (y.at(0.0) - y.at(sd(row))).abs();
        taken.push([px - 7.0, py - reach.max(7.0), px + 7.0, py + reach.max(7.0)]);
        let _ = writeln!(
            svg,
            "<path d=\"M{px:.1} {:.1}V{:.1}M{:.1} {:.1}h10M{:.1} {:.1}h10\" stroke=\"black\" fill=\"none\"/>",
            py - reach,
            py + reach,
            px - 5.0,
            py - reach,
            px - 5.0,
            py + reach
        );
        let _ = if *square {
            writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"white\" stroke=\"black\" stroke-width=\"1.5\"/>",
                px - 5.0,
                py - 5.0
            )
        } else {
            writeln!(
                svg,
                "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"5\" fill=\"black\"/>"
            )
        };
    }
    for ((row, _), &place) in points.iter().zip(&places) {
        label(&mut svg, &row.entry, place, &mut taken);
    }
    svg + "</svg>\n"
}

/// Frame, grid, numbers and names of both axes.
fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    for mark in x.marks() {
        let at = x.at(mark);
        line(svg, (at, TOP), (at, BOTTOM), "#ddd");
        text(svg, at, BOTTOM + 20.0, "middle", &x.name(mark));
    }
    for mark in y.marks() {
        let at = y.at(mark);
        line(svg, (LEFT, at), (RIGHT, at), "#ddd");
        text(svg, LEFT - 8.0, at + 4.5, "end", &y.name(mark));
    }
    line(svg, (LEFT, BOTTOM), (RIGHT, BOTTOM), "black");
    line(svg, (LEFT, TOP), (LEFT, BOTTOM), "black");
    let middle = f64::midpoint(LEFT, RIGHT);
    let name = "seconds a run, training and evaluation";
    text(svg, middle, BOTTOM + 48.0, "middle", name);
    let at = f64::midpoint(TOP, BOTTOM);
    let _ = writeln!(
        svg,
        "<text transform=\"translate(24 {at:.1}) rotate(-90)\" text-anchor=\"middle\">top-1 on test images, %</text>"
    );
}

/// Writes `name` at the nearest place beside `(px, py)` that is free, with a thin line to it where that is far.
fn label(svg: &mut String, name: &str, (px, py): (f64, f64), taken: &mut Vec<Box>) {
    let (width, half) = (LETTER * name.chars().count() as f64, LINE / 2.0);
    for ring in 0..40 {
        let away = 11.0 + 9.0 * f64::from(ring);
        for turn in 0..16 {
            let (sine, cosine) = (f64::from(turn) * std::f64::consts::TAU / 16.0).sin_cos();
            // The label's near edge lies on the ring.
            let left = px + away * cosine - width * (0.5 - 0.5 * cosine);
            let middle = py + away * sine;
            let place = [left, middle - half, left + width, middle + half];
            let inside = place[0] > LEFT && place[2] < RIGHT && place[1] > TOP && place[3] < BOTTOM;
            let free = |other: &Box| {
                place[0] > other[2]
                    || place[2] < other[0]
                    || place[1] > other[3]
                    || place[3] < other[1]
            };
            if inside && taken.iter().all(free) {
                if ring > 1 {
                    let end = (px.clamp(place[0], place[2]), py.clamp(place[1], place[3]));
                    line(svg, (px, py), end, "#666");
                }
                text(svg, left, middle + 4.5, "start", name);
                taken.push(place);
                return;
            }
        }
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{colour}\" fill=\"none\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_crowded_points_do_not_overlap() {
        let mut taken = Vec::new();
        let mut svg = String::new();
        for k in 0..12 {
            label(
                &mut svg,
                "random-erasing",
                (400.0 + f64::from(k), 250.0),
                &mut taken,
            );
        }
        assert_eq!(taken.len(), 12);
        for (at, a) in taken.iter().enumerate() {
            for b in &taken[..at] {
                let apart = a[0] > b[2] || a[2] < b[0] || a[1] > b[3] || a[3] < b[1];
                assert!(apart, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn axes_have_round_marks_that_cover_the_values() {
        for (low, high) in [(57.3, 62.1), (0.0, 0.0), (3.0, 3.0), (12.0, 1900.0)] {
            let axis = Axis::new(low, high, 0.0, 100.0);
            assert!(axis.low <= low && axis.high >= high && axis.high > axis.low);
            assert!(
                (2..=14).contains(&axis.marks().len()),
                "{low} {high}: {:?}",
                axis.marks()
            );
        }
    }
}
