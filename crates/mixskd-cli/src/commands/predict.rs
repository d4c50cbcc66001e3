//! `mixskd predict`: what trained weights see in picture files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use clap::{Parser, ValueHint};
use mixskd_data::{EXTENSIONS, Pipeline, image_files, read_image};
use serde::Serialize;

use super::shared::{ThreadArgs, existing_file};
use crate::failure::{Failure, Result};
use crate::network::Network;
use crate::output;

/// Flags of `mixskd predict`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Weights file that `mixskd train` wrote; it says how pictures are prepared
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    weights: PathBuf,
    /// Most probable classes to print [default: 5, or all where there are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    topk: Option<u32>,
    /// Print the logits, too
    #[arg(long)]
    logits: bool,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
    /// Picture files: JPEG, PNG, WebP or BMP, grey or colour, of any size; of a folder all in it and below
    #[arg(value_name = "IMAGE|DIR", required = true, value_hint = ValueHint::FilePath)]
    images: Vec<PathBuf>,
}

/// What is seen in one picture.
#[derive(Debug, Serialize)]
pub(crate) struct Prediction {
    /// The picture's file, as it was named.
    file: PathBuf,
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

impl Args {
    /// Classifies every picture that can be read; the others are named at the end.
    pub(crate) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        let network = Network::open(&self.weights)?;
        let topk = self.topk(network.metadata.model.classes)?;
        let pipeline = network.pipeline()?;
        let mut predictions = Vec::new();
        let (images, mut failures) = self.files();
        let tried = images.len() + failures.len();
        for file in &images {
            match self.predict(file, &network, &pipeline, topk) {
                Ok(prediction) if self.json => predictions.push(prediction),
                Ok(prediction) => output::line(&prediction.text())?,
                Err(failure) => failures.push(failure),
            }
        }
        if self.json {
            output::json(&predictions)?;
        }
        Failure::of_many(failures, tried, "images")
    }

    /// The files that are named, and those of folders that are; and what is wrong with the other folders.
    fn files(&self) -> (Vec<PathBuf>, Vec<Failure>) {
        let (mut files, mut failures) = (Vec::new(), Vec::new());
        for path in &self.images {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            match image_files(path) {
                Ok(found) if found.is_empty() => {
                    let cause = format!("{}: holds no picture", path.display());
                    let hint = format!("{} files are pictures", EXTENSIONS.join(", "));
                    failures.push(Failure::usage(cause, hint));
                }
                Ok(found) => files.extend(found),
                Err(error) => failures.push(error.into()),
            }
        }
        (files, failures)
    }

    fn topk(&self, classes: usize) -> Result<usize> {
        match self.topk {
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

    fn predict(
        &self,
        file: &Path,
        network: &Network,
        pipeline: &Pipeline,
        topk: usize,
    ) -> Result<Prediction> {
        let file = existing_file(file, "name picture files, such as photos/*.jpg")?;
        // The data crate's hint is for sets of images: there is no --skip-unreadable here.
        let image = read_image(file, pipeline.channels()).map_err(|error| match error {
            mixskd_data::Error::Image {
                origin, message, ..
            } => Failure::failed(
                format!("{origin}: {message}"),
                Some(
                    "JPEG, PNG, WebP and BMP pictures are read; leave the file out, or mend it"
                        .into(),
                ),
            ),
            error => error.into(),
        })?;
        let images = pipeline.tensor(&image)?.to_device(&network.device)?;
        let logits: Tensor = network.logits(&images)?.squeeze(0)?.to_dtype(DType::F32)?;
        let logits = logits.to_vec1::<f32>()?;
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
            file: file.to_path_buf(),
            top,
            logits: self.logits.then_some(logits),
        })
    }
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
                format!("  {}", guess.class),
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
        let mut text = self.file.display().to_string();
        let _ = write!(text, "\n{}", output::table(&rows.collect::<Vec<_>>()));
        text
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
