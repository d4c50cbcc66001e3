//! A file of results: rows by name, in JSON, and the same as Markdown beside it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::write;

/// A row that is found by its name.
pub(super) trait Named {
    fn name(&self) -> &str;
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Content<R> {
    machine: Option<Machine>,
    rows: Vec<R>,
}

/// Rows that were measured, in this run or before.
pub(super) struct Sheet<R> {
    json: PathBuf,
    content: Content<R>,
    /// The rows as Markdown.
    render: fn(Option<&Machine>, &[R]) -> String,
    /// A row's place in the order of the table.
    place: fn(&R) -> usize,
}

impl<R: Named + Serialize + DeserializeOwned> Sheet<R> {
    /// The file `json`, or an empty sheet where there is none.
    pub(super) fn open(
        json: PathBuf,
        render: fn(Option<&Machine>, &[R]) -> String,
        place: fn(&R) -> usize,
    ) -> Result<Self> {
        let content = match fs::read_to_string(&json) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} holds no rows of this program's\nhint: remove it, or name another folder with --out",
                    json.display()
                )
            })?,
            Err(_) => Content {
                machine: None,
                rows: vec![],
            },
        };
        Ok(Self {
            json,
            content,
            render,
            place,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.content.rows.iter().any(|row| row.name() == name)
    }

    /// Notes what the rows are measured on; the best peaks of all runs on one machine stand.
    pub(super) fn on(&mut self, machine: Machine) {
        let machine = match self.content.machine.take() {
            Some(before) => machine.best_of(&before),
            None => machine,
        };
        self.content.machine = Some(machine);
    }

    /// Adds a row or replaces the one of its name, and writes both files.
    pub(super) fn put(&mut self, row: R) -> Result<()> {
        let rows = &mut self.content.rows;
        rows.retain(|other| other.name() != row.name());
        rows.push(row);
        rows.sort_by_key(self.place);
        write(
            &self.json,
            &format!("{}\n", serde_json::to_string_pretty(&self.content)?),
        )?;
        write(&self.json.with_extension("md"), &self.markdown())
    }

    /// All rows as Markdown.
    pub(super) fn markdown(&self) -> String {
        (self.render)(self.content.machine.as_ref(), &self.content.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Pair(String, usize);

    impl Named for Pair {
        fn name(&self) -> &str {
            &self.0
        }
    }

    fn names(_: Option<&Machine>, rows: &[Pair]) -> String {
        let names = rows.iter().map(|row| row.0.as_str());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rows_are_replaced_by_name_kept_in_order_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results").join("rows.json");
        let open = || Sheet::<Pair>::open(path.clone(), names, |row| row.1).unwrap();
        let mut sheet = open();
        for (name, place) in [("b", 2), ("a", 1), ("b", 0)] {
            sheet.put(Pair(name.into(), place)).unwrap();
        }
        let again = open();
        assert_eq!(again.markdown(), "b a");
        assert_eq!(
            fs::read_to_string(path.with_extension("md")).unwrap(),
            "b a"
        );
        assert!(again.has("a") && !again.has("c"));
    }

    #[test]
    fn another_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.json");
        fs::write(&path, "[1, 2]").unwrap();
        assert!(Sheet::<Pair>::open(path, names, |row| row.1).is_err());
    }
}
