//! Invariant 1: a crate depends only on crates below it, and is named like its folder.

use toml::Table;

use super::{File, Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "layers",
    check,
    broken: &[(
        "crates/mixskd-losses/Cargo.toml",
        "[package]\nname = \"mixskd-losses\"\n[dependencies]\nmixskd-train.workspace = true\n",
    )],
};

/// The crates from the ground up. Those of one row know nothing of each other.
const ROWS: &[&[&str]] = &[
    &["mixskd-cuda"],
    &["mixskd-chart", "mixskd-kernels"],
    &["mixskd-data", "mixskd-models", "mixskd-losses"],
    &["mixskd-train", "mixskd-analyze"],
    &["mixskd-report"],
    &["mixskd-cli"],
];

fn row(name: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&name))
}

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in repo.files() {
        let parts: Vec<_> = file.path.split('/').collect();
        if let ["crates", folder, "Cargo.toml"] = parts[..] {
            check_manifest(file, folder, &mut problems);
        }
    }
    problems
}

fn check_manifest(file: &File, folder: &str, problems: &mut Vec<Problem>) {
    let Ok(manifest) = file.text.parse::<Table>() else {
        problems.push(Problem::new(file, 0, "is no valid TOML"));
        return;
    };
    let name = manifest.get("package").and_then(|p| p.get("name"));
    if name.and_then(|name| name.as_str()) != Some(folder) {
        let message = format!("package name and folder name `{folder}` differ");
        problems.push(Problem::new(file, 0, message));
    }
    let Some(own) = row(folder) else {
        let message = format!("`{folder}` has no layer: give it one in xtask/src/tidy/layers.rs");
        problems.push(Problem::new(file, 0, message));
        return;
    };
    for dependency in dependencies(&manifest) {
        let Some(below) = row(&dependency) else {
            continue;
        };
        if below >= own {
            let line = line_of(&file.text, &dependency);
            let message =
                format!("`{folder}` may not depend on `{dependency}`, which is not below it");
            problems.push(Problem::new(file, line, message));
        }
    }
}

/// Names of every dependency: of the library, its tests and its build script, for every target.
fn dependencies(manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else {
            continue;
        };
        if key.ends_with("dependencies") {
            for (name, spec) in table {
                let renamed = spec.get("package").and_then(|package| package.as_str());
                names.push(renamed.unwrap_or(name).to_string());
            }
        } else if key == "target" {
            for target in table.values().filter_map(|target| target.as_table()) {
                names.extend(dependencies(target));
            }
        }
    }
    names
}

fn line_of(text: &str, dependency: &str) -> usize {
    let found = text
        .lines()
        .position(|line| line.trim_start().starts_with(dependency));
    found.map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let problems = check(&Repo::of(&[(path, text)]));
        problems.into_iter().map(|p| p.message).collect()
    }

    #[test]
    fn downward_is_fine() {
        let text = "[package]\nname = \"mixskd-train\"\n[dependencies]\nmixskd-data.workspace = true\nserde = \"1\"\n";
        assert!(messages("crates/mixskd-train/Cargo.toml", text).is_empty());
    }

    #[test]
    fn sideways_is_found_in_tests_targets_and_under_another_name() {
        let head = "[package]\nname = \"mixskd-data\"\n";
        for section in [
            "[dev-dependencies]\nmixskd-models.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nmixskd-models.workspace = true",
            "[dependencies]\nother = { package = \"mixskd-models\", path = \"x\" }",
        ] {
            let found = messages(
                "crates/mixskd-data/Cargo.toml",
                &format!("{head}{section}\n"),
            );
            assert_eq!(
                found,
                ["`mixskd-data` may not depend on `mixskd-models`, which is not below it"]
            );
        }
    }

    #[test]
    fn strangers_and_wrong_names_are_found() {
        let found = messages("crates/other/Cargo.toml", "[package]\nname = \"another\"\n");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
