//! Nothing of one machine or one network in the repository: no absolute paths of a person's folders, no hosts of package
//! registries (which registry is used is a setting of the tools, not of the project).

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "machine",
    check,
    broken: &[("docs/a.md", concat!("see /ro", "ot/notes\n"))],
};

/// Split in two, so that this file does not break its own rule.
const FORBIDDEN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/op", "t/"),
    concat!("C:", "\\"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("download.py", "torch.org"),
    concat!("ana", "conda.org"),
    concat!("registry.np", "mjs.org"),
];

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in repo.files() {
        for (i, line) in file.text.lines().enumerate() {
            for name in FORBIDDEN.iter().filter(|name| appears(line, name)) {
                let message = format!("`{name}` belongs to one machine or network");
                problems.push(Problem::new(file, i + 1, message));
            }
        }
    }
    problems
}

/// A path counts only where it begins: `network/` and `a/work/` hold no absolute path.
fn appears(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !name.starts_with('/')
            || !before.is_some_and(|c| {
                c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | '>')
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check(&Repo::of(&[("a.md", text)])).len()
    }

    #[test]
    fn absolute_paths_and_hosts_are_found() {
        assert_eq!(found(concat!("cd /wo", "rk/main\n")), 1);
        assert_eq!(found(concat!("\"/ho", "me/me/data\"\n")), 1);
        assert_eq!(found(concat!("https://py", "pi.org/simple\n")), 1);
    }

    #[test]
    fn relative_paths_and_other_hosts_are_not() {
        assert_eq!(
            found(concat!(
                "net/wo",
                "rk/, ~/ho",
                "me/x, https://example.org/a\n"
            )),
            0
        );
    }
}
