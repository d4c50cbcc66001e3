//! Counts of rows by columns, for pages: light, dark and print, with numbers where there is room for them.

use std::fmt::Write as _;

use crate::escape;

/// Up to so many names, every cell holds its number, and rows and columns their names.
const NUMBERED: usize = 25;
/// Up to so many, rows hold their names.
const NAMED: usize = 60;
/// Side of the picture of more, in its own pixels.
const SIDE: f64 = 600.0;
/// Least side of the cells together: what stands above them is as wide.
const LEAST_SIDE: f64 = 72.0;
/// Letters of a name.
const LETTERS: usize = 16;
/// Steps of darkness of cells without a number.
const STEPS: usize = 8;

const STYLE: &str = "<style>.h-back{fill:#fff}.h-text{fill:#1d2126;font:13px system-ui,sans-serif}.h-small{font-size:11px}.h-grid{stroke:#b9bfc7;fill:none;stroke-width:.5}.h-ink{fill:#0b5cad}.h-mid{fill:#1d2126}.h-on{fill:#fff}.h-own{fill:none;stroke:#1d2126;stroke-width:1}@media screen and (prefers-color-scheme:dark){.h-back{fill:#15181c}.h-text{fill:#e6e8eb}.h-grid{stroke:#3b4047}.h-ink{fill:#6cb0ff}.h-mid,.h-on{fill:#10141a}.h-own{stroke:#e6e8eb}}</style>";

/// How often what stands in a row was taken for what stands in a column: both have the same names, and the diagonal is outlined.
///
/// A cell is the stronger in colour the larger its share of its row; with more than 25 names, whose cells hold no numbers, by the square root of it,
/// so that a few do not vanish beside many.
///
/// ```
/// use mixskd_chart::HeatMap;
///
/// let map = HeatMap { title: "Confusion".into(), names: vec!["cat".into(), "dog".into()], counts: vec![vec![4, 1], vec![0, 5]] };
/// assert!(map.svg().starts_with("<svg"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeatMap {
    /// What a reader who does not see it is told.
    pub title: String,
    /// Of rows and of columns.
    pub names: Vec<String>,
    /// One row for each name, one count in it for each name.
    pub counts: Vec<Vec<usize>>,
}

impl HeatMap {
    /// The least width in pixels at which its letters can be read.
    pub fn readable_width(&self) -> f64 {
        match self.names.len() {
            0..=NUMBERED => 0.75 * self.size().0,
            // Names of rows alone; what has numbers at its edges only may be as narrow as it must.
            n if n <= NAMED => 440.0,
            _ => 0.0,
        }
    }

