//! Every Rust source begins by saying what it is.

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "headers",
    check,
    broken: &[("crates/mixskd-data/src/a.rs", "use std::fmt;\n")],
};

fn check(repo: &Repo) -> Vec<Problem> {
    let silent = repo.sources().filter(|file| !file.text.starts_with("//!"));
    silent
        .map(|file| Problem::new(file, 1, "begins with no `//!` line on what it is for"))
        .collect()
}
