//! Curves over one axis, for pages: light, dark and print, told apart by dash and mark as well as by colour.

use std::fmt::Write as _;

use crate::escape;

const WIDTH: f64 = 460.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 446.0;
const PLOT: f64 = 190.0;
/// Mean width of a letter of a legend, and height of its lines.
const LETTER: f64 = 7.6;
const LINE: f64 = 20.0;
/// Letters of a title's line.
const TITLE: usize = 50;

/// Colours of the series in light and dark, each with its dash; marks differ besides.
const STYLE: &str = "<style>.l-back{fill:#fff}.l-text{fill:#1d2126;font:13px system-ui,sans-serif}.l-title{font-weight:600;font-size:15px}.l-grid{stroke:#d9dce1;fill:none}.l-line{fill:none;stroke-width:2;stroke-linejoin:round}.l-mark{stroke-width:1.5}.l-0{stroke:#0b5cad}.l-1{stroke:#b34700;stroke-dasharray:7 4}.l-2{stroke:#1f7a3d;stroke-dasharray:2 3}.l-3{stroke:#7b3fa0;stroke-dasharray:10 3 2 3}.l-4{stroke:#a3123f;stroke-dasharray:4 2}.l-5{stroke:#4d5661;stroke-dasharray:12 5}.l-m0{fill:#0b5cad;stroke:#0b5cad}.l-m1{fill:#fff;stroke:#b34700}.l-m2{fill:#1f7a3d;stroke:#1f7a3d}.l-m3{fill:#fff;stroke:#7b3fa0}.l-m4{fill:#a3123f;stroke:#a3123f}.l-m5{fill:#fff;stroke:#4d5661}@media screen and (prefers-color-scheme:dark){.l-back{fill:#15181c}.l-text{fill:#e6e8eb}.l-grid{stroke:#3b4047}.l-0{stroke:#6cb0ff}.l-1{stroke:#ffa25e}.l-2{stroke:#6fd38f}.l-3{stroke:#cf9bf0}.l-4{stroke:#ff8aa8}.l-5{stroke:#a3abb5}.l-m0{fill:#6cb0ff;stroke:#6cb0ff}.l-m1{fill:#15181c;stroke:#ffa25e}.l-m2{fill:#6fd38f;stroke:#6fd38f}.l-m3{fill:#15181c;stroke:#cf9bf0}.l-m4{fill:#ff8aa8;stroke:#ff8aa8}.l-m5{fill:#15181c;stroke:#a3abb5}}</style>";
const STYLES: usize = 6;

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// (x, y), in the order of x. Values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one axis of whole numbers, such as epochs.
///
/// ```
/// use mixskd_chart::{LineChart, Series};
///
/// let loss = Series { name: "loss".into(), points: vec![(1.0, 2.3), (2.0, 1.9)] };
/// let chart = LineChart { title: "Loss".into(), x: "epoch".into(), percent: false, series: vec![loss] };
/// assert!(chart.svg().starts_with("<svg"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// Above the plot.
    pub title: String,
    /// Name of the horizontal axis.
    pub x: String,
    /// Whether values are fractions, to be shown as percentages.
    pub percent: bool,
    /// The curves; a legend names them where there are several.
    pub series: Vec<Series>,
}

