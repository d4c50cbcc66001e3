//! The pieces an SVG file is made of.

use std::fmt::Write as _;

/// What of a text lies at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its first letter.
    Start,
    /// Its middle.
    Middle,
    /// Its last letter.
    End,
}

impl Anchor {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A picture in the making, black on white, 13 px sans-serif. Places are (x, y) in pixels from the upper left corner.
#[derive(Debug, Clone)]
pub struct Svg {
    text: String,
}

impl Svg {
    /// An empty picture of `width` × `height` pixels.
    pub fn new(width: f64, height: f64) -> Self {
        Self {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
            ),
        }
    }

    /// A thin line; `colour` as SVG writes it.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let _ = writeln!(
            self.text,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{colour}\" fill=\"none\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// `words` on the base line at `at`.
    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, words: &str) {
        let _ = writeln!(
            self.text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text>",
            at.0,
            at.1,
            anchor.word(),
            escape(words)
        );
    }

    /// `words` written upwards, their middle at `at`.
    pub fn text_upwards(&mut self, at: (f64, f64), words: &str) {
        let _ = writeln!(
            self.text,
            "<text transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            at.0,
            at.1,
            escape(words)
        );
    }

    /// A filled disc of 10 px.
    pub fn disc(&mut self, at: (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"black\"/>",
            at.0, at.1
        );
    }

    /// An empty square of 10 px.
    pub fn square(&mut self, at: (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"white\" stroke=\"black\" stroke-width=\"1.5\"/>",
            at.0 - 5.0,
            at.1 - 5.0
        );
    }

    /// An upright error bar from `at` by `reach` pixels up and down.
    pub fn error_bar(&mut self, at: (f64, f64), reach: f64) {
        let (x, low, high) = (at.0, at.1 + reach, at.1 - reach);
        let left = x - 5.0;
        let _ = writeln!(
            self.text,
            "<path d=\"M{x:.1} {high:.1}V{low:.1}M{left:.1} {high:.1}h10M{left:.1} {low:.1}h10\" stroke=\"black\" fill=\"none\"/>"
        );
    }

    /// The picture's text.
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// `words` as they stand in SVG's or HTML's text and attributes.
pub fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // What XML has no way of writing.
            letter if letter.is_control() && !matches!(letter, '\t' | '\n' | '\r') => {
                out.push('\u{fffd}');
            }
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(
            escape("a<b & \"c\">\u{1}"),
            "a&lt;b &amp; &quot;c&quot;&gt;\u{fffd}"
        );
    }
}
