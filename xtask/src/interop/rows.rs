//! Measured errors and the tables of them.

use std::fmt::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One measured error and how large it may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// A network, or a photograph's file.
    pub(super) network: String,
    pub(super) check: String,
    pub(super) error: f64,
    pub(super) limit: f64,
}

impl Row {
    /// NaN does not.
    pub(super) fn holds(&self) -> bool {
        self.error <= self.limit
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            check,
            error,
            limit,
        } = self;
        write!(f, "{network}: {check}: {error:.2e}, at most {limit:.0e}")
    }
}

/// The rows that a script wrote.
pub(super) fn read(path: &Path) -> Result<Vec<Row>> {
    let reading = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    let list: Vec<Value> = serde_json::from_str(&text).with_context(reading)?;
    list.iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().map(str::to_string);
            Some(Row {
                network: text("network")?,
                check: text("check")?,
                // Python writes what is not finite as a word that JSON lacks, and the file is refused.
                error: row["error"].as_f64()?,
                limit: row["limit"].as_f64()?,
            })
        })
        .collect::<Option<_>>()
        .with_context(|| format!("{}: a row lacks a field", path.display()))
}

/// The lines `NETWORK: CHECK within ERROR` of a test's output.
pub(super) fn told(said: &str, check: &str, limit: f64) -> Vec<Row> {
    let row = |line: &str| {
        let (network, rest) = line.split_once(": ")?;
        let error = rest.strip_prefix(check)?.strip_prefix(" within ")?;
        let error = error.split(' ').next()?.parse().ok()?;
        Some(Row {
            // The test runner writes dots before the first line.
            network: network.rsplit(['.', ' ']).next()?.into(),
            check: check.into(),
            error,
            limit,
        })
    };
    said.lines().filter_map(row).collect()
}

/// Markdown: a table with a line for each network, one of what each says of photographs, and one with a line for each photograph.
pub(super) fn tables(rows: &[Row]) -> String {
    let (photographs, networks): (Vec<_>, Vec<_>) = rows
        .iter()
        .partition(|row| row.network.rsplit('.').next() == Some("jpg"));
    let (seen, networks): (Vec<_>, Vec<_>) = networks
        .into_iter()
        .partition(|row| row.check.starts_with("photographs"));
    let mut text = table("network", &networks);
    if !seen.is_empty() {
        text.push('\n');
        text.push_str(&table("network", &seen));
    }
    if !photographs.is_empty() {
        text.push_str("\nOur resize and crop of the photographs beside PIL's antialiased bilinear, in grey levels of 255, with a lossless file and with the JPEG itself:\n\n");
        text.push_str(&table("photograph", &photographs));
    }
    text
}

fn table(first: &str, rows: &[&Row]) -> String {
    let mut names: Vec<&str> = rows.iter().map(|row| row.network.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut checks: Vec<&str> = Vec::new();
    for row in rows {
        if !checks.contains(&row.check.as_str()) {
            checks.push(&row.check);
        }
    }
    let mut text = format!("| {first} | {} |\n", checks.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(checks.len() + 1));
    for name in names {
        let _ = write!(text, "| {name} |");
        for check in &checks {
            let found = rows
                .iter()
                .find(|row| row.network == name && row.check == *check);
            let _ = write!(text, " {} |", found.map_or("–".into(), |row| figure(row)));
        }
        text.push('\n');
    }
    text
}

fn figure(row: &Row) -> String {
    let figure = match row.error {
        error if error == 0.0 || error >= 1.0 => format!("{error:.0}"),
        error if error >= 0.01 => format!("{error:.2}"),
        error => format!("{error:.1e}"),
    };
    if row.holds() {
        figure
    } else {
        format!("**{figure}**")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(network: &str, check: &str, error: f64) -> Row {
        Row {
            network: network.into(),
            check: check.into(),
            error,
            limit: 1e-4,
        }
    }

    #[test]
    fn lines_of_a_test_become_rows() {
        let said = "\nrunning 1 test\n..resnet18: gradients within 1.5e-4 (fc.weight)\nnoise: 3\n";
        let rows = told(said, "gradients", 1e-4);
        assert_eq!(rows, [row("resnet18", "gradients", 1.5e-4)]);
        assert!(!rows[0].holds() && !row("a", "b", f64::NAN).holds());
    }

    #[test]
    fn every_network_has_a_line_and_every_check_a_column() {
        let rows = [
            row("b", "one", 1e-6),
            row("a", "two", 2.0),
            row("a", "photographs: logits", 0.5),
            row("x.jpg", "grey", 0.0),
        ];
        let text = tables(&rows);
        for part in [
            "| network | one | two |\n|---|---|---|\n| a | – | **2** |\n| b | 1.0e-6 | – |\n",
            "| network | photographs: logits |\n|---|---|\n| a | **0.50** |\n",
            "| photograph | grey |\n|---|---|\n| x.jpg | 0 |\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
