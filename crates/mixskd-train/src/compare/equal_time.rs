//! How many epochs each entry gets when all get the same time.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

pub(super) const FILE: &str = "equal-time.toml";

/// More than anybody trains; where a plan has more, something else is wrong.
const MOST_EPOCHS: usize = 1_000_000;

/// How often all are timed at least, each once a round, and at most, where the least times do not repeat. The least time of an entry counts: other work on the
/// machine only ever adds.
const ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 9;

/// By how much, as a share, the two least times of an entry may be apart to count as repeated.
const STEADY: f64 = 0.05;

/// The epochs of the second table, from training times measured in turn on one machine right before it: what the first table's
/// runs took may have been disturbed, or come from several machines. Kept in a file, so that a comparison taken up again goes on
/// with the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EqualTime {
    /// Milliseconds of training an image takes, evaluation excluded, by entry.
    milliseconds_per_image: BTreeMap<String, f64>,
    /// Epochs, by entry.
    epochs: BTreeMap<String, usize>,
    /// By how much the two least times of an entry were apart, as a share, by entry; earlier versions did not note it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    spread: BTreeMap<String, f64>,
}

/// The least of `times`, and by how much, as a share, the next one is above it.
fn least(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted[..] {
        [first, second, ..] => (first, second / first - 1.0),
        [first] => (first, f64::INFINITY),
        [] => (f64::INFINITY, f64::INFINITY),
    }
}

