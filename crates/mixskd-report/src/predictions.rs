//! What the kept network says of every held-out image: a table that other programs read, too.

use std::fmt::Write as _;
use std::path::Path;

use mixskd_analyze::Prediction;

use mixskd_train::names::PREDICTIONS_CSV;

use crate::csv::cell;
use crate::{Error, Result, run_files};

/// Of every table; one of image files has [`FILE`] behind them.
const COLUMNS: [&str; 8] = [
    "epoch",
    "image",
    "label",
    "class",
    "predicted",
    "predicted_class",
    "confidence",
    "loss",
];
const FILE: &str = "file";

/// What a network says of the held-out images.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// After which epoch, counted from 1.
    pub epoch: usize,
    /// Names of the classes, in label order, at least up to the largest label.
    pub classes: Vec<String>,
    /// Every image.
    pub answers: Vec<Answer>,
    /// The file of each answer, below the data set's folder; empty where images are no files.
    pub files: Vec<String>,
}

/// What a network says of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Index among the held-out images.
    pub image: usize,
    /// Its class.
    pub label: usize,
    /// The class that the network holds most probable.
    pub predicted: usize,
    /// Softmax probability of that class.
    pub confidence: f64,
    /// Cross-entropy in nats: minus the logarithm of the probability of the image's own class.
    pub loss: f64,
}

impl From<&Prediction> for Answer {
    fn from(prediction: &Prediction) -> Self {
        Self {
            image: prediction.index,
            label: prediction.label,
            predicted: prediction.predicted,
            confidence: prediction.confidence(),
            loss: -prediction.log_likelihood,
        }
    }
}

impl Predictions {
    /// The images on which the loss is largest, largest first, the smaller index first among equals.
    pub(crate) fn worst(&self, at_most: usize) -> Vec<Answer> {
        let mut ranked = self.answers.clone();
        ranked.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.image.cmp(&b.image)));
        ranked.truncate(at_most);
        ranked
    }

    /// The table of the run in `dir`; nothing where it has none.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is no such table.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(PREDICTIONS_CSV);
        let Some(text) = run_files::read_text(&path)? else {
            return Ok(None);
        };
        Self::parse(&text)
            .map(Some)
            .map_err(|message| Error::Damaged { path, message })
    }

    /// Writes the table into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        run_files::write(&dir.join(PREDICTIONS_CSV), self.table().as_bytes())
    }

    fn table(&self) -> String {
        let mut text = COLUMNS.join(",");
        if !self.files.is_empty() {
            let _ = write!(text, ",{FILE}");
        }
        text.push('\n');
        let name = |label: usize| {
            self.classes
                .get(label)
                .map_or(String::new(), |name| cell(name))
        };
        for (at, answer) in self.answers.iter().enumerate() {
            let _ = write!(
                text,
                "{},{},{},{},{},{},{},{}",
                self.epoch,
                answer.image,
                answer.label,
                name(answer.label),
                answer.predicted,
                name(answer.predicted),
                answer.confidence,
                answer.loss
            );
            if let Some(file) = self.files.get(at) {
                let _ = write!(text, ",{}", cell(file));
            }
            text.push('\n');
        }
        text
    }

    /// Reads [`Self::table`]'s text. A class of which no line speaks is called by its number.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut rows = rows(text)?.into_iter();
        let mut columns = rows.next().unwrap_or_default();
        let with_files = columns.len() > COLUMNS.len();
        if with_files && columns.pop().is_some_and(|last| last != FILE) || columns != COLUMNS {
            return Err(format!("does not begin with `{}`", COLUMNS.join(",")));
        }
        let mut found = Self {
            epoch: 0,
            classes: Vec::new(),
            answers: Vec::new(),
            files: Vec::new(),
        };
        for (at, mut row) in rows.enumerate() {
            let wrong = |what: &str| format!("line {}: {what}", at + 2);
            if with_files {
                found.files.extend(row.pop());
            }
            let [
                epoch,
                image,
                label,
                class,
                predicted,
                taken_for,
                confidence,
                loss,
            ] = <[String; 8]>::try_from(row).map_err(|_| wrong("wanted a value in each column"))?;
            let count = |text: &str| {
                let number = text.parse::<usize>().ok();
                number.ok_or_else(|| wrong(&format!("`{text}` is no count")))
            };
            let number = |text: &str| {
                let number = text.parse::<f64>().ok().filter(|n| !n.is_nan());
                number.ok_or_else(|| wrong(&format!("`{text}` is no number")))
            };
            let answer = Answer {
                image: count(&image)?,
                label: count(&label)?,
                predicted: count(&predicted)?,
                confidence: number(&confidence)?,
                loss: number(&loss)?,
            };
            found.epoch = count(&epoch)?;
            for (label, name) in [(answer.label, class), (answer.predicted, taken_for)] {
                if label >= MOST_CLASSES {
                    return Err(wrong(&format!("there is no class {label}")));
                }
                while found.classes.len() <= label {
                    found.classes.push(found.classes.len().to_string());
                }
                if !name.is_empty() {
                    found.classes[label] = name;
                }
            }
            found.answers.push(answer);
        }
        Ok(found)
    }
}

