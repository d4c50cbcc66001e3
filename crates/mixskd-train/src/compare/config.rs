//! What is compared, as plain data.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::{Error, Result, ScheduleConfig, TrainConfig, difference, files};

/// Where it stands in a comparison's directory.
pub(super) const FILE: &str = "compare.toml";

/// Entries, seeds, and the settings common to all runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareConfig {
    /// Seeds, each of which every entry is run with.
    pub seeds: Vec<u64>,
    /// Name of the entry that the others are compared with.
    pub baseline: String,
    /// Whether each entry is also given the time that the costliest takes.
    pub equal_time: bool,
    /// SHA-256 of the file that all runs start from, `init.weights`, so that it may move and no other takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
    /// What is compared.
    pub entries: Vec<Entry>,
    /// The settings common to all; its method and seed are the entries'.
    pub settings: TrainConfig,
}

impl CompareConfig {
    /// Compares `entries` with the first of them, over `seeds` seeds from that of `settings` on.
    ///
    /// # Errors
    /// When there is no entry or no seed, two entries have one name, or an entry's settings are out of range.
    pub fn new(settings: TrainConfig, entries: Vec<Entry>, seeds: usize) -> Result<Self> {
        let first = settings.run.seed;
        let config = Self {
            seeds: (first..first.saturating_add(seeds as u64)).collect(),
            baseline: entries.first().map_or(String::new(), |e| e.name.clone()),
            equal_time: false,
            weights_sha256: None,
            entries,
            settings,
        };
        config.validate()?;
        Ok(config)
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// As [`CompareConfig::new`], and when the baseline is no entry.
    pub fn validate(&self) -> Result<()> {
        if self.entries.is_empty() {
            return Err(Error::Config {
                place: "--methods".into(),
                message: "there is nothing to compare".into(),
                hint: Some("for example --methods ce,mixup,mixskd".into()),
            });
        }
        if self.settings.distribution.enabled {
            return Err(Error::Config {
                place: "distribution.enabled".into(),
                message: "a comparison trains each of its runs in one process".into(),
                hint: Some("leave it out; `mixskd train --distributed` shares a run".into()),
            });
        }
        if self.seeds.is_empty() {
            return Err(Error::config("--seeds", "must be at least 1, got 0"));
        }
        if let Some(&seed) = self.seeds.iter().max()
            && i64::try_from(seed).is_err()
        {
            let last = format!("must be below 2^63 for every seed, the last is {seed}");
            return Err(Error::config("run.seed", last));
        }
        if let Some(twice) =
            (1..self.seeds.len()).find(|&at| self.seeds[..at].contains(&self.seeds[at]))
        {
            let message = format!("are to differ, {} is named twice", self.seeds[twice]);
            return Err(Error::config("seeds", message));
        }
        for (at, entry) in self.entries.iter().enumerate() {
            // Names are directories, too, and not every file system tells A from a.
            let same = |other: &Entry| other.name.eq_ignore_ascii_case(&entry.name);
            if self.entries[..at].iter().any(same) {
                return Err(Error::Config {
                    place: format!("entry {}", entry.name),
                    message: "is named twice".into(),
                    hint: Some("give one of them another name with --entry NAME=METHOD:…".into()),
                });
            }
            entry.check_name()?;
            entry.apply(&self.settings)?;
        }
        if self.entry(&self.baseline).is_none() {
            let names = self.entries.iter().map(|entry| entry.name.as_str());
            return Err(crate::config_keys::unknown_name(
                "--baseline",
                "entry",
                &self.baseline,
                names,
            ));
        }
        Ok(())
    }

    /// Whether both train alike, however their settings are written.
    fn is_same(&self, one: &Entry, other: &Entry) -> Result<bool> {
        let (one, other) = (one.apply(&self.settings)?, other.apply(&self.settings)?);
        Ok(difference::first(&one, &other, |_| true)?.is_none())
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    pub(super) fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => unreadable(path, None, "is no text"),
            _ => Error::file(path, "read")(error),
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map(|span| 1 + text[..span.start].matches('\n').count());
            unreadable(path, line, error.message())
        })?;
        config
            .validate()
            .map_err(|error| unreadable(path, None, &error.cause()))?;
        Ok(config)
    }

    pub(super) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("{FILE}: {e}")))
    }

    /// Adds what `more` compares beyond this.
    pub(super) fn extend(&mut self, more: &Self, dir: &Path) -> Result<()> {
        let refuse = |message: String| Error::RunDir {
            path: dir.to_path_buf(),
            message,
            hint: Some(
                "leave the setting out to go on, or begin another comparison with another --out"
                    .into(),
            ),
        };
        // Entries have their own method and each run its own seed; data and starting weights may have moved.
        let (was, is) = (&self.settings.init.weights, &more.settings.init.weights);
        let moved = match is {
            Some(is) if was.is_some() && self.weights_sha256.is_some() => {
                if was.as_ref() != Some(is) {
                    self.check_weights(is)?;
                }
                true
            }
            _ => false,
        };
        let is_left = self.settings.model.is_auto() || more.settings.model.is_auto();
        let counts = |key: &str| {
            !(is_left && key == "model.name")
                && key != "data.source"
                && key != "run.seed"
                && !key.starts_with("method.")
                && !(moved && key == "init.weights")
        };
        if let Some(found) = difference::first(&self.settings, &more.settings, counts)? {
            return Err(refuse(format!(
                "was begun with {} = {}; {} is asked for",
                found.key, found.one, found.other
            )));
        }
        let mut extended = self.clone();
        extended
            .settings
            .data
            .source
            .clone_from(&more.settings.data.source);
        let weights = &mut extended.settings.init.weights;
        weights.clone_from(&more.settings.init.weights);
        for entry in &more.entries {
            match self.entry(&entry.name) {
                Some(known) if self.is_same(known, entry)? => {}
                Some(_) => {
                    return Err(refuse(format!(
                        "was begun with another entry called {}",
                        entry.name
                    )));
                }
                None => extended.entries.push(entry.clone()),
            }
        }
        for seed in &more.seeds {
            if !extended.seeds.contains(seed) {
                extended.seeds.push(*seed);
            }
        }
        extended.equal_time |= more.equal_time;
        extended.baseline.clone_from(&more.baseline);
        extended.validate()?;
        *self = extended;
        Ok(())
    }

    /// Notes which weights all runs start from.
    pub(super) fn know_weights(&mut self) -> Result<()> {
        let weights = self.settings.init.weights.as_deref();
        self.weights_sha256 = weights.map(files::sha256).transpose()?;
        Ok(())
    }

    /// Whether `weights` are what the comparison was begun with; where nobody noted those, so they are held to be.
    pub(super) fn check_weights(&self, weights: &Path) -> Result<()> {
        let refuse = |message: &str| {
            Error::Config {
            place: "init.weights".into(),
            message: format!("`{}` {message}", weights.display()),
            hint: Some("say where the same weights lie now with --set init.weights=FILE, or begin another comparison with another --out".into()),
        }
        };
        if !weights.is_file() {
            return Err(refuse("is no file"));
        }
        match &self.weights_sha256 {
            Some(known) if *known != files::sha256(weights)? => {
                Err(refuse("is not the file that the comparison was begun with"))
            }
            _ => Ok(()),
        }
    }

    /// The configuration of one run. With other epochs than the common ones the schedule is stretched along.
    pub(super) fn run_config(
        &self,
        entry: &Entry,
        seed: u64,
        epochs: usize,
    ) -> Result<TrainConfig> {
        let mut config = entry.apply(&self.settings)?;
        config.run.seed = seed;
        let from = config.run.epochs;
        config.schedule = stretched(&config.schedule, from, epochs);
        let after = config.data.balance_after as usize;
        config.data.balance_after = at_share(after, from, epochs) as u64;
        config.run.epochs = epochs;
        config.validate()?;
        Ok(config)
    }
}