impl LineChart {
    /// The chart as an SVG element that stands in an HTML page or in a file of its own.
    pub fn svg(&self) -> String {
        let legend = self.legend();
        let rows = legend.last().map_or(0.0, |place| place.1 + 1.0);
        let title = wrapped(&self.title);
        let first = 24.0 + LINE * title.len().max(1) as f64;
        let top = first + LINE * rows;
        let (bottom, height) = (top + PLOT, top + PLOT + 48.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\">\n{STYLE}\n<rect class=\"l-back\" width=\"100%\" height=\"100%\"/>\n",
            escape(&self.title)
        );
        for (k, line) in title.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<text class=\"l-text l-title\" x=\"12\" y=\"{}\">{}</text>",
                24.0 + LINE * k as f64,
                escape(line)
            );
        }
        for (k, (series, place)) in self.series.iter().zip(&legend).enumerate() {
            let y = first + LINE * place.1;
            let _ = writeln!(
                svg,
                "<path class=\"l-line l-{}\" d=\"M{} {y}h32\"/>{}<text class=\"l-text\" x=\"{}\" y=\"{}\">{}</text>",
                k % STYLES,
                place.0,
                mark(k, place.0 + 16.0, y),
                place.0 + 38.0,
                y + 4.5,
                escape(&shortened(&series.name))
            );
        }
        let points = || self.finite().map(|(_, point)| point);
        if points().next().is_none() {
            let _ = writeln!(
                svg,
                "<text class=\"l-text\" x=\"12\" y=\"{}\">nothing was measured</text>",
                top + 24.0
            );
            return svg + "</svg>\n";
        }
        let x = Scale::whole(points().map(|p| p.0), LEFT, RIGHT);
        let y = Scale::round(points().map(|p| p.1), bottom, top);
        for &value in &y.marks {
            let at = y.at(value);
            let _ = writeln!(
                svg,
                "<path class=\"l-grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text class=\"l-text\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.5,
                y.name(value, self.percent)
            );
        }
        for &value in &x.marks {
            let at = x.at(value);
            let _ = writeln!(
                svg,
                "<path class=\"l-grid\" d=\"M{at:.1} {bottom}v5\"/><text class=\"l-text\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
                bottom + 19.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"l-text\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, RIGHT),
            bottom + 38.0,
            escape(&self.x)
        );
        for k in 0..self.series.len() {
            let places: Vec<_> = self
                .finite()
                .filter(|(series, _)| *series == k)
                .map(|(_, (a, b))| (x.at(a), y.at(b)))
                .collect();
            let path: Vec<_> = places
                .iter()
                .map(|(a, b)| format!("{a:.1},{b:.1}"))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline class=\"l-line l-{}\" points=\"{}\"/>",
                k % STYLES,
                path.join(" ")
            );
            // Some dozen marks tell a curve from its neighbours; more would hide it. Each series has its own places.
            let every = places.len().div_ceil(12).max(1);
            for (at, place) in places.iter().enumerate() {
                if at % every == (k * every / self.series.len().max(1)) % every
                    || at + 1 == places.len()
                {
                    svg.push_str(&mark(k, place.0, place.1));
                    svg.push('\n');
                }
            }
        }
        svg + "</svg>\n"
    }

    fn finite(&self) -> impl Iterator<Item = (usize, (f64, f64))> {
        let all = self.series.iter().enumerate();
        all.flat_map(|(k, series)| series.points.iter().map(move |&point| (k, point)))
            .filter(|(_, (x, y))| x.is_finite() && y.is_finite())
    }

    /// Left end and row of each series' name, none for a single one.
    fn legend(&self) -> Vec<(f64, f64)> {
        let (mut x, mut row) = (12.0, 0.0);
        if self.series.len() < 2 {
            return Vec::new();
        }
        let place = |series: &Series| {
            let width = 56.0 + LETTER * shortened(&series.name).chars().count() as f64;
            if x > 12.0 && x + width > WIDTH {
                (x, row) = (12.0, row + 1.0);
            }
            let place = (x, row);
            x += width;
            place
        };
        self.series.iter().map(place).collect()
    }
}

/// A title in as many lines as it takes; a word that is longer than a line has one to itself.
fn wrapped(title: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in title.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < TITLE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// A name that fits one line of a legend; the end of a run's name tells more than its beginning.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= 50 {
        return name.into();
    }
    let head = name.chars().take(20);
    let tail = name.chars().skip(count - 28);
    head.chain(['…']).chain(tail).collect()
}

fn mark(series: usize, x: f64, y: f64) -> String {
    let class = series % STYLES;
    // Where colours and dashes begin again, marks go on by one, so that 36 series differ.
    let shape = match (series + series / STYLES) % STYLES {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\""),
        1 => format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"",
            x - 3.5,
            y - 3.5
        ),
        2 => format!("<path d=\"M{x:.1} {:.1}l4.5 8h-9z\"", y - 5.0),
        3 => format!("<path d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\"", y - 5.0),
        4 => format!("<path d=\"M{x:.1} {:.1}l4.5 -8h-9z\"", y + 5.0),
        _ => format!(
            "<path d=\"M{:.1} {y:.1}h9M{x:.1} {:.1}v9\"",
            x - 4.5,
            y - 4.5
        ),
    };
    format!("{shape} class=\"l-mark l-m{class}\"/>")
}

/// Values to pixels, with marks.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    step: f64,
    marks: Vec<f64>,
}

impl Scale {
    /// Round values that enclose all of `values`.
    fn round(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = ends(values);
        let span = (high - low).max(0.02 * high.abs().max(low.abs()));
        // Nothing but zeros, or numbers that are nothing beside rounding.
        let span = if span > 1e-9 { span } else { 1.0 };
        let step = step(span / 4.0);
        let low = (low / step + 1e-9).floor() * step;
        let high = ((high / step - 1e-9).ceil() * step).max(low + step);
        let count = ((high - low) / step).round() as usize;
        let marks = (0..=count).map(|k| low + k as f64 * step).collect();
        Self {
            low,
            high,
            from,
            to,
            step,
            marks,
        }
    }

