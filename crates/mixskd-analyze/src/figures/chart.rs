//! A chart as an SVG picture: two axes, and what stands between them.
//!
//! It is read in light and dark and in print, and the two networks differ by dash and mark as well as by colour.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 528.0;
const TOP: f64 = 62.0;

/// Classes of every chart, alone or in a page.
const STYLE: &str = "<style>.c-back{fill:#fff}.c-text{fill:#1d2126;font:13px system-ui,sans-serif}.c-title{font-weight:600;font-size:14px}.c-grid{stroke:#d9dce1;fill:none}.c-ink{stroke:#1d2126;fill:none}.c-a{stroke:#0b5cad;fill:none;stroke-width:2}.c-b{stroke:#b34700;fill:none;stroke-width:2;stroke-dasharray:7 4}.c-fa{fill:#0b5cad;stroke:#fff}.c-fb{fill:none;stroke:#b34700;stroke-width:2}.c-bar{fill:#8fb8de;stroke:#1d2126}.c-wa{fill:#0b5cad;fill-opacity:.22}.c-wb{fill:#b34700;fill-opacity:.14}@media screen and (prefers-color-scheme:dark){.c-back{fill:#15181c}.c-text{fill:#e6e8eb}.c-grid{stroke:#3b4047}.c-ink{stroke:#e6e8eb}.c-a{stroke:#6cb0ff}.c-b{stroke:#ffa25e}.c-fa{fill:#6cb0ff;stroke:#15181c}.c-fb{stroke:#ffa25e}.c-bar{fill:#33567a;stroke:#e6e8eb}.c-wa{fill:#6cb0ff}.c-wb{fill:#ffa25e}}</style>";

/// Which network a mark is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Series {
    A,
    B,
}

impl Series {
    pub(super) fn of(index: usize) -> Self {
        if index == 0 { Self::A } else { Self::B }
    }

    fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// One axis: its name, and the values at its ends.
pub(super) struct Axis<'a> {
    pub(super) label: &'a str,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whether marks are percentages of a fraction.
    pub(super) percent: bool,
}

/// A chart in the making.
pub(super) struct Chart<'a> {
    svg: String,
    x: Axis<'a>,
    y: Axis<'a>,
    height: f64,
    /// Where the next entry of the legend begins.
    legend: f64,
}

impl<'a> Chart<'a> {
    /// An empty chart with grid and marks.
    pub(super) fn new(title: &str, x: Axis<'a>, y: Axis<'a>) -> Self {
        let mut chart = Self::bare(title, x, y, 360.0);
        for value in marks(chart.y.low, chart.y.high) {
            let at = chart.y_at(value);
            let name = number(value, &chart.y);
            chart.push(format_args!(
                "<path class=\"c-grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text class=\"c-text\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                LEFT - 8.0,
                at + 4.5
            ));
        }
        chart.x_marks();
        chart
    }

    /// A chart whose rows have names in place of numbers, `rows` of them from the top.
    pub(super) fn rows(title: &str, x: Axis<'a>, rows: &'a [String]) -> Self {
        let y = Axis {
            label: "",
            low: rows.len() as f64,
            high: 0.0,
            percent: false,
        };
        let height = TOP + 18.0 * rows.len() as f64 + 50.0;
        let mut chart = Self::bare(title, x, y, height);
        // Names lie inside, above their row's line, so that none of them is cut.
        for (k, name) in rows.iter().enumerate() {
            let at = chart.y_at(k as f64 + 0.5);
            let short = name.chars().take(20).collect::<String>();
            chart.push(format_args!(
                "<path class=\"c-grid\" d=\"M{:.1} {at:.1}H{RIGHT}\"/><text class=\"c-text\" x=\"8\" y=\"{:.1}\">{}</text>",
                chart.left(),
                at + 4.5,
                escape(&short)
            ));
        }
        chart.x_marks();
        chart
    }

