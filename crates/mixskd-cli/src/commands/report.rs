//! `mixskd report`: the page of one run, or of several laid over each other.

use std::path::PathBuf;

use clap::{Parser, ValueHint};
use mixskd_report::{REPORT_HTML, write_page_of};
use mixskd_train::Observer;
use serde_json::json;

use super::shared::has_ending;
use crate::failure::Result;
use crate::output;
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  mixskd report runs/001-mixskd-cifar_resnet18-fashion-mnist-mini
  mixskd report runs/001-ce runs/002-mixup runs/003-mixskd --out three.html";

/// Flags of `mixskd report`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Run directories that `mixskd train` wrote
    #[arg(value_name = "DIR", required = true, value_hint = ValueHint::DirPath)]
    dirs: Vec<PathBuf>,
    /// The page [default: report.html, in the directory of a single run, else here]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Writes the page.
    pub(crate) fn run(&self) -> Result<()> {
        let out = match (&self.out, self.dirs.as_slice()) {
            (Some(out), _) => out.clone(),
            (None, [dir]) => dir.join(REPORT_HTML),
            (None, _) => PathBuf::from(REPORT_HTML),
        };
        has_ending(&out, "--out", "html")?;
        let mut progress = Progress::new();
        for missing in write_page_of(&self.dirs, &out)? {
            progress.notice(&missing);
        }
        if self.json {
            return output::json(&json!({ "runs": self.dirs, "page": out }));
        }
        output::line(&out.display().to_string())
    }
}