    /// From the least to the greatest of whole `values`.
    fn whole(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = ends(values);
        let step = step((high - low) / 6.0).max(1.0).ceil();
        let mut marks = vec![low];
        let first = (
            (low / step).floor() as i64 + 1,
            (high / step).floor() as i64,
        );
        marks.extend((first.0..=first.1).map(|k| k as f64 * step));
        // The first mark makes room for a round one beside it.
        if marks.len() > 2 && marks[1] - marks[0] < 0.6 * step {
            marks.remove(1);
        }
        let (low, high) = if high > low {
            (low, high)
        } else {
            (low - 0.5, high + 0.5)
        };
        Self {
            low,
            high,
            from,
            to,
            step,
            marks,
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn name(&self, value: f64, percent: bool) -> String {
        let (value, step, unit) = if percent {
            (100.0 * value, 100.0 * self.step, " %")
        } else {
            (value, self.step, "")
        };
        let decimals = (-(step * 1.000_001).log10().floor()).clamp(0.0, 9.0) as usize;
        if value != 0.0 && (value.abs() < 1e-4 || value.abs() >= 1e6) {
            return format!("{value:.1e}{unit}");
        }
        // No zero with a minus before it.
        let value = if value.abs() < 0.5 * 10f64.powi(-(decimals as i32)) {
            0.0
        } else {
            value
        };
        format!("{value:.decimals$}{unit}").replace('-', "−")
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    })
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
fn step(rough: f64) -> f64 {
    let rough = rough.max(1e-12);
    let unit = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * unit)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> LineChart {
        LineChart {
            title: "<T>".into(),
            x: "epoch".into(),
            percent: false,
            series,
        }
    }

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series {
            name: name.into(),
            points: points.to_vec(),
        }
    }

    #[test]
    fn zeros_alone_have_an_axis_of_short_numbers() {
        let scale = Scale::round([0.0, 0.0].into_iter(), 100.0, 0.0);
        let names = [false, true].map(|percent| [0.0, scale.high].map(|v| scale.name(v, percent)));
        assert_eq!(names, [["0.0", "0.5"], ["0 %", "50 %"]]);
    }

    #[test]
    fn every_series_has_its_curve_its_dash_and_its_name() {
        let names: Vec<_> = (0..7).map(|k| format!("a & {k}")).collect();
        let all = names
            .iter()
            .map(|name| series(name, &[(1.0, 2.0), (2.0, 1.0)]));
        let svg = chart(all.collect()).svg();
        assert_eq!(svg.matches("<polyline").count(), 7);
        let marks: std::collections::BTreeSet<_> = (0..36).map(|k| mark(k, 1.0, 1.0)).collect();
        assert_eq!(marks.len(), 36);
        assert!(svg.contains("a &amp; 6") && svg.contains("&lt;T&gt;") && !svg.contains("<T>"));
    }

    #[test]
    fn a_long_title_takes_two_lines_and_pushes_the_rest_down() {
        let of = |title: &str| LineChart {
            title: title.into(),
            ..chart(vec![series("a", &[(1.0, 2.0), (2.0, 1.0)])])
        };
        let (short, long) = (
            of("Loss"),
            of("Cross-entropy of the self-teacher on the held-out images"),
        );
        let height = |svg: &str| -> f64 {
            let (_, rest) = svg.split_once("viewBox=\"0 0 460 ").unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        assert_eq!(height(&long.svg()), height(&short.svg()) + LINE);
        assert!(
            long.svg()
                .contains(">Cross-entropy of the self-teacher on the held-out</text>")
        );
        assert!(long.svg().contains("y=\"44\">images</text>"));
    }

    #[test]
    fn what_is_missing_or_not_finite_breaks_nothing() {
        assert!(chart(vec![]).svg().contains("nothing was measured"));
        let holes = series("a", &[(1.0, f64::NAN), (2.0, 3.0), (3.0, f64::INFINITY)]);
        let svg = chart(vec![holes]).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let same = chart(vec![series("a", &[(1.0, 0.0)])]).svg();
        assert!(!same.contains("NaN"), "{same}");
    }

    #[test]
    fn marks_are_round_and_enclose_the_values() {
        let y = Scale::round([0.013, 0.94].into_iter(), 100.0, 0.0);
        assert_eq!((y.low, y.high), (0.0, 1.0));
        assert_eq!((y.at(0.0), y.at(1.0)), (100.0, 0.0));
        assert_eq!(y.name(0.5, true), "50 %");
        let x = Scale::whole([1.0, 205.0].into_iter(), 0.0, 100.0);
        assert_eq!(x.marks, [1.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(
            Scale::whole([1.0, 3.0].into_iter(), 0.0, 1.0).marks,
            [1.0, 2.0, 3.0]
        );
    }
}
