//! `cargo xtask tidy`: the invariants of docs/architecture.md that a reading of the files can check.
//!
//! A rule is a function from the repository's files to the places that break it, one file and one row of [`ALL`] each.

mod candle_traps;
mod headers;
mod layers;
mod length;
mod machine;
mod purity;
mod randomness;
mod repo;
mod training_loop;
mod whitespace;

use std::path::Path;

use anyhow::{Result, bail};

use repo::{File, Repo};

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    path: String,
    /// Line number from 1, or 0 for the whole file.
    line: usize,
    message: String,
}

impl Problem {
    fn new(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            message: message.into(),
        }
    }
}

/// A rule and a sample that breaks it.
struct Rule {
    name: &'static str,
    check: fn(&Repo) -> Vec<Problem>,
    /// Paths and texts that must raise at least one problem: a rule that cannot fail checks nothing.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tests' sample"))]
    broken: &'static [(&'static str, &'static str)],
}

const ALL: &[Rule] = &[
    layers::RULE,
    purity::RULE,
    training_loop::RULE,
    randomness::RULE,
    candle_traps::RULE,
    length::RULE,
    headers::RULE,
    whitespace::RULE,
    machine::RULE,
];

pub(crate) fn run(root: &Path) -> Result<()> {
    let repo = Repo::open(root)?;
    let mut count = 0;
    for rule in ALL {
        for problem in (rule.check)(&repo) {
            let Problem {
                path,
                line,
                message,
            } = problem;
            eprintln!("{path}:{line}: {message} [{}]", rule.name);
            count += 1;
        }
    }
    if count > 0 {
        bail!("{count} places break the rules of docs/architecture.md");
    }
    eprintln!("tidy: {} files, {} rules", repo.files().len(), ALL.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_finds_its_broken_sample() {
        for rule in ALL {
            let problems = (rule.check)(&Repo::of(rule.broken));
            assert!(!problems.is_empty(), "{} finds nothing", rule.name);
            for problem in problems {
                assert!(!problem.message.is_empty(), "{problem:?}");
            }
        }
    }

    #[test]
    fn rules_have_names_of_their_own() {
        let mut names: Vec<_> = ALL.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
