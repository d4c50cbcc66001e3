//! `mixskd predict`: what trained weights see in picture files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use clap::{Parser, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use mixskd_analyze::Classifier;
use mixskd_data::{EXTENSIONS, Pipeline, image_files, read_image};
use mixskd_report::cell;
use rayon::prelude::*;
use serde::Serialize;

use super::shared::{ThreadArgs, existing_file};
use crate::failure::{Failure, Result};
use crate::{network, output};

/// Flags of `mixskd predict`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Weights file that `mixskd train` or `mixskd import` wrote; it says how pictures are prepared
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    weights: PathBuf,
    /// Most probable classes to print [default: 5, or all where there are fewer; 1 with --csv]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    topk: Option<u32>,
    /// Print the logits, too
    #[arg(long)]
    logits: bool,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a table of comma-separated values: file, rank, label, class, probability, error
    #[arg(long, conflicts_with = "logits")]
    csv: bool,
    /// Picture files: JPEG, PNG, WebP, BMP, TIFF, PPM or PGM, grey or colour, of any size; of a folder all in it and below
    #[arg(value_name = "IMAGE|DIR", required = true, value_hint = ValueHint::FilePath)]
    images: Vec<PathBuf>,
}

/// What is seen in one picture.
#[derive(Debug, Serialize)]
pub(crate) struct Prediction {
    /// The picture's file, as it was named.
    file: String,
    /// The most probable classes, most probable first.
    top: Vec<Guess>,
    /// The logit of every class.
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

/// One class.
#[derive(Debug, Serialize)]
pub(crate) struct Guess {
    /// The class's name.
    class: String,
    /// Its index.
    label: usize,
    /// Its softmax probability, a fraction.
    probability: f64,
}

/// What is said of a picture that could not be used.
#[derive(Debug, Serialize)]
struct Unused {
    file: String,
    error: String,
}

/// An element of the JSON document.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry {
    Seen(Prediction),
    Unused(Unused),
}

/// Pictures that are read at once, and that the network sees at once.
const BATCH: usize = 64;

/// The first line of a table.
const COLUMNS: &str = "file,rank,label,class,probability,error";

impl Args {
    /// Classifies every picture that can be read; the others are named at the end.
    pub(crate) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        let network = network::open(&self.weights, &network::device()?)?;
        let topk = self.topk(network.metadata.model.classes)?;
        let pipeline = network.pipeline()?;
        let (images, unlisted) = self.files();
        let tried = images.len() + unlisted.len();
        if self.csv {
            output::line(COLUMNS)?;
        }
        let (mut entries, mut failures) = (Vec::new(), Vec::new());
        let bar = bar(images.len());
        for files in images.chunks(BATCH) {
            let seen = self.predict(files, &network, &pipeline, topk)?;
            bar.suspend(|| {
                self.tell(files.iter().cloned().zip(seen), &mut entries, &mut failures)
            })?;
            bar.inc(files.len() as u64);
        }
        bar.finish_and_clear();
        let unlisted = unlisted
            .into_iter()
            .map(|(path, failure)| (path, Err(failure)));
        self.tell(unlisted, &mut entries, &mut failures)?;
        if self.json {
            output::json(&entries)?;
        }
        Failure::of_many(failures, tried, "images")
    }

    /// Prints what was seen in each file, or keeps it for the JSON document.
    fn tell(
        &self,
        seen: impl Iterator<Item = (PathBuf, Result<Prediction>)>,
        entries: &mut Vec<Entry>,
        failures: &mut Vec<Failure>,
    ) -> Result<()> {
        for (file, seen) in seen {
            let entry = match seen {
                Ok(prediction) => Entry::Seen(prediction),
                Err(failure) => {
                    let error = failure.cause().into();
                    failures.push(failure);
                    let file = file.display().to_string();
                    Entry::Unused(Unused { file, error })
                }
            };
            match entry {
                entry if self.json => entries.push(entry),
                entry if self.csv => output::bytes(entry.rows().as_bytes())?,
                Entry::Seen(prediction) => output::line(&prediction.text())?,
                Entry::Unused(_) => {}
            }
        }
        Ok(())
    }

    /// The files that are named, and those of folders that are; and the other folders with what is wrong with them.
    fn files(&self) -> (Vec<PathBuf>, Vec<(PathBuf, Failure)>) {
        let (mut files, mut failures) = (Vec::new(), Vec::new());
        for path in &self.images {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            match image_files(path) {
                Ok((found, _)) if found.is_empty() => {
                    let cause = format!("{}: holds no picture", path.display());
                    let hint = format!("{} files are pictures", EXTENSIONS.join(", "));
                    failures.push((path.clone(), Failure::usage(cause, hint)));
                }
                Ok((found, passed_over)) => {
                    files.extend(found);
                    if let Some(others) = passed_over {
                        let note = format!("note: {}: {others}", path.display());
                        output::progress(format_args!("{}", output::printable(&note)));
                    }
                }
                Err(error) => failures.push((path.clone(), error.into())),
            }
        }
        (files, failures)
    }

    fn topk(&self, classes: usize) -> Result<usize> {
        match self.topk {
            None if self.csv => Ok(1),
            None => Ok(classes.min(5)),
            Some(topk) if topk as usize <= classes => Ok(topk as usize),
            Some(topk) => {
                let cause = format!(
                    "--topk {topk}: {} knows only {classes} classes",
                    self.weights.display()
                );
                Err(Failure::usage(
                    cause,
                    format!("--topk {classes} prints them all"),
                ))
            }
        }
    }

    /// What is seen in each of `files`, or why it could not be used.
    fn predict(
        &self,
        files: &[PathBuf],
        network: &Classifier,
        pipeline: &Pipeline,
        topk: usize,
    ) -> Result<Vec<Result<Prediction>>> {
        let inputs: Vec<Result<Tensor>> =
            files.par_iter().map(|file| input(file, pipeline)).collect();
        let read: Vec<&Tensor> = inputs.iter().flatten().collect();
        let mut logits = Vec::new();
        if !read.is_empty() {
            let images = Tensor::cat(&read, 0)?.to_device(network.device())?;
            logits = network
                .logits(&images)?
                .to_dtype(DType::F32)?
                .to_vec2::<f32>()?;
        }
        let mut logits = logits.into_iter();
        let seen = files.iter().zip(inputs).map(|(file, input)| {
            input?;
            self.prediction(file, logits.next().unwrap_or_default(), network, topk)
        });
        Ok(seen.collect())
    }

    fn prediction(
        &self,
        file: &Path,
        logits: Vec<f32>,
        network: &Classifier,
        topk: usize,
    ) -> Result<Prediction> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            let cause = format!(
                "{}: the network answers with numbers that are not finite",
                file.display()
            );
            let hint = "are these weights of a run that diverged, or damaged? take another file with --weights";
            return Err(Failure::failed(cause, Some(hint.into())));
        }
        let top = most_probable(&logits, topk)
            .into_iter()
            .map(|(label, probability)| Guess {
                class: network.class(label),
                label,
                probability,
            })
            .collect();
        Ok(Prediction {
            file: file.display().to_string(),
            top,
            logits: self.logits.then_some(logits),
        })
    }
}