/// A comparison's file that says nothing sensible.
fn unreadable(path: &Path, line: Option<usize>, message: &str) -> Error {
    let mend = "mend it there; where that is not possible, begin with another --out: finished runs that are put into its runs/ are not repeated";
    let line = line.map_or_else(String::new, |line| format!(":{line}"));
    Error::Config {
        place: format!("{}{line}", path.display()),
        message: message.into(),
        hint: Some(mend.into()),
    }
}

/// The epoch at the same share of `to` epochs as `epoch` is of `from`.
fn at_share(epoch: usize, from: usize, to: usize) -> usize {
    (epoch * to + from / 2) / from.max(1)
}

/// Warm-up and milestones at the same shares of `to` epochs as they are of `from`.
fn stretched(schedule: &ScheduleConfig, from: usize, to: usize) -> ScheduleConfig {
    let at = |epoch| at_share(epoch, from, to);
    ScheduleConfig {
        warmup_epochs: at(schedule.warmup_epochs),
        milestones: schedule.milestones.iter().map(|&m| at(m)).collect(),
        ..schedule.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(names: &[&str], seeds: usize) -> CompareConfig {
        let entries = names.iter().map(|n| Entry::named(n).unwrap()).collect();
        CompareConfig::new(TrainConfig::default(), entries, seeds).unwrap()
    }

    #[test]
    fn it_survives_its_file() {
        let mut written = config(&["ce", "cutout", "mixskd"], 3);
        written.entries[1]
            .set
            .push("data.augment=['flip', {op='cutout', size=4}]".into());
        let text = written.to_toml().unwrap();
        assert_eq!(toml::from_str::<CompareConfig>(&text).unwrap(), written);
    }

    #[test]
    fn more_entries_and_seeds_are_added_and_other_settings_refused() {
        let there = Path::new("there");
        let mut begun = config(&["ce", "mixup"], 2);
        begun
            .extend(&config(&["mixup", "cutout"], 3), there)
            .unwrap();
        let names: Vec<_> = begun.entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["ce", "mixup", "cutout"]);
        assert_eq!(begun.seeds, [0, 1, 2]);
        let mut other = config(&["ce"], 1);
        other.settings.run.epochs = 9;
        let error = begun.extend(&other, there).unwrap_err();
        assert!(
            error.to_string().contains("run.epochs = 6; 9 is asked for"),
            "{error}"
        );
        let mut other = config(&["ce"], 1);
        other.entries[0].set.push("data.augment=['flip']".into());
        assert!(begun.extend(&other, there).is_err());
        // The same in other words.
        let words = "objective.adversarial=0,objective.feature=0";
        let mut other = config(&["ce"], 1);
        other.entries[0] = Entry::parse(&format!("soft-labels=mixskd:{words}")).unwrap();
        other.baseline = "soft-labels".into();
        begun.extend(&other, there).unwrap();
        begun.extend(&config(&["soft-labels"], 1), there).unwrap();
        assert_eq!(begun.entries.len(), 4);
    }

    #[test]
    fn schedules_are_stretched_with_the_epochs() {
        let schedule = ScheduleConfig {
            warmup_epochs: 5,
            milestones: vec![100, 150],
            ..ScheduleConfig::default()
        };
        let twice = stretched(&schedule, 200, 400);
        assert_eq!(
            (twice.warmup_epochs, twice.milestones),
            (10, vec![200, 300])
        );
        let mut config = config(&["ce"], 1);
        config.settings.schedule.warmup_epochs = 1;
        config.settings.data.balance_after = 4;
        let run = config.run_config(&config.entries[0], 7, 15).unwrap();
        assert_eq!(
            (run.run.seed, run.run.epochs, run.schedule.warmup_epochs),
            (7, 15, 3)
        );
        assert_eq!(run.data.balance_after, 10);
    }

    #[test]
    fn senseless_comparisons_are_refused() {
        let named = |name: &str| Entry::named(name).unwrap();
        let new = |entries, seeds| CompareConfig::new(TrainConfig::default(), entries, seeds);
        assert!(new(vec![], 1).is_err());
        assert!(new(vec![named("ce")], 0).is_err());
        assert!(new(vec![named("ce"), named("ce")], 1).is_err());
        let mut twice = config(&["ce", "mixup"], 2);
        twice.seeds[1] = 0;
        // One run is no two, whatever a file says.
        assert!(
            twice
                .validate()
                .unwrap_err()
                .to_string()
                .contains("0 is named twice")
        );
        let mut config = config(&["ce", "mixup"], 1);
        config.entries[1].name = "../evil".into();
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains("cannot be an entry's name"));
        config.entries[1].name = "mixup".into();
        config.baseline = "mixpu".into();
        let error = config.validate().unwrap_err();
        assert!(error.hint().unwrap().contains("`mixup`"));
    }
}
