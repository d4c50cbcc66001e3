//! How many epochs each entry gets when all get the same time.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CompareConfig, Done};
use crate::{Error, Report, Result, files};

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
        let rate = |(entry, report): &(usize, Report)| {
            (config.entries[*entry].name.clone(), report.samples_per_s)
        };
        Self::plan(config.settings.run.epochs, done.iter().map(rate))
    }

    /// For every entry as many epochs as fit the time that `epochs` epochs take of the slowest, from images per second of each
    /// run, by entry. `None` without a run.
    fn plan(epochs: usize, rates: impl Iterator<Item = (String, f64)>) -> Option<Self> {
        let mut times = BTreeMap::<String, Vec<f64>>::new();
        for (name, rate) in rates {
            let time = 1e3 / rate.max(f64::MIN_POSITIVE);
            times.entry(name).or_default().push(time);
        }
        let times: BTreeMap<_, _> = times
            .into_iter()
            .map(|(name, times)| (name, median(times)))
            .collect();
        let most = times.values().copied().reduce(f64::max)?;
        let epochs = times
            .iter()
            .map(|(name, time)| (name.clone(), (epochs as f64 * most / time).round() as usize))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_the_epochs_that_fit_the_slowest_ones_time() {
        let rates = [
            ("ce", 900.0),
            ("ce", 1000.0),
            ("ce", 10.0),
            ("mixup", 800.0),
            ("mixskd", 200.0),
            ("mixskd", 160.0),
        ];
        let rates = rates.map(|(name, rate)| (name.to_string(), rate));
        let plan = EqualTime::plan(20, rates.into_iter()).unwrap();
        // The middle of ce's three; for mixskd the mean of 5 and 6.25 ms an image.
        assert_eq!(plan.milliseconds_per_image["mixskd"], 5.625);
        assert_eq!(plan.epochs_of("mixskd"), Some(20));
        assert_eq!(plan.epochs_of("mixup"), Some(90));
        assert_eq!(plan.epochs_of("ce"), Some(101));
        assert_eq!(plan.epochs_of("cutmix"), None);
        assert_eq!(EqualTime::plan(20, std::iter::empty()), None);
    }
}