impl EqualTime {
    /// Whether it knows all of `names`.
    pub(super) fn knows(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.epochs.contains_key(*name))
    }

    /// The plan as it was stored; `None` before there is one.
    ///
    /// # Errors
    /// When there is one that cannot be read: another in its place would give other epochs, and so leave finished runs aside.
    pub(super) fn stored(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(&path, "read")(error)),
        };
        let refuse = |message: String| {
            Error::Config {
            place: path.display().to_string(),
            message,
            hint: Some("mend it, or take it away: the entries are then timed anew, and what is of other epochs then is run anew".into()),
        }
        };
        let plan: Self =
            toml::from_str(&text).map_err(|error| refuse(error.message().to_string()))?;
        let impossible = |time: &f64| !time.is_finite() || *time <= 0.0;
        let times = plan.milliseconds_per_image.iter();
        if let Some((name, time)) = times.clone().find(|(_, time)| impossible(time)) {
            return Err(refuse(format!("{name} takes {time} ms an image")));
        }
        let unfit = |epochs: &usize| !(1..=MOST_EPOCHS).contains(epochs);
        match plan.epochs.iter().find(|(_, epochs)| unfit(epochs)) {
            Some((name, epochs)) => Err(refuse(format!(
                "{name} has {epochs} epochs, not 1 to {MOST_EPOCHS}"
            ))),
            None => Ok(Some(plan)),
        }
    }

    /// Reads the plan of the entries called `names`, or makes it with `time`, which gives an entry's milliseconds per image.
    ///
    /// Entries that the stored plan knows keep their times, so that their runs are not done again; new ones are timed beside the
    /// costliest of those, and by its time then and now are put on the same scale.
    pub(super) fn settle(
        dir: &Path,
        epochs: usize,
        names: &[&str],
        time: &mut dyn FnMut(&str) -> Result<f64>,
    ) -> Result<Self> {
        let stored = Self::stored(dir)?;
        if let Some(plan) = stored.as_ref().filter(|plan| plan.knows(names)) {
            return Ok(plan.clone());
        }
        let (mut times, mut spread) = stored.map_or_else(Default::default, |plan| {
            (plan.milliseconds_per_image, plan.spread)
        });
        let anchor = times
            .iter()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map(|(name, time)| (name.clone(), *time));
        let mut fresh: BTreeMap<String, Vec<f64>> = names
            .iter()
            .filter(|name| !times.contains_key(**name))
            .map(|name| (name.to_string(), Vec::new()))
            .collect();
        if let Some((name, _)) = &anchor {
            fresh.insert(name.clone(), Vec::new());
        }
        for round in 1..=MOST_ROUNDS {
            for (name, taken) in &mut fresh {
                taken.push(time(name)?);
            }
            if round >= ROUNDS && fresh.values().all(|taken| least(taken).1 <= STEADY) {
                break;
            }
        }
        let scale = anchor.map_or(1.0, |(name, then)| then / least(&fresh[&name]).0);
        for (name, taken) in fresh {
            let (now, apart) = least(&taken);
            spread.insert(name.clone(), apart);
            times.entry(name).or_insert(now * scale);
        }
        let plan = Self {
            spread,
            ..Self::of(epochs, times)
        };
        let text = toml::to_string(&plan).map_err(|e| Error::Internal(format!("{FILE}: {e}")))?;
        files::write_atomically(&dir.join(FILE), text.as_bytes())?;
        Ok(plan)
    }

    /// For every entry the number of epochs that comes nearest to the time that `epochs` epochs take of the slowest.
    fn of(epochs: usize, times: BTreeMap<String, f64>) -> Self {
        let most = times.values().copied().fold(0.0, f64::max);
        let fitting = |time: f64| {
            (epochs as f64 * most / time.max(f64::MIN_POSITIVE))
                .round()
                .clamp(1.0, MOST_EPOCHS as f64)
        };
        Self {
            epochs: times
                .iter()
                .map(|(name, &time)| (name.clone(), fitting(time) as usize))
                .collect(),
            milliseconds_per_image: times,
            spread: BTreeMap::new(),
        }
    }

    /// The entry whose least time repeated worst, and by how much its two least times were apart, as a share; `None` where all repeated.
    pub(super) fn unsteady(&self) -> Option<(String, f64)> {
        let worst = self.spread.iter().max_by(|a, b| a.1.total_cmp(b.1))?;
        (*worst.1 > STEADY).then(|| (worst.0.clone(), *worst.1))
    }

    pub(super) fn epochs_of(&self, entry: &str) -> Option<usize> {
        self.epochs.get(entry).copied()
    }

    /// Entries with their epochs.
    pub(super) fn epochs(&self) -> Vec<(String, usize)> {
        self.epochs.iter().map(|(n, e)| (n.clone(), *e)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settles `names` with entries that take as many milliseconds as `clock` says, and tells how often each was timed.
    fn settle(dir: &Path, names: &[&str], clock: &[(&str, f64)]) -> (EqualTime, Vec<String>) {
        let mut asked = Vec::new();
        let plan = EqualTime::settle(dir, 20, names, &mut |name| {
            asked.push(name.to_string());
            // The first time something else was going on.
            let late = asked.iter().filter(|other| *other == name).count() == 1;
            let known = clock.iter().find(|(known, _)| *known == name).unwrap();
            Ok(known.1 * if late { 9.0 } else { 1.0 })
        });
        (plan.unwrap(), asked)
    }

    #[test]
    fn each_gets_the_epochs_that_fit_the_slowest_ones_time() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["ce", "mixup", "mixskd"];
        let clock = [("ce", 1.25), ("mixup", 1.5), ("mixskd", 5.625)];
        let (plan, asked) = settle(dir.path(), &names, &clock);
        // In turn, not one after the other.
        assert_eq!(asked[..4], ["ce", "mixskd", "mixup", "ce"]);
        assert_eq!(asked.len(), 3 * ROUNDS);
        assert_eq!(plan.epochs_of("mixskd"), Some(20));
        assert_eq!(plan.epochs_of("mixup"), Some(75));
        assert_eq!(plan.epochs_of("ce"), Some(90));
        assert_eq!(plan.epochs_of("cutmix"), None);
        // Taken up again, nothing is timed, whatever the clock says by now.
        let (again, asked) = settle(dir.path(), &names, &[]);
        assert_eq!((again, asked.len()), (plan, 0));
    }

    #[test]
    fn times_that_do_not_repeat_are_taken_more_often_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = 0;
        let mut noisy = |_: &str| {
            asked += 1;
            Ok(f64::from(asked).powi(2))
        };
        let plan = EqualTime::settle(dir.path(), 4, &["ce"], &mut noisy).unwrap();
        assert_eq!(asked as usize, MOST_ROUNDS);
        assert_eq!(plan.unsteady(), Some(("ce".into(), 3.0)));
        assert_eq!(EqualTime::stored(dir.path()).unwrap(), Some(plan));
        let other = tempfile::tempdir().unwrap();
        let (steady, _) = settle(other.path(), &["ce"], &[("ce", 1.0)]);
        assert_eq!(steady.unsteady(), None);
    }

    #[test]
    fn a_plan_that_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(EqualTime::stored(dir.path()).unwrap(), None);
        for epochs in ["0", "9000000000000"] {
            let plan = format!("[milliseconds_per_image]\nce = 1.0\n[epochs]\nce = {epochs}\n");
            std::fs::write(dir.path().join(FILE), plan).unwrap();
            let error = EqualTime::stored(dir.path()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("ce has {epochs} epochs")),
                "{error}"
            );
        }
        for time in ["0.0", "-1.0", "nan", "inf"] {
            let plan = format!("[milliseconds_per_image]\nce = {time}\n[epochs]\nce = 2\n");
            std::fs::write(dir.path().join(FILE), plan).unwrap();
            let error = EqualTime::stored(dir.path()).unwrap_err().to_string();
            assert!(error.contains("ce takes"), "{error}");
        }
        std::fs::write(dir.path().join(FILE), "junk").unwrap();
        let error = EqualTime::settle(dir.path(), 2, &["ce"], &mut |_| Ok(1.0)).unwrap_err();
        assert!(error.to_string().contains(FILE) && error.hint().unwrap().contains("take it away"));
        let left = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(left, "junk");
    }

    #[test]
    fn entries_that_come_later_leave_the_others_their_epochs() {
        let dir = tempfile::tempdir().unwrap();
        settle(
            dir.path(),
            &["ce", "mixskd"],
            &[("ce", 1.0), ("mixskd", 4.0)],
        );
        // Another machine, half as fast: mixup takes 1.5 times ce's time there, too.
        let slow = [("ce", 2.0), ("mixup", 3.0), ("mixskd", 8.0)];
        let (plan, asked) = settle(dir.path(), &["ce", "mixup", "mixskd"], &slow);
        assert!(!asked.contains(&"ce".to_string()));
        let epochs = ["ce", "mixup", "mixskd"].map(|name| plan.epochs_of(name).unwrap());
        assert_eq!(epochs, [80, 53, 20]);
        // A new costliest one gives all more.
        let (plan, _) = settle(
            dir.path(),
            &["ce", "bake"],
            &[("mixskd", 4.0), ("bake", 8.0)],
        );
        let epochs = ["ce", "mixskd", "bake"].map(|name| plan.epochs_of(name).unwrap());
        assert_eq!(epochs, [160, 40, 20]);
    }
}
