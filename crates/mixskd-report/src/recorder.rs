//! Watches a run and writes what other programs read of it.

use std::path::PathBuf;

use mixskd_analyze::Prediction;
use mixskd_train::{EpochRecord, Observer, Report, RunStart, StepEvent, TestEvent, Trainer};

use crate::page::write_own;
use crate::pictures::Source;
use crate::predictions::{Answer, Predictions};
use crate::session::{Session, add_session};
use crate::tensorboard::EventFile;
use crate::{Error, METRICS_CSV, Result, csv, read_records, run_files};

/// Writes `run.json` when a run begins or goes on, `metrics.csv`, TensorBoard's event file and `report.html` beside `metrics.jsonl`
/// after each epoch, and passes everything on to another observer.
///
/// What cannot be written is told to that observer, once, and stops no run: `metrics.jsonl` holds the same.
pub struct Recorder<'a> {
    inner: &'a mut dyn Observer,
    session: Session,
    dir: PathBuf,
    records: Vec<EpochRecord>,
    events: Option<EventFile>,
    given_up: bool,
    no_page: bool,
    source: Option<Source>,
    /// Of the evaluation that is going on.
    answers: Vec<Answer>,
}

impl<'a> Recorder<'a> {
    /// A recorder before `inner`; `command` is what was typed to start the run.
    pub fn new(inner: &'a mut dyn Observer, command: &str) -> Self {
        Self {
            inner,
            session: Session::now(command),
            dir: PathBuf::new(),
            records: Vec::new(),
            events: None,
            given_up: false,
            no_page: false,
            source: None,
            answers: Vec::new(),
        }
    }

    /// Has `run.json` and the page say what was told before it was there.
    #[must_use]
    pub fn after(mut self, notices: Vec<String>) -> Self {
        self.session.notices = notices;
        self
    }

    /// Adds `predictions.csv` after each epoch, and to the page what of it can be drawn and pictures: of the training images as the network
    /// sees them, which are drawn now, and of the images that it classifies worst. The state of `trainer` does not change.
    #[must_use]
    pub fn with_pictures(mut self, trainer: &Trainer) -> Self {
        match Source::of(trainer) {
            Ok(source) => self.source = Some(source),
            Err(error) => self.notice(&format!(
                "{}; the run goes on without pictures in report.html",
                error.cause()
            )),
        }
        self
    }

    /// Has `run.json` and the page say what the run ended with.
    pub fn failed(&mut self, cause: &str) {
        if self.given_up || self.dir.as_os_str().is_empty() {
            return;
        }
        self.session.failure = Some(cause.into());
        if add_session(&self.dir, &self.session).is_ok() {
            self.draw();
        }
    }

    fn give_up(&mut self, error: &Error) {
        self.given_up = true;
        self.inner.notice(&format!(
            "{error}; the run goes on without run.json, metrics.csv, predictions.csv and TensorBoard's events, metrics.jsonl holds the same"
        ));
    }

    /// The page, from what lies in the directory.
    fn draw(&mut self) {
        if !self.given_up
            && !self.no_page
            && let Err(error) = write_own(&self.dir, self.source.as_ref())
        {
            self.notice(&format!("{error}; the run goes on without report.html"));
            self.no_page = true;
        }
    }

    fn record(&mut self, record: &EpochRecord) -> Result<()> {
        if let Some(source) = &self.source {
            let answers = std::mem::take(&mut self.answers);
            let predictions = Predictions {
                epoch: record.epoch,
                classes: source.classes().to_vec(),
                files: source.files(answers.len()),
                answers,
            };
            predictions.write(&self.dir)?;
        }
        // The trainer begins a run anew where it finds no whole checkpoint: its records are the truth.
        self.records.retain(|earlier| earlier.epoch < record.epoch);
        let events = if let Some(events) = &mut self.events {
            events
        } else {
            let mut events = EventFile::create(&self.dir)?;
            for earlier in &self.records {
                events.add(earlier)?;
            }
            self.events.insert(events)
        };
        events.add(record)?;
        self.records.push(record.clone());
        let table = csv::table(&self.records);
        run_files::write(&self.dir.join(METRICS_CSV), table.as_bytes())
    }
}

