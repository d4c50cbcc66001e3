//! How many epochs each entry gets when all get the same time.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CompareConfig, Done};
use crate::{Error, Result, files};

const FILE: &str = "equal-time.toml";

/// The epochs of the second table, from the training times measured in the first. Kept in a file, so that a comparison taken up
/// again goes on with the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EqualTime {
    /// Milliseconds of training an image takes, evaluation excluded: the median over seeds, by entry.
    milliseconds_per_image: BTreeMap<String, f64>,
    /// Epochs, by entry.
    epochs: BTreeMap<String, usize>,
}

impl EqualTime {
    /// Reads the plan of these entries, or makes it of what the first table's runs took; `None` while no run is done.
    pub(super) fn settle(dir: &Path, config: &CompareConfig, done: &Done) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let Some(fresh) = Self::measure(config, done) else {
            return Ok(None);
        };
        let stored = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| toml::from_str::<Self>(&text).ok());
        // Another set of entries may have another costliest.
        if let Some(stored) = stored
            && stored.epochs.keys().eq(fresh.epochs.keys())
        {
            return Ok(Some(stored));
        }
        let text = toml::to_string(&fresh).map_err(|e| Error::config(FILE, e.to_string()))?;
        files::write_atomically(&path, text.as_bytes())?;
        Ok(Some(fresh))
    }

    fn measure(config: &CompareConfig, done: &Done) -> Option<Self> {
        let mut times = BTreeMap::<String, Vec<f64>>::new();
        for (entry, report) in done {
            let name = config.entries[*entry].name.clone();
            let time = 1e3 / report.samples_per_s.max(f64::MIN_POSITIVE);
            times.entry(name).or_default().push(time);
        }
        let times: BTreeMap<_, _> = times
            .into_iter()
            .map(|(name, times)| (name, median(times)))
            .collect();
        let most = times.values().copied().reduce(f64::max)?;
        let first = config.settings.run.epochs;
        let epochs = times
            .iter()
            .map(|(name, time)| (name.clone(), (first as f64 * most / time).round() as usize))
            .collect();
        Some(Self {
            milliseconds_per_image: times,
            epochs,
        })
    }

    pub(super) fn epochs_of(&self, entry: &str) -> Option<usize> {
        self.epochs.get(entry).copied()
    }

    /// Entries with their epochs.
    pub(super) fn epochs(&self) -> Vec<(String, usize)> {
        self.epochs.iter().map(|(n, e)| (n.clone(), *e)).collect()
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        values[half]
    } else {
        0.5 * (values[half - 1] + values[half])
    }
}
