//! `mixskd data check`: what there is to know of a data set before it is trained on.

use std::fmt::Write as _;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mixskd_data::{Dataset, Duplicates, Samples};
use mixskd_train::{Observer, TrainConfig};
use rayon::prelude::*;
use serde::Serialize;

use super::super::shared::{DataArgs, ThreadArgs};
use crate::failure::{Failure, Result};
use crate::output;
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  mixskd data check --data pets                            every image of a folder: is it readable, is it there twice?
  mixskd data check --data pets --json | jq .leaked        test images that are training images, too

Exit status 1 where an image cannot be read: training would stop at it.";

/// Names of a list that are shown without `--json`.
const SHOWN: usize = 10;
/// Classes up to which each is shown without `--json`.
const FEW_CLASSES: usize = 25;

/// Flags of `mixskd data check`.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    /// Name of the data set.
    data: String,
    /// Classes with their numbers of images.
    classes: Vec<Class>,
    /// Training images.
    train: usize,
    /// Test images.
    test: usize,
    /// Channels of each.
    channels: usize,
    /// The smallest height and width that any image has, and the largest.
    size: Option<[[usize; 2]; 2]>,
    /// Side of the input that a network gets by default, in pixels.
    input: usize,
    /// Images that cannot be read, each with the reason.
    unreadable: Vec<String>,
    /// Unreadable images that --skip-unreadable leaves out, each with the reason.
    skipped: Vec<String>,
    /// Test images that are training images, too, byte for byte: the test image, the training image.
    leaked: Vec<[String; 2]>,
    /// Training images that are there as another class, too: the image, the first one like it.
    contradicting: Vec<[String; 2]>,
    /// Training images that are there more than once as the same class: the image, the first one like it.
    repeated: Vec<[String; 2]>,
    /// Test images that are there before as test images, as the same class or as another: the image, the first one like it.
    tested_twice: Vec<[String; 2]>,
    /// `leaked`, `contradicting`, `repeated` and `tested_twice` with their classes, to be read.
    #[serde(skip)]
    told: [Vec<String>; 4],
    /// What else there is to know.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Class {
    name: String,
    train: usize,
    test: usize,
}

impl Args {
    /// Reads all there is.
    pub(super) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        let data = self.data.apply(TrainConfig::default())?.data;
        let dataset = data.open()?;
        let read = Reading::of(&dataset);
        let checked = Checked::new(&dataset, read);
        if self.json {
            output::json(&checked)?;
        } else {
            let mut progress = Progress::new();
            for note in &dataset.notes {
                progress.notice(note);
            }
            drop(progress);
            output::line(&checked.text())?;
        }
        match checked.unreadable.len() {
            0 => Ok(()),
            count => Err(Failure::failed(
                format!(
                    "{}: {count} image{} cannot be read",
                    dataset.name,
                    if count == 1 { "" } else { "s" }
                ),
                Some("mend or remove what is listed, or train with --skip-unreadable".into()),
            )),
        }
    }
}

/// What reading every image has shown.
struct Reading {
    unreadable: Vec<String>,
    size: Option<[[usize; 2]; 2]>,
}

impl Reading {
    fn of(dataset: &Dataset) -> Self {
        let total = dataset.train.len() + dataset.test.len();
        let bar = bar(total, "{bar:24} {percent} %  reading images");
        let all = [&dataset.train, &dataset.test];
        let all = all.map(|side| Self::of_side(side.as_ref(), &bar));
        bar.finish_and_clear();
        let [mut train, test] = all;
        train.unreadable.extend(test.unreadable);
        train.size = merged(train.size, test.size);
        train
    }

    fn of_side(samples: &dyn Samples, bar: &ProgressBar) -> Self {
        let read = |index| {
            let size = match samples.view(index) {
                Some(view) => Ok([view.height, view.width]),
                None => (samples.image(index)).map(|image| [image.height, image.width]),
            };
            bar.inc(1);
            match size {
                Ok(size) => (None, Some([size, size])),
                Err(error) => (Some(told(error)), None),
            }
        };
        let read: Vec<_> = (0..samples.len()).into_par_iter().map(read).collect();
        let size = read.iter().map(|(_, size)| *size).fold(None, merged);
        let unreadable = read.into_iter().filter_map(|(reason, _)| reason);
        Self {
            unreadable: unreadable.collect(),
            size,
        }
    }
}

fn told(error: mixskd_data::Error) -> String {
    match error {
        mixskd_data::Error::Image {
            origin, message, ..
        } => format!("{origin}: {message}"),
        other => other.to_string(),
    }
}

/// The smallest and the largest of both, side by side.
fn merged(one: Option<[[usize; 2]; 2]>, two: Option<[[usize; 2]; 2]>) -> Option<[[usize; 2]; 2]> {
    let (Some([low, high]), Some([other_low, other_high])) = (one, two) else {
        return one.or(two);
    };
    let pair = |of: fn(usize, usize) -> usize, a: [usize; 2], b: [usize; 2]| {
        [of(a[0], b[0]), of(a[1], b[1])]
    };
    Some([
        pair(usize::min, low, other_low),
        pair(usize::max, high, other_high),
    ])
}