/// A damaged number is not to ask for names that no memory holds.
const MOST_CLASSES: usize = 1_000_000;

/// The cells of a table with quotes (RFC 4180).
fn rows(text: &str) -> std::result::Result<Vec<Vec<String>>, String> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        match (quoted, letter) {
            (true, '"') if letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            (_, '"') => quoted = !quoted,
            (false, ',') => row.push(std::mem::take(&mut cell)),
            (false, '\n') => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (_, letter) => cell.push(letter),
        }
    }
    if quoted || !row.is_empty() || !cell.is_empty() {
        return Err("its last line is not whole".into());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions() -> Predictions {
        let answer = |image, label, predicted, loss| Answer {
            image,
            label,
            predicted,
            confidence: 0.1 + 0.2,
            loss,
        };
        Predictions {
            epoch: 7,
            classes: ["a", "b, \"c\"\nd", "e"].map(String::from).to_vec(),
            answers: vec![
                answer(0, 0, 0, 0.5),
                answer(1, 1, 2, 4.0),
                answer(2, 1, 1, 4.0),
            ],
            files: Vec::new(),
        }
    }

    #[test]
    fn the_table_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Predictions::read(dir.path()).unwrap(), None);
        predictions().write(dir.path()).unwrap();
        assert_eq!(Predictions::read(dir.path()).unwrap(), Some(predictions()));
        let files = ["val/a/0.png", "val/b, \"c\"\nd/1.png", ""];
        let of_files = Predictions {
            files: files.map(String::from).to_vec(),
            ..predictions()
        };
        of_files.write(dir.path()).unwrap();
        assert_eq!(Predictions::read(dir.path()).unwrap(), Some(of_files));
        let worst: Vec<_> = predictions().worst(2).iter().map(|a| a.image).collect();
        assert_eq!(worst, [1, 2]);
    }

    #[test]
    fn what_is_no_such_table_is_told_with_its_line() {
        let table = predictions().table();
        for (text, told) in [
            (String::new(), "does not begin"),
            (table.replace("epoch,", "step,"), "does not begin"),
            (table.replace(",loss", ",loss,place"), "does not begin"),
            (table[..table.len() - 4].into(), "not whole"),
            (table.replace("7,0,0", "7,0,x"), "line 2: `x` is no count"),
            (table.replace("7,0,0", "7,0,999999999999"), "no class"),
            (table.replace(",0.5", ",NaN"), "line 2: `NaN`"),
            (table.replace("7,0,0", "0,0"), "line 2: wanted a value"),
        ] {
            let error = Predictions::parse(&text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
