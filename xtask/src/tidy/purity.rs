//! Invariant 2: losses and models touch no file, clock, thread or random generator of their own.

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "purity",
    check,
    broken: &[(
        "crates/mixskd-losses/src/a.rs",
        "//! A.\nlet start = std::time::Instant::now();\n",
    )],
};

/// What is not to be touched, and where it may be all the same.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("std::fs", &["crates/mixskd-models/src/weights"]),
    ("std::net", &[]),
    ("std::env", &[]),
    ("std::process", &["crates/mixskd-models/src/weights"]),
    ("std::thread", &[]),
    ("rayon", &[]),
    ("std::time", &[]),
    ("Instant", &[]),
    ("SystemTime", &[]),
    ("println!", &[]),
    // The seeded initialisation of parameters.
    ("rand::", &["crates/mixskd-models/src/store/init.rs"]),
    ("rand_chacha", &["crates/mixskd-models/src/store/init.rs"]),
    ("rand_distr", &["crates/mixskd-models/src/store/init.rs"]),
];

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in repo.sources_of(&["mixskd-losses", "mixskd-models"]) {
        for (line, code) in file.code() {
            for (name, allowed) in FORBIDDEN {
                let excused = allowed.iter().any(|path| file.path.starts_with(path));
                if !excused && code.contains(name) {
                    let message = format!("`{name}` in a crate of pure functions");
                    problems.push(Problem::new(file, line, message));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_files_may_be_read_only_where_they_belong() {
        let text = "//! A.\nuse std::fs::File;\n";
        let found = |path| check(&Repo::of(&[(path, text)])).len();
        assert_eq!(found("crates/mixskd-models/src/weights/read.rs"), 0);
        assert_eq!(found("crates/mixskd-models/src/resnet/mod.rs"), 1);
        assert_eq!(found("crates/mixskd-losses/src/weights/read.rs"), 1);
        assert_eq!(found("crates/mixskd-data/src/read.rs"), 0);
    }

    #[test]
    fn random_numbers_only_in_the_initialisation() {
        let text = "//! A.\nuse rand::Rng;\n";
        let found = |path| check(&Repo::of(&[(path, text)])).len();
        assert_eq!(found("crates/mixskd-models/src/store/init.rs"), 0);
        assert_eq!(found("crates/mixskd-models/src/store/mod.rs"), 1);
    }
}
