//! A run directory as a report reads it.

use std::path::Path;

use mixskd_train::{EpochRecord, Report, TrainConfig, names};

use crate::pictures::Pictures;
use crate::predictions::Predictions;
use crate::{Error, Result, Session, read_records, read_sessions, run_files};

/// What a run directory says of its run. Whatever a run that was cut short never wrote is missing here, too.
pub struct Run {
    /// The directory's name.
    pub name: String,
    /// `config.toml`, as it is.
    pub config_text: String,
    /// The same, read.
    pub config: TrainConfig,
    /// Every finished epoch.
    pub records: Vec<EpochRecord>,
    /// Who worked on it, where.
    pub sessions: Vec<Session>,
    /// The result of a run that came to its end.
    pub report: Option<Report>,
    /// What the network says of the held-out images.
    pub predictions: Option<Predictions>,
    pub(crate) pictures: Pictures,
    /// What a page of it lacks, and why.
    pub(crate) missing: Vec<String>,
}

impl Run {
    /// Reads the run in `dir`.
    ///
    /// # Errors
    /// When `dir` holds no run, or one of its files cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(names::CONFIG_TOML);
        let config_text = match run_files::read_text(&path) {
            Ok(Some(text)) => text,
            // The directory is a file, or not there, or another one.
            _ if !path.exists() => {
                return Err(Error::NoRun {
                    path: dir.to_path_buf(),
                    exists: dir.exists(),
                });
            }
            Ok(None) => String::new(),
            Err(error) => return Err(error),
        };
        if config_text.trim().is_empty() {
            let message = "is empty".into();
            return Err(Error::Damaged { path, message });
        }
        let config = TrainConfig::from_file(&path)?;
        let records = read_records(dir)?;
        let absolute = std::fs::canonicalize(dir);
        let named = absolute.as_deref().unwrap_or(dir).file_name();
        // What the network says can be had again, from its weights.
        let (predictions, missing) = match Predictions::read(dir) {
            Ok(found) => (found, Vec::new()),
            Err(error) => (None, vec![format!("{}: left out.", error.cause())]),
        };
        Ok(Self {
            name: named.map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into()),
            config_text,
            config,
            sessions: read_sessions(dir)?,
            report: read_json::<Report>(&dir.join(names::REPORT_JSON))?
                .filter(|report| report.epochs == records.len()),
            // Of epochs that were lost since, nothing is told.
            predictions: predictions.filter(|found| found.epoch <= records.len()),
            records,
            pictures: Pictures::default(),
            missing,
        })
    }

    /// Every loss term's name, in the order of the alphabet.
    pub(crate) fn terms(&self) -> Vec<&str> {
        let all = self.records.iter().flat_map(|record| record.terms.keys());
        let mut terms: Vec<_> = all.map(String::as_str).collect();
        terms.sort_unstable();
        terms.dedup();
        terms
    }

    /// Every head's name, the backbone first.
    pub(crate) fn heads(&self) -> Vec<&str> {
        let mut heads: Vec<&str> = Vec::new();
        for head in self.records.iter().flat_map(|record| &record.heads) {
            if !heads.contains(&head.name.as_str()) {
                heads.push(&head.name);
            }
        }
        heads
    }
}

/// What the JSON file `path` holds; nothing where it is not there.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = run_files::read_text(path)? else {
        return Ok(None);
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Damaged {
            path: path.to_path_buf(),
            message: error.to_string(),
        })
}