    fn bare(title: &str, x: Axis<'a>, y: Axis<'a>, height: f64) -> Self {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\">\n{STYLE}\n<rect class=\"c-back\" width=\"100%\" height=\"100%\"/>\n<text class=\"c-text c-title\" x=\"16\" y=\"24\">{0}</text>\n",
            escape(title)
        );
        let label = y.label.to_string();
        let mut chart = Self {
            svg,
            x,
            y,
            height,
            legend: 16.0,
        };
        let (middle, bottom) = (f64::midpoint(chart.left(), RIGHT), height - 10.0);
        let (name, side) = (escape(chart.x.label), f64::midpoint(TOP, chart.bottom()));
        chart.push(format_args!(
            "<text class=\"c-text\" x=\"{middle:.1}\" y=\"{bottom:.1}\" text-anchor=\"middle\">{name}</text>"
        ));
        if !label.is_empty() {
            chart.push(format_args!(
                "<text class=\"c-text\" transform=\"translate(16 {side:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
                escape(&label)
            ));
        }
        chart
    }

    fn x_marks(&mut self) {
        for value in marks(self.x.low, self.x.high) {
            let (at, bottom) = (self.x_at(value), self.bottom());
            let name = number(value, &self.x);
            self.push(format_args!(
                "<path class=\"c-grid\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/><text class=\"c-text\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                bottom + 18.0
            ));
        }
    }

    /// Where the plot begins; rows with names want more room.
    fn left(&self) -> f64 {
        if self.y.label.is_empty() { 176.0 } else { LEFT }
    }

    fn bottom(&self) -> f64 {
        self.height - 50.0
    }

    pub(super) fn x_at(&self, value: f64) -> f64 {
        let span = self.x.high - self.x.low;
        self.left() + (value - self.x.low) / span * (RIGHT - self.left())
    }

    pub(super) fn y_at(&self, value: f64) -> f64 {
        let bottom = self.bottom();
        bottom + (value - self.y.low) / (self.y.high - self.y.low) * (TOP - bottom)
    }

    /// Adds an element.
    pub(super) fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.svg, "{element}");
    }

    /// Names a series above the plot.
    pub(super) fn name(&mut self, series: Series, text: &str) {
        let (x, letter) = (self.legend, series.letter());
        self.push(format_args!(
            "<path class=\"c-{letter}\" d=\"M{x} 44h30\"/>"
        ));
        self.mark(series, x + 15.0, 44.0);
        self.push(format_args!(
            "<text class=\"c-text\" x=\"{}\" y=\"48.5\">{}</text>",
            x + 37.0,
            escape(text)
        ));
        self.legend += 60.0 + 7.2 * text.chars().count() as f64;
    }

    /// A line in plain words above the plot.
    pub(super) fn note(&mut self, text: &str) {
        let text = escape(text);
        self.push(format_args!(
            "<text class=\"c-text\" x=\"16\" y=\"48.5\">{text}</text>"
        ));
    }

    /// A disc for the first network, a hollow square, which hides no disc, for the second.
    pub(super) fn mark(&mut self, series: Series, x: f64, y: f64) {
        match series {
            Series::A => self.push(format_args!(
                "<circle class=\"c-fa\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"
            )),
            Series::B => self.push(format_args!(
                "<rect class=\"c-fb\" x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>",
                x - 5.0,
                y - 5.0
            )),
        }
    }

    /// A line through points, with their marks.
    pub(super) fn line(&mut self, series: Series, points: &[(f64, f64)]) {
        let places = points
            .iter()
            .map(|&(x, y)| (self.x_at(x), self.y_at(y)))
            .collect::<Vec<_>>();
        let path = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect::<Vec<_>>()
            .join(" ");
        let letter = series.letter();
        self.push(format_args!(
            "<polyline class=\"c-{letter}\" points=\"{path}\"/>"
        ));
        for (x, y) in places {
            self.mark(series, x, y);
        }
    }

    /// The outline of a histogram, lightly filled.
    pub(super) fn steps(&mut self, series: Series, edges: &[f64], heights: &[f64]) {
        let mut path = String::new();
        for (two, &height) in edges.windows(2).zip(heights) {
            let y = self.y_at(height);
            let _ = write!(
                path,
                "{:.1},{y:.1} {:.1},{y:.1} ",
                self.x_at(two[0]),
                self.x_at(two[1])
            );
        }
        let base = self.y_at(0.0);
        let (first, last) = (
            self.x_at(edges.first().copied().unwrap_or(0.0)),
            self.x_at(edges.last().copied().unwrap_or(0.0)),
        );
        let letter = series.letter();
        self.push(format_args!(
            "<polygon class=\"c-w{letter}\" points=\"{first:.1},{base:.1} {path}{last:.1},{base:.1}\"/><polyline class=\"c-{letter}\" points=\"{first:.1},{base:.1} {path}{last:.1},{base:.1}\"/>"
        ));
    }

    pub(super) fn finish(self) -> String {
        self.svg + "</svg>\n"
    }
}

/// Round numbers between two ends, about five of them.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let (low, high) = (low.min(high), low.max(high));
    let rough = ((high - low) / 5.0).max(1e-12);
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * unit)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(unit);
    let (first, last) = (
        (low / step - 1e-9).ceil() as i64,
        (high / step + 1e-9).floor() as i64,
    );
    (first..=last).map(|k| k as f64 * step).collect()
}

fn number(value: f64, axis: &Axis<'_>) -> String {
    if axis.percent {
        let text = format!("{:.1}", 100.0 * value);
        return format!("{} %", text.trim_end_matches(".0"));
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.replace('-', "−")
    }
}

/// Text as XML and HTML want it.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML has no place for the others below a space.
            '\n' | '\t' | ' '.. => safe.push(c),
            _ => safe.push('\u{fffd}'),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(marks(0.0, 1.0).len(), 6);
        assert_eq!(marks(0.0, 8.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        let axis = |percent| Axis {
            label: "x",
            low: 0.0,
            high: 1.0,
            percent,
        };
        assert_eq!(number(0.125, &axis(true)), "12.5 %");
        assert_eq!(number(-1.5, &axis(false)), "−1.5");
        assert_eq!(number(10.0, &axis(false)), "10");
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(
            escape("a<b>\"&'\u{1}"),
            "a&lt;b&gt;&quot;&amp;&#39;\u{fffd}"
        );
    }
}
