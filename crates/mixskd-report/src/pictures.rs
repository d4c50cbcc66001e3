//! Which pictures a page shows, and where they come from: the run's own data, and its own weights where nobody wrote down what they say.

use std::path::Path;

use mixskd_analyze::{Classifier, predict};
use mixskd_data::Dataset;
use mixskd_train::{DeviceKind, Trainer, names};

use crate::cells::{Cell, Embedded};
use crate::predictions::{Answer, Predictions};
use crate::{Error, Result, Run};

/// Pictures of each kind on a page.
const COUNT: usize = 24;

/// Pictures of one run.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    /// Held-out images with the largest loss, largest first.
    pub(crate) worst: Vec<Embedded>,
    /// Training images as the network sees them.
    pub(crate) seen: Vec<Embedded>,
}

/// The data of a run, opened, and what does not change while it trains.
pub(crate) struct Source {
    dataset: Dataset,
    /// Side of the network's input.
    size: usize,
    seen: Vec<Embedded>,
}

impl Source {
    /// What `trainer` trains on.
    pub(crate) fn of(trainer: &Trainer) -> Result<Self> {
        Ok(Self {
            dataset: trainer.dataset().clone(),
            size: trainer.config().run.image_size,
            seen: embedded(&seen(trainer, COUNT)?)?,
        })
    }

    /// Names of the classes.
    pub(crate) fn classes(&self) -> &[String] {
        &self.dataset.classes
    }

    /// The files of the first `count` held-out images, where they are files.
    pub(crate) fn files(&self, count: usize) -> Vec<String> {
        files(&self.dataset, count)
    }

    /// Puts the pictures into `run`.
    pub(crate) fn fill(&self, run: &mut Run) -> Result<()> {
        run.pictures.seen.clone_from(&self.seen);
        let Some(predictions) = &run.predictions else {
            return Ok(());
        };
        if !fits(predictions, &self.dataset) {
            let changed = "The data are no longer those that the network was asked about: its worst images are not shown.";
            run.missing.push(changed.into());
            return Ok(());
        }
        let worst = predictions.worst(COUNT).into_iter();
        let cells = worst.map(|a| Cell::answered(&a, predictions, &self.dataset, self.size));
        run.pictures.worst = embedded(&cells.collect::<Result<Vec<_>>>()?)?;
        Ok(())
    }
}

fn files(dataset: &Dataset, count: usize) -> Vec<String> {
    let files: Option<_> = (0..count).map(|index| dataset.test.file(index)).collect();
    files.unwrap_or_default()
}

/// The first `count` training images as the network of `trainer` sees them.
pub(crate) fn seen(trainer: &Trainer, count: usize) -> Result<Vec<Cell>> {
    let seen = trainer.seen(count)?;
    let cell = |seen| Cell::seen(seen, trainer.dataset());
    seen.iter().map(cell).collect()
}

fn embedded(cells: &[Cell]) -> Result<Vec<Embedded>> {
    cells.iter().map(Cell::embedded).collect()
}

/// Whether `predictions` speak of the test images of `dataset`.
fn fits(predictions: &Predictions, dataset: &Dataset) -> bool {
    let same = |answer: &Answer| {
        answer.image < dataset.test.len()
            && dataset.test.label(answer.image) as usize == answer.label
            && dataset.classes.get(answer.label) == predictions.classes.get(answer.label)
    };
    predictions.answers.iter().all(same)
}

/// Finds what the run in `dir` does not hold itself: with `pictures` its pictures, and in any case what its network says of the held-out
/// images, where that was not written down. What cannot be had is said in `run`, and no error.
pub(crate) fn look(run: &mut Run, dir: &Path, pictures: bool) {
    if run.predictions.is_some() && !pictures {
        return;
    }
    if let Err(error) = try_to_look(run, dir, pictures) {
        run.missing.push(told(&error));
    }
}

/// What a page says of pictures that cannot be had.
pub(crate) fn told(error: &Error) -> String {
    format!(
        "Something is missing here: {}. `mixskd report` adds it once that is mended.",
        error.cause().replace('\n', " ")
    )
}

fn try_to_look(run: &mut Run, dir: &Path, pictures: bool) -> Result<()> {
    let mut config = run.config.clone();
    // Wherever it was trained: a few pictures are had anywhere.
    config.run.device = DeviceKind::Auto;
    let trainer = Trainer::at(&config, config.distribution.first_place())?;
    let weights = dir.join(names::MODEL_SAFETENSORS);
    if run.predictions.is_none() && weights.is_file() && !run.records.is_empty() {
        match ask(&weights, &trainer, run.records.len()) {
            Ok(predictions) => run.predictions = Some(predictions),
            Err(error) => run.missing.push(told(&error)),
        }
    }
    if pictures {
        Source::of(&trainer)?.fill(run)?;
    }
    Ok(())
}

/// What the network in `weights` says of the held-out images.
fn ask(weights: &Path, trainer: &Trainer, epoch: usize) -> Result<Predictions> {
    let dataset = trainer.dataset();
    let network = Classifier::open(weights, &DeviceKind::Auto.open()?)?;
    network.check_fit(dataset)?;
    let predictions = predict(&network, &dataset.test, trainer.config().run.eval_batch)?;
    Ok(Predictions {
        epoch,
        classes: dataset.classes.clone(),
        answers: predictions.iter().map(Answer::from).collect(),
        files: files(dataset, predictions.len()),
    })
}

/// The first `count` training images as the network of `trainer` sees them, on one sheet: a PNG file's bytes.
///
/// # Errors
/// When an image cannot be read.
pub fn preview(trainer: &Trainer, count: usize) -> Result<Vec<u8>> {
    let config = trainer.config();
    let title = format!(
        "{}, {}, seed {}",
        trainer.dataset().name,
        config.method_name(),
        config.run.seed
    );
    let cells = seen(trainer, count)?;
    if cells.is_empty() {
        return Err(Error::Picture("there is no image to show".into()));
    }
    crate::cells::sheet(&cells, &title)
}
