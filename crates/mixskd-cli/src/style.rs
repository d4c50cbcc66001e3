//! Colour, where a terminal reads it and the user does not mind (`NO_COLOR`, `TERM=dumb`).

use std::io::IsTerminal;

/// Paints words for one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colour: bool,
}

/// The style of stderr.
pub(crate) fn stderr() -> Style {
    Style::of(std::io::stderr().is_terminal())
}

/// The style of stdout.
pub(crate) fn stdout() -> Style {
    Style::of(std::io::stdout().is_terminal())
}

impl Style {
    fn of(terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: terminal && !set("NO_COLOR") && !dumb,
        }
    }

    /// Whether words are painted at all.
    pub(crate) fn colour(self) -> bool {
        self.colour
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint(text, "1;31")
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.paint(text, "1;36")
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint(text, "1")
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paints_only_where_colour_is_wanted() {
        assert_eq!(Style { colour: true }.red("x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Style { colour: false }.red("x"), "x");
        assert!(!Style::of(false).colour());
    }
}