impl Observer for Recorder<'_> {
    fn started(&mut self, start: &RunStart) {
        self.inner.started(start);
        self.dir = start.dir.to_path_buf();
        self.session.first_epoch = start.first_epoch + 1;
        self.session.steps_before = start.first_step;
        match add_session(&self.dir, &self.session) {
            Ok(false) => {}
            Ok(true) => self.notice(
                "another build of mixskd began this run: what this one adds up may be rounded otherwise",
            ),
            Err(error) => self.give_up(&error),
        }
        if start.first_epoch > 0 {
            match read_records(start.dir) {
                Ok(records) => self.records = records,
                Err(error) => self.notice(&error.to_string()),
            }
            self.records.truncate(start.first_epoch);
        }
    }

    fn step(&mut self, event: &StepEvent) {
        self.inner.step(event);
    }

    fn tested(&mut self, event: &TestEvent) {
        self.inner.tested(event);
        if self.source.is_none() {
            return;
        }
        self.answers.truncate(event.first);
        let classes = event.logits.len() / event.labels.len().max(1);
        let rows = event.logits.chunks(classes.max(1)).zip(event.labels);
        self.answers
            .extend(rows.enumerate().map(|(at, (logits, &label))| {
                let index = event.first + at;
                Answer::from(&Prediction::new(index, label as usize, logits, 1.0))
            }));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        if !self.given_up
            && let Err(error) = self.record(record)
        {
            self.give_up(&error);
        }
        self.draw();
        self.inner.epoch(record);
    }

    fn finished(&mut self, report: &Report) {
        self.draw();
        self.inner.finished(report);
    }

    fn notice(&mut self, text: &str) {
        self.inner.notice(text);
        self.session.notices.push(text.into());
        // What cannot be written now has been told, and is tried again with the next.
        if !self.given_up && !self.dir.as_os_str().is_empty() {
            let _ = add_session(&self.dir, &self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::METRICS_JSONL;
    use crate::read_sessions;
    use crate::run_files::tests::record;
    use crate::tensorboard::tests::scalars;

    fn start(dir: &std::path::Path, first_epoch: usize) -> RunStart<'_> {
        RunStart {
            dir,
            first_epoch,
            first_step: 0,
            epochs: 4,
            steps: 10,
            batch: 8,
            input: 32,
        }
    }

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Observer for Told {
        fn epoch(&mut self, record: &EpochRecord) {
            self.0.push(format!("epoch {}", record.epoch));
        }
        fn notice(&mut self, text: &str) {
            self.0.push(text.into());
        }
    }

    #[test]
    fn a_resumed_run_leaves_one_event_file_with_every_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let config = mixskd_train::TrainConfig::default().to_toml().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let line = |epoch| serde_json::to_string(&record(epoch)).unwrap() + "\n";
        let mut told = Told::default();
        let mut recorder = Recorder::new(&mut told, "mixskd train");
        recorder.started(&start(dir.path(), 0));
        (1..=3).for_each(|epoch| recorder.epoch(&record(epoch)));
        std::fs::write(
            dir.path().join(METRICS_JSONL),
            [line(1), line(2), line(3)].concat(),
        )
        .unwrap();
        // The checkpoint of epoch 3 was lost: the run goes on inside it.
        let mut recorder = Recorder::new(&mut told, "mixskd train --resume");
        recorder.started(&RunStart {
            first_step: 7,
            ..start(dir.path(), 2)
        });
        (3..=4).for_each(|epoch| recorder.epoch(&record(epoch)));

        assert_eq!(
            told.0,
            ["epoch 1", "epoch 2", "epoch 3", "epoch 3", "epoch 4"]
        );
        let table = std::fs::read_to_string(dir.path().join(METRICS_CSV)).unwrap();
        let epochs: Vec<_> = table.lines().map(|line| line.split(',').next()).collect();
        assert_eq!(epochs[1..], ["1", "2", "3", "4"].map(Some));
        let steps: Vec<_> = scalars(dir.path())
            .into_iter()
            .filter(|(tag, _, _)| tag == "loss/total")
            .map(|(_, step, _)| step)
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        let sessions = read_sessions(dir.path()).unwrap();
        let began: Vec<_> = sessions
            .iter()
            .map(|session| (session.first_epoch, session.steps_before))
            .collect();
        assert_eq!(began, [(1, 0), (3, 7)]);
        assert!(dir.path().join(crate::REPORT_HTML).is_file());
    }

    #[test]
    fn what_cannot_be_written_is_told_once_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Told::default();
        let mut recorder = Recorder::new(&mut told, "mixskd train");
        recorder.started(&start(&dir.path().join("gone"), 0));
        (1..=2).for_each(|epoch| recorder.epoch(&record(epoch)));
        assert_eq!(told.0.len(), 3);
        assert!(told.0[0].contains("goes on without"), "{:?}", told.0);
    }
}