    /// The picture as an SVG element.
    pub fn svg(&self) -> String {
        let (width, height) = self.size();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n{STYLE}\n<rect class=\"h-back\" width=\"100%\" height=\"100%\"/>\n",
            escape(&self.title)
        );
        self.names_and_grid(&mut svg);
        if self.names.len() <= NUMBERED {
            self.numbers(&mut svg);
        } else {
            self.shades(&mut svg);
        }
        self.diagonal(&mut svg);
        svg + "</svg>\n"
    }

    fn cell(&self) -> f64 {
        match self.names.len() {
            n @ 0..=12 => (LEAST_SIDE / n.max(1) as f64).max(34.0),
            n if n <= NUMBERED => 30.0,
            n if n <= NAMED => 13.0,
            n => SIDE / n as f64,
        }
    }

    /// Left and upper edge of the cells.
    fn origin(&self) -> (f64, f64) {
        let count = self.names.len();
        if count > NAMED {
            return (44.0, 40.0);
        }
        let letters = self.names.iter().map(|name| name.chars().count());
        let longest = letters.max().unwrap_or(0).min(LETTERS) as f64;
        let left = 34.0 + 7.2 * longest;
        (left, if count <= NUMBERED { left } else { 28.0 })
    }

    fn size(&self) -> (f64, f64) {
        let (left, top) = self.origin();
        let side = self.cell() * self.names.len() as f64;
        ((left + side + 8.0).ceil(), (top + side + 8.0).ceil())
    }

    fn names_and_grid(&self, svg: &mut String) {
        let (left, top) = self.origin();
        let (cell, count) = (self.cell(), self.names.len());
        let side = cell * count as f64;
        let _ = writeln!(
            svg,
            "<text class=\"h-text\" x=\"{:.1}\" y=\"14\" text-anchor=\"middle\">taken for</text><text class=\"h-text\" transform=\"translate(13 {:.1}) rotate(-90)\" text-anchor=\"middle\">class</text>",
            left + side / 2.0,
            top + side / 2.0
        );
        if count > NAMED {
            let every = [10, 20, 50, 100, 200, 500, 1000]
                .into_iter()
                .find(|every| count / every <= 12)
                .unwrap_or(2000);
            for at in (0..count).step_by(every) {
                let place = (at as f64 + 0.5) * cell;
                let _ = writeln!(
                    svg,
                    "<text class=\"h-text h-small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{at}</text><text class=\"h-text h-small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at}</text>",
                    left - 4.0,
                    top + place + 4.0,
                    left + place,
                    top - 6.0
                );
            }
        } else {
            for (at, name) in self.names.iter().enumerate() {
                let (name, place) = (escape(&shortened(name)), (at as f64 + 0.5) * cell);
                let _ = writeln!(
                    svg,
                    "<text class=\"h-text{}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                    if count > NUMBERED { " h-small" } else { "" },
                    left - 6.0,
                    top + place + 4.5
                );
                if count <= NUMBERED {
                    let _ = writeln!(
                        svg,
                        "<text class=\"h-text\" transform=\"translate({:.1} {:.1}) rotate(-90)\">{name}</text>",
                        left + place + 4.5,
                        top - 6.0
                    );
                }
            }
        }
        let lines = if count > NAMED { 1 } else { count };
        let step = side / lines as f64;
        let mut path = String::new();
        for at in 0..=lines {
            let place = at as f64 * step;
            let _ = write!(
                path,
                "M{left:.1} {:.1}h{side:.1}M{:.1} {top:.1}v{side:.1}",
                top + place,
                left + place
            );
        }
        let _ = writeln!(svg, "<path class=\"h-grid\" d=\"{path}\"/>");
    }

    /// Cells with their counts.
    fn numbers(&self, svg: &mut String) {
        let (left, top) = self.origin();
        let cell = self.cell();
        for (row, counts) in self.counts.iter().enumerate() {
            let total = counts.iter().sum::<usize>();
            for (column, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let share = count as f64 / total as f64;
                let (x, y) = (left + column as f64 * cell, top + row as f64 * cell);
                let name = |at: usize| escape(self.names.get(at).map_or("", String::as_str));
                // Letters stand out from their cell by about 4 to 1 or more, in light and in dark.
                let ink = match share {
                    _ if share > 0.75 => " h-on",
                    _ if share > 0.62 => " h-mid",
                    _ => "",
                };
                let _ = writeln!(
                    svg,
                    "<rect class=\"h-ink\" fill-opacity=\"{share:.2}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell}\" height=\"{cell}\"><title>{}: {count} of {total} taken for {}</title></rect><text class=\"h-text h-small{ink}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    name(row),
                    name(column),
                    x + cell / 2.0,
                    y + cell / 2.0 + 4.0,
                    brief(count)
                );
            }
        }
    }

    /// Cells as steps of darkness, all of one step in one path: a thousand classes make a hundred thousand cells.
    fn shades(&self, svg: &mut String) {
        let (left, top) = self.origin();
        let cell = self.cell();
        // What is smaller than a pixel would vanish.
        let drawn = cell.max(1.5);
        let mut paths = vec![String::new(); STEPS];
        for (row, counts) in self.counts.iter().enumerate() {
            let total = counts.iter().sum::<usize>();
            for (column, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let dark = (count as f64 / total as f64).sqrt();
                let step = (dark * STEPS as f64).ceil() as usize;
                let _ = write!(
                    paths[step.clamp(1, STEPS) - 1],
                    "M{:.1} {:.1}h{drawn:.1}v{drawn:.1}h-{drawn:.1}z",
                    left + column as f64 * cell,
                    top + row as f64 * cell
                );
            }
        }
        for (step, path) in paths
            .iter()
            .enumerate()
            .filter(|(_, path)| !path.is_empty())
        {
            let opacity = (step + 1) as f64 / STEPS as f64;
            let _ = writeln!(
                svg,
                "<path class=\"h-ink\" fill-opacity=\"{opacity:.3}\" d=\"{path}\"/>"
            );
        }
    }

    /// Where row and column are the same, in an outline.
    fn diagonal(&self, svg: &mut String) {
        let (left, top) = self.origin();
        let cell = self.cell();
        if self.names.len() > NAMED {
            return;
        }
        let mut path = String::new();
        for at in 0..self.names.len() {
            let (x, y) = (left + at as f64 * cell, top + at as f64 * cell);
            let _ = write!(path, "M{x:.1} {y:.1}h{cell}v{cell}h-{cell}z");
        }
        let _ = writeln!(svg, "<path class=\"h-own\" d=\"{path}\"/>");
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.into();
    }
    name.chars().take(LETTERS - 1).chain(['…']).collect()
}

