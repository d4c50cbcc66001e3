//! The repository's text files, as the rules see them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// A text file.
pub(super) struct File {
    /// From the repository's root, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn has_extension(&self, wanted: &[&str]) -> bool {
        let extension = Path::new(&self.path).extension();
        extension.is_some_and(|have| wanted.iter().any(|want| have == *want))
    }

    /// The lines of Rust code with their numbers: no comments, nothing after the file's own test module begins.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod ");
        self.text[..end.unwrap_or(self.text.len())]
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
    }
}

/// The files under version control, and the new ones that are not ignored.
pub(super) struct Repo {
    files: Vec<File>,
}

impl Repo {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let sh = Shell::new()?;
        sh.change_dir(root);
        let list = cmd!(sh, "git ls-files -z --cached --others --exclude-standard")
            .quiet()
            .read()
            .context("cannot list the repository's files\nhint: tidy runs inside a git checkout")?;
        let mut files = Vec::new();
        for path in list.split('\0').filter(|path| !path.is_empty()) {
            // A file removed but still in the index, or one that is no text, has nothing to read.
            let Ok(bytes) = fs::read(root.join(path)) else {
                continue;
            };
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File {
                    path: path.into(),
                    text,
                });
            }
        }
        Ok(Self { files })
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| File {
            path: (*path).into(),
            text: (*text).into(),
        });
        Self {
            files: files.collect(),
        }
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// Rust sources of the crates, of the benches and of xtask; files of unit tests, `tests.rs`, are none.
    pub(super) fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| {
            let mut parts = file.path.split('/');
            let top = parts.next().unwrap_or_default();
            if top == "crates" {
                parts.next();
            }
            matches!(top, "crates" | "benches" | "xtask")
                && parts.next() == Some("src")
                && file.has_extension(&["rs"])
                && !file.path.ends_with("/tests.rs")
        })
    }

    /// Rust sources of the crates called `names`.
    pub(super) fn sources_of(&self, names: &[&str]) -> impl Iterator<Item = &File> {
        self.sources().filter(|file| {
            let mut parts = file.path.split('/').skip(1);
            let name = parts.next().unwrap_or_default();
            file.path.starts_with("crates/") && names.contains(&name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_leaves_out_comments_and_tests() {
        let text = "//! head\nlet a = 1; // why\n\n#[cfg(test)]\nmod tests {}\n";
        let repo = Repo::of(&[("crates/a/src/lib.rs", text)]);
        let code: Vec<_> = repo.files()[0].code().collect();
        assert_eq!(code, [(2, "let a = 1; ")]);
    }

    #[test]
    fn sources_are_those_below_src() {
        let repo = Repo::of(&[
            ("crates/mixskd-losses/src/objective/sum.rs", ""),
            ("crates/mixskd-losses/tests/golden.rs", ""),
            ("crates/mixskd-losses/src/objective/tests.rs", ""),
            ("crates/mixskd-losses/src/notes.md", ""),
            ("xtask/src/main.rs", ""),
        ]);
        let paths = |files: Vec<&File>| files.iter().map(|f| f.path.clone()).collect::<Vec<_>>();
        assert_eq!(
            paths(repo.sources().collect()),
            [
                "crates/mixskd-losses/src/objective/sum.rs",
                "xtask/src/main.rs"
            ]
        );
        assert_eq!(repo.sources_of(&["mixskd-losses"]).count(), 1);
        assert_eq!(repo.sources_of(&["mixskd-models"]).count(), 0);
    }
}
