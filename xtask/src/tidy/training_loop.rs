//! Invariant 3: the training loop knows no method by name.

use super::{File, Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "training-loop",
    check,
    broken: &[
        (
            LOOP,
            "//! Loop.\nif config.method == \"mixskd\" { mix(); }\n",
        ),
        (
            "crates/mixskd-train/src/method/mixskd.rs",
            "//! M.\npub(super) const SPEC: MethodSpec = MethodSpec {\n    name: \"mixskd\",\n};\n",
        ),
    ],
};

const LOOP: &str = "crates/mixskd-train/src/trainer.rs";
const METHODS: &str = "crates/mixskd-train/src/method/";

/// The names in the methods' table rows: `name: "…"`.
fn methods(repo: &Repo) -> Vec<String> {
    let rows = repo.files().iter().filter(|f| f.path.starts_with(METHODS));
    let names = rows.flat_map(File::code).filter_map(|(_, code)| {
        let value = code.trim().strip_prefix("name: \"")?;
        Some(value.split('"').next()?.to_string())
    });
    names.collect()
}

fn check(repo: &Repo) -> Vec<Problem> {
    let Some(file) = repo.files().iter().find(|file| file.path == LOOP) else {
        return vec![Problem {
            path: LOOP.into(),
            line: 0,
            message: "the training loop is not here: tell xtask/src/tidy/training_loop.rs".into(),
        }];
    };
    let methods = methods(repo);
    if methods.is_empty() {
        return vec![Problem {
            path: METHODS.into(),
            line: 0,
            message: "no method's row `name: \"…\"` is here: tell xtask/src/tidy/training_loop.rs"
                .into(),
        }];
    }
    let mut problems = Vec::new();
    for (line, code) in file.code() {
        for word in words(code) {
            if let Some(name) = methods.iter().find(|name| plain(name) == word) {
                let message = format!("the training loop names the method `{name}`");
                problems.push(Problem::new(file, line, message));
            }
        }
    }
    problems
}

/// Identifiers and words of strings, without case, underscores and hyphens: `MixSkd`, `mix_skd` and `mix-skd` are one.
/// Paths into this project's own crates are not names of methods.
fn words(code: &str) -> impl Iterator<Item = String> {
    let parts = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'));
    parts.map(plain).filter(|word| !word.is_empty())
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        let row = "//! M.\n    name: \"tf-kd\",\n";
        check(&Repo::of(&[
            (LOOP, text),
            ("crates/mixskd-train/src/method/tf_kd.rs", row),
        ]))
        .len()
    }

    #[test]
    fn any_spelling_is_found() {
        for line in ["\"tf-kd\"", "method::tf_kd::run()", "TfKd::new()"] {
            assert_eq!(found(&format!("//! L.\n{line}\n")), 1, "{line}");
        }
        assert_eq!(found("//! L.\n// tf-kd is slow\nlet tfk = kd;\n"), 0);
    }

    #[test]
    fn a_moved_loop_or_table_is_no_excuse() {
        assert_eq!(check(&Repo::of(&[])).len(), 1);
        assert_eq!(check(&Repo::of(&[(LOOP, "//! L.\n")])).len(), 1);
    }
}