/// A count in at most four letters.
fn brief(count: usize) -> String {
    match count {
        0..=9_999 => count.to_string(),
        10_000..=999_499 => format!("{}k", (count + 500) / 1000),
        _ => format!("{}M", (count + 500_000) / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(count: usize) -> HeatMap {
        HeatMap {
            title: "<t>".into(),
            names: (0..count).map(|k| format!("a<{k}>")).collect(),
            // Everything is right but the first name's, half of which is taken for the last.
            counts: (0..count)
                .map(|row| {
                    let mut counts = vec![0; count];
                    counts[row] += 50;
                    if row == 0 {
                        counts[count - 1] += 50;
                    }
                    counts
                })
                .collect(),
        }
    }

    #[test]
    fn few_names_have_numbers_and_many_have_shades() {
        let few = map(10).svg();
        assert_eq!(few.matches("<rect class=\"h-ink\"").count(), 11);
        assert!(few.contains("a&lt;0&gt;: 50 of 100 taken for a&lt;9&gt;"));
        assert_eq!(few.matches("fill-opacity=\"0.50\"").count(), 2);
        for count in [40, 100, 1000] {
            let many = map(count).svg();
            // √½ falls into the sixth of eight steps, 1 into the last.
            assert_eq!(many.matches("<path class=\"h-ink\"").count(), 2, "{count}");
            assert!(many.contains("fill-opacity=\"0.750\""), "{count}");
            assert_eq!(many.matches("a&lt;0&gt;").count(), usize::from(count == 40));
            assert!(!many.contains("<t>") && !many.contains("NaN"));
        }
        assert!(map(1000).svg().len() < 60_000);
    }

    #[test]
    fn cells_lie_inside_the_picture() {
        for count in [2, 10, 25, 40, 100, 1000] {
            let map = map(count);
            let ((left, top), (width, height)) = (map.origin(), map.size());
            let side = map.cell() * count as f64;
            assert!(left + side <= width && top + side <= height, "{count}");
        }
    }

    #[test]
    fn no_images_break_nothing() {
        let mut empty = map(3);
        empty.counts = vec![vec![0; 3]; 3];
        assert!(!empty.svg().contains("NaN") && !empty.svg().contains("<rect class=\"h-ink\""));
        let none = HeatMap {
            title: String::new(),
            names: vec![],
            counts: vec![],
        };
        assert!(none.svg().ends_with("</svg>\n"));
    }

    #[test]
    fn large_counts_stay_short() {
        assert_eq!([9_999, 10_400, 2_000_000].map(brief), ["9999", "10k", "2M"]);
    }
}
