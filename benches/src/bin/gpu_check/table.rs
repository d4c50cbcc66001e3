//! What was found, as one table and as JSON.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::LATE;

/// One line.
struct Row {
    group: &'static str,
    name: String,
    value: String,
    /// None where there is nothing to pass: a measurement, or something left out.
    passed: Option<bool>,
    data: Value,
}

/// All lines so far.
pub(crate) struct Table {
    rows: Vec<Row>,
    /// Checks that there was no time for.
    late: usize,
    file: PathBuf,
}

impl Table {
    /// A table that is in `file` after each line, so that what is cut short has not been for nothing.
    pub(crate) fn in_file(file: &Path) -> Self {
        Self {
            rows: Vec::new(),
            late: 0,
            file: file.into(),
        }
    }

    fn add(&mut self, row: Row) {
        let mark = match row.passed {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "",
        };
        eprintln!("{} {}: {} {mark}", row.group, row.name, row.value);
        self.rows.push(row);
        if let Err(error) = self.write() {
            eprintln!("{error:#}");
        }
    }

    /// A number that must not be above its bound; what is no number fails.
    pub(crate) fn error(&mut self, group: &'static str, name: &str, error: f64, bound: f64) {
        self.error_of(group, name, error, bound, &Value::Null);
    }

    /// The same, with what it was made of.
    pub(crate) fn error_of(
        &mut self,
        group: &'static str,
        name: &str,
        error: f64,
        bound: f64,
        of: &Value,
    ) {
        self.add(Row {
            group,
            name: name.into(),
            value: format!("{error:.2e} (at most {bound:.0e})"),
            passed: Some(error <= bound),
            data: json!({ "error": error, "bound": bound, "of": of }),
        });
    }

    /// Something that holds or does not.
    pub(crate) fn fact(&mut self, group: &'static str, name: &str, value: String, holds: bool) {
        self.add(Row {
            group,
            name: name.into(),
            data: json!({ "text": &value }),
            value,
            passed: Some(holds),
        });
    }

    /// A check that could not be made. One that there was no time for is no failure by itself; all are not passed then.
    pub(crate) fn broken(&mut self, group: &'static str, name: &str, error: &anyhow::Error) {
        if error.to_string() == LATE {
            self.late += 1;
            return self.left_out(group, &format!("{name}: {LATE}"));
        }
        self.add(Row {
            group,
            name: name.into(),
            value: format!("{error:#}"),
            passed: Some(false),
            data: json!({ "error": format!("{error:#}") }),
        });
    }

    /// A measurement.
    pub(crate) fn figure(&mut self, group: &'static str, name: &str, value: String, data: Value) {
        self.add(Row {
            group,
            name: name.into(),
            value,
            passed: None,
            data,
        });
    }

    /// Something that was not done.
    pub(crate) fn left_out(&mut self, group: &'static str, why: &str) {
        self.figure(group, "NOT DONE", why.into(), Value::Null);
    }

    /// Whether every check was made, and none failed.
    pub(crate) fn passed(&self) -> bool {
        self.late == 0 && self.rows.iter().all(|row| row.passed != Some(false))
    }

    /// To standard output, columns in line.
    pub(crate) fn print(&self) {
        let width = |of: fn(&Row) -> usize| self.rows.iter().map(of).max().unwrap_or(0);
        let (group, name) = (width(|r| r.group.len()), width(|r| r.name.len()));
        for row in &self.rows {
            let mark = match row.passed {
                Some(true) => "ok    ",
                Some(false) => "FAILED",
                None => "      ",
            };
            println!(
                "{mark}  {:group$}  {:name$}  {}",
                row.group, row.name, row.value
            );
        }
        let failed = self
            .rows
            .iter()
            .filter(|row| row.passed == Some(false))
            .count();
        let checked = self.rows.iter().filter(|row| row.passed.is_some()).count();
        println!(
            "{checked} checks, {failed} failed, {} left for want of time",
            self.late
        );
    }

    /// As JSON.
    pub(crate) fn write(&self) -> Result<()> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| json!({ "group": row.group, "name": row.name, "passed": row.passed, "text": row.value, "data": row.data }))
            .collect();
        let text = serde_json::to_string_pretty(
            &json!({ "passed": self.passed(), "late": self.late, "rows": rows }),
        )?;
        std::fs::write(&self.file, text + "\n")
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}