/// The picture in `file` as the network takes it, `[1, height, width, channels]`.
fn input(file: &Path, pipeline: &Pipeline) -> Result<Tensor> {
    let file = existing_file(file, "name picture files, or folders of them")?;
    // The data crate's hint is for sets of images: there is no --skip-unreadable here.
    let image = read_image(file, pipeline.channels()).map_err(|error| match error {
        mixskd_data::Error::Image {
            origin, message, ..
        } => Failure::failed(
            format!("{origin}: {message}"),
            Some(
                "JPEG, PNG, WebP, BMP, TIFF, PPM and PGM pictures are read; leave the file out, or mend it".into(),
            ),
        ),
        error => error.into(),
    })?;
    Ok(pipeline.tensor(&image)?)
}

/// Index and softmax probability of the `topk` largest logits, largest first, the smaller index first among equals.
fn most_probable(logits: &[f32], topk: usize) -> Vec<(usize, f64)> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exponentials = logits
        .iter()
        .map(|&z| (f64::from(z) - largest).exp())
        .collect::<Vec<_>>();
    let sum = exponentials.iter().sum::<f64>();
    let mut ranked = exponentials
        .into_iter()
        .map(|e| e / sum)
        .enumerate()
        .collect::<Vec<_>>();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(topk);
    ranked
}

impl Prediction {
    fn text(&self) -> String {
        let rows = self.top.iter().map(|guess| {
            let mut row = vec![
                format!("  {}", output::printable(&guess.class)),
                format!("{:.2} %", 100.0 * guess.probability),
            ];
            if let Some(logit) = self
                .logits
                .as_ref()
                .and_then(|logits| logits.get(guess.label))
            {
                row.push(format!("logit {logit:.4}"));
            }
            row
        });
        let mut text = output::printable(&self.file);
        let _ = write!(text, "\n{}", output::table(&rows.collect::<Vec<_>>()));
        text
    }
}

impl Entry {
    /// Its lines of the table.
    fn rows(&self) -> String {
        let mut rows = String::new();
        let _ = match self {
            Self::Seen(Prediction { file, top, .. }) => {
                let file = cell(file);
                top.iter().enumerate().try_for_each(|(rank, guess)| {
                    let class = cell(&guess.class);
                    let (rank, label, probability) = (rank + 1, guess.label, guess.probability);
                    writeln!(rows, "{file},{rank},{label},{class},{probability},")
                })
            }
            Self::Unused(Unused { file, error }) => {
                let file = cell(file);
                writeln!(rows, "{file},,,,,{}", cell(error))
            }
        };
        rows
    }
}

/// How many pictures are done, on a terminal and where there are more than are read at once.
fn bar(images: usize) -> ProgressBar {
    if images <= BATCH || output::is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(images as u64);
    match ProgressStyle::with_template("{bar:24} {pos} of {len} images, {eta} left") {
        Ok(style) => bar.with_style(style.progress_chars("━╸─")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logits_come_first_with_softmax_probabilities() {
        let top = most_probable(&[0.0, 3f32.ln(), 0.0], 2);
        assert_eq!((top[0].0, top[1].0), (1, 0));
        assert!(
            (top[0].1 - 0.6).abs() < 1e-6 && (top[1].1 - 0.2).abs() < 1e-6,
            "{top:?}"
        );
        assert_eq!(most_probable(&[1000.0, -1000.0], 1), [(0, 1.0)]);
    }
}
