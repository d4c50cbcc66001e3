//! The binary under test, run as a user runs it, and small data for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// What a run of the binary left.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn ok(self) -> Self {
        assert_eq!(
            self.status, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Asserts the exit status, one `error:` line with `cause`, one `hint:` line with `hint`, and an empty stdout.
    pub(crate) fn refused(&self, status: i32, cause: &str, hint: &str) {
        let told = |prefix: &str| {
            let lines = self
                .stderr
                .lines()
                .filter(|line| line.starts_with(prefix))
                .collect::<Vec<_>>();
            assert_eq!(
                lines.len(),
                1,
                "wanted one line `{prefix}…`:\n{}",
                self.stderr
            );
            lines[0].to_string()
        };
        let (error, advice) = (told("error: "), told("hint: "));
        assert!(error.contains(cause), "`{error}` lacks `{cause}`");
        assert!(advice.contains(hint), "`{advice}` lacks `{hint}`");
        assert_eq!(self.status, status, "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }

    /// stdout as the one JSON document it must be.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs `mixskd` in `dir`.
pub(crate) fn mixskd<S: AsRef<std::ffi::OsStr>>(
    dir: &Path,
    args: impl IntoIterator<Item = S>,
) -> Run {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_mixskd"))
        .args(args)
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    Run {
        status: status.code().unwrap(),
        stdout: slashes(&String::from_utf8(stdout).unwrap()),
        stderr: slashes(&String::from_utf8(stderr).unwrap()),
    }
}

/// Paths as they are written everywhere but on Windows; in JSON a backslash is two.
pub(crate) fn slashes(text: &str) -> String {
    if !cfg!(windows) {
        text.into()
    } else if text.starts_with(['{', '[']) {
        text.replace(r"\\", "/")
    } else {
        text.replace('\\', "/")
    }
}

/// The same, with the arguments in one string.
pub(crate) fn run(dir: &Path, args: &str) -> Run {
    mixskd(dir, args.split_whitespace())
}

/// An image folder `root/pets` with `train/` and `val/`, two classes that differ in colour, 8×8 pixels.
pub(crate) fn image_folder(root: &Path, per_class: usize) -> PathBuf {
    let folder = root.join("pets");
    // No image is on both sides.
    for (split, count, shade) in [("train", per_class, 0), ("val", 4, 3)] {
        for (class, base) in [("cat", 40u8), ("dog", 180)] {
            let dir = folder.join(split).join(class);
            std::fs::create_dir_all(&dir).unwrap();
            for k in 0..count {
                save_image(
                    &dir.join(format!("{k:02}.png")),
                    8,
                    base.wrapping_add(7 * k as u8 + shade),
                );
            }
        }
    }
    folder
}

/// A square RGB image whose pixels run upwards from `base`.
pub(crate) fn save_image(path: &Path, side: u32, base: u8) {
    image::RgbImage::from_fn(side, side, |x, y| {
        image::Rgb([
            base.wrapping_add(3 * x as u8),
            base.wrapping_add(2 * y as u8),
            base,
        ])
    })
    .save(path)
    .unwrap();
}

/// The smallest real run on [`image_folder`]; its number of epochs is the test's choice.
pub(crate) const TINY: &str =
    "train --data pets --width 0.03125 --batch 4 --set schedule.warmup_epochs=0";

/// The records of a run without their costs.
pub(crate) fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut records = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .collect::<Vec<_>>();
    for record in &mut records {
        let record = record.as_object_mut().unwrap();
        for costs in ["seconds", "samples_per_s", "peak_memory_bytes"] {
            assert!(record.remove(costs).is_some(), "{costs}");
        }
    }
    records
}
