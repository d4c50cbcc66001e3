//! No blanks at the end of a line, no tabs in code, a newline at the end of a file.

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "whitespace",
    check,
    broken: &[("docs/a.md", "text \n")],
};

const TEXT: &[&str] = &["rs", "toml", "md", "py", "sh", "yml", "yaml", "json"];

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in repo.files().iter().filter(|f| f.has_extension(TEXT)) {
        for (i, line) in file.text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                problems.push(Problem::new(file, i + 1, "ends with white space"));
            }
            if line.starts_with('\t') {
                problems.push(Problem::new(file, i + 1, "is indented with a tab"));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            problems.push(Problem::new(file, 0, "has no newline at its end"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found_and_clean_text_is_not() {
        let found = |text: &str| check(&Repo::of(&[("a.rs", text)])).len();
        assert_eq!(found("a\r\n"), 1);
        assert_eq!(found("\ta\n"), 1);
        assert_eq!(found("a"), 1);
        assert_eq!(found("a\n\n    b\n"), 0);
        assert_eq!(found(""), 0);
    }
}
