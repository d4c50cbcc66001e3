//! A file of more than 600 lines is split, or says in its header why not.

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "length",
    check,
    broken: &[("crates/mixskd-data/src/a.rs", LONG)],
};

const LIMIT: usize = 600;
/// Lines at the top in which the reason may stand, with the words "600 lines".
const HEADER: usize = 20;

/// 601 lines.
const LONG: &str = const {
    static BYTES: [u8; LIMIT + 1] = [b'\n'; LIMIT + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    let code = repo
        .files()
        .iter()
        .filter(|f| f.has_extension(&["rs", "py", "cu", "sh"]));
    for file in code {
        let lines = file.text.lines().count();
        let explained = file
            .text
            .lines()
            .take(HEADER)
            .any(|line| line.contains("600 lines"));
        if lines > LIMIT && !explained {
            let message = format!(
                "{lines} lines: split it, or say in its first {HEADER} lines why it is over 600 lines"
            );
            problems.push(Problem::new(file, 0, message));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_in_the_header_is_enough() {
        let explained = format!("//! Over 600 lines: one table.\n{LONG}");
        let late = format!("{LONG}//! Over 600 lines: one table.\n");
        let found = |text: &str| check(&Repo::of(&[("crates/a/src/a.rs", text)])).len();
        assert_eq!(found(&explained), 0);
        assert_eq!(found(&late), 1);
        assert_eq!(found(&LONG[1..]), 0);
    }
}
