//! Accuracy against cost as an SVG picture.

use std::fmt::Write as _;

use mixskd_chart::{Anchor, Axis, Labels, Svg};

use super::summary::Table;
use super::{Row, Summary};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 830.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 490.0;
/// Letters of names that find room behind what the marks mean.
const SHORT: usize = 36;
/// Costs within this ratio are about the same: as much is shown on their either side.
const ALIKE: f64 = 1.2;

/// Top-1 (mean ± standard deviation) against seconds a run: the first table as discs, the second as squares.
pub(super) fn svg(summary: &Summary) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    // With the same epochs they are the same runs, and have their disc.
    let again = summary
        .equal_time
        .iter()
        .filter(|row| row.epochs != summary.epochs);
    let points: Vec<(&Row, bool)> = summary
        .equal_epochs
        .iter()
        .map(|row| (row, false))
        .chain(again.map(|row| (row, true)))
        .collect();
    svg.text((LEFT, 24.0), Anchor::Start, &summary.subject());
    let marks = if summary.equal_time.is_empty() {
        "disc: mean over seeds; bar: ± standard deviation"
    } else {
        "disc: equal epochs; square: equal training time; bar: ± standard deviation over seeds"
    };
    let failed = failed(summary);
    svg.text((LEFT, 44.0), Anchor::Start, &format!("{marks}{failed}"));
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
        let middle = (WIDTH / 2.0, HEIGHT / 2.0);
        svg.text(middle, Anchor::Middle, "no run is done yet");
        return svg.finish();
    }
    // Costs that are about the same are to look so.
    let x = if slow < ALIKE * fast {
        Axis::of_ratios(fast / ALIKE, slow * ALIKE, LEFT, RIGHT)
    } else {
        Axis::of_ratios(fast, slow, LEFT, RIGHT)
    };
    let y = Axis::new(low, high, BOTTOM, TOP);
    axes(&mut svg, &x, &y);

    let places: Vec<(f64, f64)> = points
        .iter()
        .map(|(row, _)| (x.at(row.seconds), y.at(100.0 * row.top1.mean)))
        .collect();
    let mut labels = Labels::new((LEFT, TOP), (RIGHT, BOTTOM));
    for ((row, square), &place) in points.iter().zip(&places) {
        let reach = (y.at(0.0) - y.at(sd(row))).abs();
        labels.keep_free(place, 14.0, 2.0 * reach.max(7.0));
        svg.error_bar(place, reach);
        if *square {
            svg.square(place);
        } else {
            svg.disc(place);
        }
    }
    let names = points.iter().map(|(row, _)| row.entry.as_str());
    let names: Vec<_> = names.zip(places).collect();
    labels.write(&mut svg, &names);
    svg.finish()
}

/// What to say of entries that have no mark, as runs of them failed.
fn failed(summary: &Summary) -> String {
    let none: Vec<&str> = (summary.failed_entries(Table::EqualEpochs).into_iter())
        .map(|(entry, _)| entry)
        .collect();
    let at_equal_time = (summary.failed_entries(Table::EqualTime).into_iter())
        .filter(|(entry, _)| !none.contains(entry))
        .count();
    let names = none.join(", ");
    let mut text = match none.len() {
        0 => String::new(),
        _ if names.len() <= SHORT => format!("; failed: {names}"),
        1 => "; one entry failed".into(),
        more => format!("; {more} entries failed"),
    };
    if at_equal_time > 0 {
        let _ = write!(text, "; {at_equal_time} failed at equal time");
    }
    text
}

/// Frame, grid, numbers and names of both axes.
fn axes(svg: &mut Svg, x: &Axis, y: &Axis) {
    for &mark in x.marks() {
        let at = x.at(mark);
        svg.line((at, TOP), (at, BOTTOM), "#ddd");
        svg.text((at, BOTTOM + 20.0), Anchor::Middle, &x.name(mark));
    }
    for &mark in y.marks() {
        let at = y.at(mark);
        svg.line((LEFT, at), (RIGHT, at), "#ddd");
        svg.text((LEFT - 8.0, at + 4.5), Anchor::End, &y.name(mark));
    }
    svg.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "black");
    svg.line((LEFT, TOP), (LEFT, BOTTOM), "black");
    let middle = f64::midpoint(LEFT, RIGHT);
    let name = if x.is_logarithmic() {
        "seconds a run, training and evaluation (logarithmic)"
    } else {
        "seconds a run, training and evaluation"
    };
    svg.text((middle, BOTTOM + 48.0), Anchor::Middle, name);
    let at = f64::midpoint(TOP, BOTTOM);
    svg.text_upwards((24.0, at), "top-1 on test images, %");
}