/// A bar of so many images, by `template` of indicatif's; hidden where nobody wants to see progress.
pub(super) fn bar(total: usize, template: &str) -> ProgressBar {
    if output::is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar
}

impl Checked {
    fn new(dataset: &Dataset, read: Reading) -> Self {
        let found = dataset.duplicates(u64::MAX).unwrap_or_default();
        let Duplicates {
            leaked,
            contradicting,
            repeated,
            tested_twice,
        } = found;
        let (train, test) = (dataset.train.as_ref(), dataset.test.as_ref());
        let lists = [
            (leaked, test, train),
            (contradicting, train, train),
            (repeated, train, train),
            (tested_twice, test, test),
        ];
        let named = |side: &dyn Samples, index| {
            let class = dataset.classes.get(side.label(index) as usize);
            let class = class.map_or("?", String::as_str);
            format!("{} ({class})", side.origin(index))
        };
        let told = lists.each_ref().map(|(found, side, others)| {
            let pair =
                |&(one, other)| format!("{} is {}", named(*side, one), named(*others, other));
            found.iter().map(pair).collect()
        });
        let [leaked, contradicting, repeated, tested_twice] = lists.map(|(found, side, others)| {
            let pair = |(one, other)| [side.origin(one), others.origin(other)];
            found.into_iter().map(pair).collect()
        });
        let [trained, tested] = dataset.class_images();
        let classes = dataset.classes.iter().zip(trained.into_iter().zip(tested));
        let class = |(name, (train, test)): (&String, (usize, usize))| Class {
            name: name.clone(),
            train,
            test,
        };
        Self {
            data: dataset.name.clone(),
            classes: classes.map(class).collect(),
            train: train.len(),
            test: test.len(),
            channels: dataset.channels,
            size: read.size,
            input: dataset.input_size(),
            unreadable: read.unreadable,
            skipped: dataset.skipped.clone(),
            leaked,
            contradicting,
            repeated,
            tested_twice,
            told,
            notes: dataset.notes.clone(),
        }
    }

    fn text(&self) -> String {
        let range = |of: fn(&Class) -> usize| {
            let counts = || self.classes.iter().map(of);
            let (fewest, most) = (counts().min(), counts().max());
            match (fewest.unwrap_or_default(), most.unwrap_or_default()) {
                (fewest, most) if fewest == most => format!("{most} of each class"),
                (fewest, most) => format!("{fewest} to {most} of each class"),
            }
        };
        let side = |[height, width]: [usize; 2]| format!("{width} × {height}");
        let size = match self.size {
            None => "not known".into(),
            Some([low, high]) if low == high => format!("all {} pixels", side(low)),
            Some([low, high]) => format!("{} to {} pixels", side(low), side(high)),
        };
        let colour = match self.channels {
            1 => "grey",
            _ => "colour",
        };
        let rows = [
            (
                "data",
                format!(
                    "{}, {} classes",
                    output::printable(&self.data),
                    self.classes.len()
                ),
            ),
            (
                "training",
                format!("{} images, {}", self.train, range(|c| c.train)),
            ),
            (
                "test",
                format!("{} images, {}", self.test, range(|c| c.test)),
            ),
            (
                "size",
                format!("{size}, {colour}; networks get {} pixels", self.input),
            ),
        ];
        let mut text = output::columns(&rows);
        let lists = [
            ("cannot be read", &self.unreadable),
            ("left out, as they cannot be read", &self.skipped),
            ("test images that are training images, too", &self.told[0]),
            (
                "training images that are there as another class, too",
                &self.told[1],
            ),
            (
                "training images that are there more than once",
                &self.told[2],
            ),
            ("test images that are there more than once", &self.told[3]),
        ];
        for (what, found) in lists {
            text.push_str(&list(what, found));
        }
        if self.classes.len() <= FEW_CLASSES {
            let head = ["class", "training", "test"].map(String::from).to_vec();
            let classes = self.classes.iter().map(|class| {
                vec![
                    output::printable(&class.name),
                    class.train.to_string(),
                    class.test.to_string(),
                ]
            });
            let rows: Vec<_> = std::iter::once(head).chain(classes).collect();
            text.push_str("\n\n");
            text.push_str(output::table(&rows).trim_end());
        }
        text
    }
}

/// The first of what was found, under what it is.
pub(super) fn list(what: &str, found: &[String]) -> String {
    let mut text = format!("\n{what}: {}", found.len());
    for line in found.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(&output::printable(line));
    }
    if found.len() > SHOWN {
        let _ = write!(
            text,
            "\n  and {} more: --json lists all",
            found.len() - SHOWN
        );
    }
    text
}
