//! `mixskd data shrink`: a copy of a folder whose pictures are smaller.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Parser, ValueHint};
use indicatif::HumanBytes;
use mixskd_data::{Shrink, ShrinkConfig, Shrunk};
use mixskd_train::shell_word;
use serde::Serialize;

use super::super::shared::ThreadArgs;
use super::check::{bar, list};
use crate::failure::{Failure, Result};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  mixskd data shrink --data pets --out pets-512               enough for networks at 224 pixels
  mixskd data shrink --data pets --out pets-320 --side 320

A network sees 224 × 224 pixels of a photograph of 4000 × 3000, and nearly all of the time that it
takes to load is decoding. The folder itself is not changed. The same command goes on where it was
stopped.

Exit status 1 where a picture cannot be read, which is then not in the copy, and where the copy
holds a picture that comes of no original.";

/// Flags of `mixskd data shrink`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder of pictures, of any layout
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: PathBuf,
    /// The copy's folder: a new one, or that of the same command before
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Shorter side of pictures that are larger, in pixels, 16 to 8192; smaller ones are copied as they are. Of a test image 8/7 of the network's input are needed
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(16..=8192))]
    side: u16,
    /// Quality of JPEG files, 1 to 100; other pictures become PNG
    #[arg(long, value_name = "N", default_value_t = ShrinkConfig::default().quality, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Leave unreadable pictures out and name them, instead of failing in the end
    #[arg(long)]
    skip_unreadable: bool,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Told<'a> {
    /// The copy.
    out: String,
    /// Pictures that were made smaller.
    scaled: usize,
    /// Pictures that were copied as they are.
    copied: usize,
    /// Pictures that were there already.
    there: usize,
    /// Files that are no pictures, and were copied.
    others: usize,
    /// Those that were not.
    left_out: Vec<String>,
    /// Pictures in the copy that come of no original.
    strange: Vec<String>,
    /// Pictures that cannot be read and are not in the copy, each with the reason.
    unreadable: &'a [String],
    /// Bytes of all pictures before and after.
    bytes: [u64; 2],
}

impl Args {
    /// Makes the copy.
    pub(super) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        let config = ShrinkConfig {
            side: self.side.into(),
            quality: self.quality,
        };
        let shrink = Shrink::new(config, &self.data, &self.out)?;
        let template = "{bar:24} {percent} %  {pos} of {len} pictures, {eta} left";
        let bar = bar(shrink.images(), template);
        let shrunk = shrink.run(|_| bar.inc(1));
        bar.finish_and_clear();
        let shrunk = shrunk?;
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let names = paths.iter().map(|path| path.display().to_string());
            names.collect()
        };
        let (left_out, strange) = (names(&shrunk.left_out), names(&shrunk.strange));
        if self.json {
            output::json(&Told {
                out: self.out.display().to_string(),
                scaled: shrunk.scaled,
                copied: shrunk.copied,
                there: shrunk.there,
                others: shrunk.others,
                left_out,
                strange,
                unreadable: &shrunk.unreadable,
                bytes: [shrunk.bytes_before, shrunk.bytes_after],
            })?;
        } else {
            output::line(&self.text(&shrunk, [&left_out, &strange]))?;
        }
        if !shrunk.strange.is_empty() {
            return Err(Failure::failed(
                format!(
                    "{}: {} of its pictures come of no original, or of one that cannot be read any more",
                    self.out.display(),
                    shrunk.strange.len()
                ),
                Some("remove what is listed, or make a new copy: training would see them".into()),
            ));
        }
        match shrunk.unreadable.len() {
            0 => Ok(()),
            _ if self.skip_unreadable => Ok(()),
            count => Err(Failure::failed(
                format!(
                    "{}: {count} picture{} cannot be read",
                    self.data.display(),
                    if count == 1 { "" } else { "s" }
                ),
                Some(
                    "all others are in the copy; mend or remove what is listed and run the same again, or add --skip-unreadable"
                        .into(),
                ),
            )),
        }
    }

    fn text(&self, shrunk: &Shrunk, [left_out, strange]: [&Vec<String>; 2]) -> String {
        let all = shrunk.scaled + shrunk.copied + shrunk.there;
        let mut rows = vec![(
            "copy",
            format!(
                "{}, {all} pictures",
                output::printable(&self.out.display().to_string())
            ),
        )];
        rows.push((
            "smaller",
            format!(
                "{} with a shorter side of {} pixels",
                shrunk.scaled, self.side
            ),
        ));
        if shrunk.copied > 0 {
            rows.push(("as they are", format!("{}, no larger", shrunk.copied)));
        }
        if shrunk.there > 0 {
            rows.push(("there before", shrunk.there.to_string()));
        }
        if shrunk.others > 0 {
            rows.push(("other files", format!("{}, copied", shrunk.others)));
        }
        let bytes = [shrunk.bytes_before, shrunk.bytes_after].map(HumanBytes);
        rows.push(("size", format!("{} before, {} after", bytes[0], bytes[1])));
        let mut text = output::columns(&rows);
        for (what, found) in [
            (
                "cannot be read, not in the copy",
                shrunk.unreadable.as_slice(),
            ),
            (
                "no pictures that are read, and longer than 16 MiB or no files: not in the copy",
                left_out.as_slice(),
            ),
            ("in the copy, of no original", strange.as_slice()),
        ] {
            if !found.is_empty() {
                text.push_str(&list(what, found));
            }
        }
        let is_whole = shrunk.unreadable.is_empty() || self.skip_unreadable;
        if is_whole && strange.is_empty() {
            let data = shell_word(&self.out.display().to_string());
            let _ = write!(text, "\n\nnext: mixskd train --data {data}");
        }
        text
    }
}
