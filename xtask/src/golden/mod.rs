//! `cargo xtask golden`: the independent values that tests compare with.
//!
//! A script `crates/CRATE/tests/golden/NAME.py` writes its files beside itself, the same every time: seeded draws, no clock.
//! To compare, a copy of it runs in an empty folder. A script there that reads its arguments is some test's helper and is
//! left alone.

mod compare;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::python::{PythonArgs, TORCH};

/// Options of `cargo xtask golden`.
#[derive(Debug, clap::Args)]
pub(crate) struct GoldenArgs {
    /// Write nothing: compare a fresh run with what is stored
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    python: PythonArgs,
}

pub(crate) fn run(root: &Path, args: &GoldenArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    let python = args.python.interpreter(&sh, root, &TORCH)?;
    let folders = folders(&root.join("crates"))?;
    let mut differences = Vec::new();
    for folder in &folders {
        let fresh = tempfile::tempdir().context("cannot make a temporary folder")?;
        for script in scripts(folder)? {
            if args.check {
                sh.copy_file(&script, fresh.path())?;
            } else {
                cmd!(sh, "{python} -B {script}").run()?;
            }
        }
        if args.check {
            for script in scripts(fresh.path())? {
                cmd!(sh, "{python} -B {script}").run()?;
            }
            compare_folders(folder, fresh.path(), &mut differences)?;
        }
    }
    if !differences.is_empty() {
        bail!(
            "golden data differ from what their scripts write:\n{}",
            differences.join("\n")
        );
    }
    if args.check {
        eprintln!("golden: {} folders agree with their scripts", folders.len());
    }
    Ok(())
}

/// Every `tests/golden` that holds a script, in the order of the crates' names.
fn folders(crates: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in list(crates)? {
        let folder = entry.join("tests").join("golden");
        if folder.is_dir() && !scripts(&folder)?.is_empty() {
            folders.push(folder);
        }
    }
    Ok(folders)
}

/// The scripts that generate data.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    for file in list(folder)?.into_iter().filter(|file| is_script(file)) {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if !text.contains("sys.argv") {
            scripts.push(file);
        }
    }
    Ok(scripts)
}

fn is_script(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "py")
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("cannot list {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        paths.push(entry.with_context(reading)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Names of the data files in a folder.
fn data(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let files = list(folder)?.into_iter();
    let files = files.filter(|file| file.is_file() && !is_script(file));
    Ok(files
        .filter_map(|file| file.file_name().map(PathBuf::from))
        .collect())
}

fn compare_folders(stored: &Path, fresh: &Path, differences: &mut Vec<String>) -> Result<()> {
    let (old, new) = (data(stored)?, data(fresh)?);
    for name in old.union(&new) {
        let path = stored.join(name);
        let shown = path.display();
        if !new.contains(name) {
            differences.push(format!("{shown}: no script writes it"));
        } else if !old.contains(name) {
            differences.push(format!("{shown}: is not stored"));
        } else if let Some(how) = compare::files(&path, &fresh.join(name))? {
            differences.push(format!("{shown}: {how}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_are_scripts_without_arguments() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.py", "import numpy\n"),
            ("a.py", "print(1)\n"),
            ("helper.py", "import sys\npath = sys.argv[1]\n"),
            ("data.json", "[]"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found = scripts(folder.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .filter_map(|f| f.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["a.py", "b.py"]);
    }

    #[test]
    fn missing_added_and_changed_files_are_told_apart() {
        let (stored, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (folder, name, text) in [
            (&stored, "same.json", "[1.0]"),
            (&fresh, "same.json", "[1.0000000001]"),
            (&stored, "changed.json", "[1.0]"),
            (&fresh, "changed.json", "[2.0]"),
            (&stored, "gone.txt", ""),
            (&fresh, "new.txt", ""),
            (&stored, "make.py", ""),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut found = Vec::new();
        compare_folders(stored.path(), fresh.path(), &mut found).unwrap();
        let ends: Vec<_> = found
            .iter()
            .map(|d| d.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            ends,
            [
                "changed.json: [0]: stored 1.0, fresh 2.0",
                "gone.txt: no script writes it",
                "new.txt: is not stored"
            ]
        );
    }
}
