//! `mixskd eval`: how well trained weights classify a set's test images.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Error;
use clap::{Parser, ValueHint};
use mixskd_data::{Loader, LoaderConfig, Samples, test_images};
use mixskd_train::{Observer, evaluate, method};
use serde::Serialize;

use super::shared::{DATA_HELP, DataArgs, ThreadArgs, other_split, tell_of_data};
use crate::failure::{Failure, Result};
use crate::progress::{Progress, percent};
use crate::{network, output};

/// Images that go through the network at once.
const BATCH: usize = 250;

/// Flags of `mixskd eval`.
#[derive(Debug, Parser)]
#[command(mut_arg("data", |arg| arg.help(DATA_HELP)))]
pub(crate) struct Args {
    /// Weights file that `mixskd train` or `mixskd import` wrote
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    weights: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Test all pictures of a folder of CLASS/IMAGE instead; its classes are the weights' or some of them
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["data", "val_fraction", "split_seed", "skip_unreadable", "labels"])]
    images: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Evaluation {
    /// The weights file.
    weights: PathBuf,
    /// Name of the network.
    model: String,
    /// Name of the data set.
    data: String,
    /// Number of classes.
    classes: usize,
    /// Test images.
    images: usize,
    /// Fraction of images whose class is the most probable one.
    top1: f64,
    /// Fraction of images whose class is among the five most probable.
    top5: f64,
    /// Mean over classes of the fraction of their images whose class is the most probable one; classes without a test image are left out.
    balanced: f64,
    /// Test images of the class that has the fewest, and of that which has the most, classes without one left out.
    class_images: (usize, usize),
    /// Mean cross-entropy in nats.
    loss: f64,
    /// Seconds of reading and classifying.
    seconds: f64,
    /// Images per second.
    samples_per_s: f64,
}

impl Args {
    /// Scores the weights.
    pub(crate) fn run(&self) -> Result<()> {
        self.threads.apply()?;
        let device = network::device()?;
        let network = network::open(&self.weights, &device)?;
        let (data, test): (String, Arc<dyn Samples>) = if let Some(dir) = &self.images {
            if !dir.is_dir() {
                return Err(Failure::usage(
                    format!("{}: is no folder", dir.display()),
                    "name a folder of class folders: CLASS/IMAGE",
                ));
            }
            let known = &network.metadata.model;
            let classes: Vec<_> = (0..known.classes)
                .map(|label| network.class(label))
                .collect();
            let name = dir.display().to_string();
            let (samples, note) = test_images(dir, &classes, known.channels)?;
            if let Some(note) = note {
                Progress::new().notice(&note);
            }
            (name, Arc::new(samples))
        } else {
            let weights = std::iter::once(self.weights.as_path());
            let (data, dataset, told) = self.data.open_for(weights)?;
            let mut progress = Progress::new();
            for text in told.into_iter().chain(other_split(&self.weights, &data)) {
                progress.notice(&text);
            }
            network.check_fit(&dataset)?;
            tell_of_data(&dataset, &mut progress);
            (dataset.name.clone(), dataset.test)
        };
        let config = LoaderConfig {
            batch: BATCH,
            shuffle: false,
            drop_last: false,
            ..LoaderConfig::default()
        };
        let loader = Loader::new(test.clone(), network.pipeline()?, config)?;

        let started = Instant::now();
        let heads = |images: &_| {
            let logits = network.logits(images).map_err(Error::wrap)?;
            Ok(vec![(method::BACKBONE.to_string(), logits)])
        };
        let scores = evaluate(heads, &loader, &device).map_err(|error| match error {
            // The data crate's hint is for sets of images: there is no --skip-unreadable beside --images.
            mixskd_train::Error::Data(mixskd_data::Error::Image {
                origin, message, ..
            }) if self.images.is_some() => Failure::failed(
                format!("{origin}: {message}"),
                Some("mend it, or take it out of the folder".into()),
            ),
            error => error.into(),
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let Some(score) = scores.first() else {
            return Err(Failure::failed(
                format!("{data}: there is no test image"),
                None,
            ));
        };
        if !score.loss.is_finite() {
            let cause = format!(
                "{}: its loss on {data} is {}",
                self.weights.display(),
                score.loss
            );
            let hint = "are these weights of a run that diverged, or damaged? take another file with --weights";
            return Err(Failure::failed(cause, Some(hint.into())));
        }
        let evaluation = Evaluation {
            weights: self.weights.clone(),
            model: network.metadata.model.name.clone(),
            data,
            classes: network.metadata.model.classes,
            images: test.len(),
            top1: score.top1,
            top5: score.top5,
            balanced: score.balanced.unwrap_or_default(),
            class_images: class_images(test.as_ref()),
            loss: score.loss,
            seconds,
            samples_per_s: test.len() as f64 / seconds.max(f64::MIN_POSITIVE),
        };
        if self.json {
            output::json(&evaluation)
        } else {
            output::line(&evaluation.text())
        }
    }
}

/// The fewest and the most images that a class has, of those that have any.
fn class_images(samples: &dyn Samples) -> (usize, usize) {
    let mut counts = BTreeMap::new();
    for index in 0..samples.len() {
        *counts.entry(samples.label(index)).or_insert(0) += 1;
    }
    let of = |count: Option<&usize>| count.copied().unwrap_or_default();
    (of(counts.values().min()), of(counts.values().max()))
}

impl Evaluation {
    fn text(&self) -> String {
        let mut rows = vec![
            ("model", self.model.clone()),
            (
                "data",
                format!(
                    "{}, {} test images of {} classes",
                    self.data, self.images, self.classes
                ),
            ),
            ("top-1", percent(self.top1)),
            ("top-5", percent(self.top5)),
            ("loss", format!("{:.4}", self.loss)),
            ("speed", format!("{:.0} images/s", self.samples_per_s)),
        ];
        let (fewest, most) = self.class_images;
        if fewest != most {
            let balanced = format!(
                "{} (the mean over classes, which have {fewest} to {most} test images)",
                percent(self.balanced)
            );
            rows.insert(4, ("balanced", balanced));
        }
        output::columns(&rows)
    }
}
