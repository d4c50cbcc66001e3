//! Data on stdout.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Writes `text` and a line's end. A reader that went away (`mixskd models | head -1`) is no failure.
pub(crate) fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes `text` as it is.
pub(crate) fn bytes(text: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let hint = "check where stdout goes; the disk may be full".to_string();
            Err(Failure::failed(
                format!("cannot write to stdout: {error}"),
                Some(hint),
            ))
        }
        _ => Ok(()),
    }
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether progress is shown from now on.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether nobody wants to see progress.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes a line of progress to stderr, where it is wanted.
pub(crate) fn progress(text: std::fmt::Arguments) {
    if !is_quiet() {
        say(text);
    }
}

/// Writes a line to stderr. Where nobody reads it, as when the terminal is gone, the work goes on.
pub(crate) fn say(text: std::fmt::Arguments) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `text` from a file as a terminal may show it: control characters, and those that turn a line's direction round, as Rust writes them.
pub(crate) fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| {
        if c.is_control() || turns(c) {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(shown).collect()
}

/// Writes `value` as one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Failure::failed(format!("cannot write the result as JSON: {error}"), None)
    })?;
    line(&text)
}

/// Columns padded to their widest cell, two spaces apart; cells that look like numbers stand to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = (0..columns).map(width).collect::<Vec<_>>();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                let number = column > 0 && cell.starts_with(|c: char| c.is_ascii_digit());
                if number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_string());
    }
    lines.join("\n")
}

/// A name and its value on each line.
pub(crate) fn columns(rows: &[(&str, String)]) -> String {
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:<width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let cells = |row: &[&str]| row.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [
            cells(&["name", "top-1"]),
            cells(&["λ", "7 %"]),
            cells(&["backbone", "12 %"]),
        ];
        assert_eq!(
            table(&rows),
            "name      top-1\nλ           7 %\nbackbone   12 %"
        );
    }
}
