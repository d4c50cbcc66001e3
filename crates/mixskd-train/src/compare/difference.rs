//! Where two configurations differ.

use crate::{Error, Result, TrainConfig};

/// A key whose value is not the same in two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// `section.key`.
    pub(crate) key: String,
    /// The first one's value, as TOML.
    pub(crate) one: String,
    /// The other's.
    pub(crate) other: String,
}

/// Keys that leave a run's result as it is: where files lie on this machine, and how often it is written what they hold.
pub(crate) const HARMLESS: [&str; 5] = [
    "data.source",
    "init.weights",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.prefetch",
];

/// The first key that `counts` and differs.
pub(crate) fn first(
    one: &TrainConfig,
    other: &TrainConfig,
    counts: impl Fn(&str) -> bool,
) -> Result<Option<Difference>> {
    let (one, other) = (flat(one)?, flat(other)?);
    let value = |keys: &[(String, String)], key: &str| {
        let found = keys.iter().find(|(known, _)| known == key);
        found.map_or_else(|| "nothing".into(), |(_, value)| value.clone())
    };
    let differs =
        |(key, _): &&(String, String)| counts(key) && value(&one, key) != value(&other, key);
    let found = one.iter().chain(&other).find(differs);
    Ok(found.map(|(key, _)| Difference {
        key: key.clone(),
        one: value(&one, key),
        other: value(&other, key),
    }))
}

/// Every `section.key` with its value.
fn flat(config: &TrainConfig) -> Result<Vec<(String, String)>> {
    let table = toml::Table::try_from(config)
        .map_err(|error| Error::config("settings", error.to_string()))?;
    let mut keys = Vec::new();
    for (section, values) in table {
        for (key, value) in values.as_table().into_iter().flatten() {
            keys.push((format!("{section}.{key}"), value.to_string()));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_counts_is_named() {
        let one = TrainConfig::default();
        assert_eq!(first(&one, &one, |_| true).unwrap(), None);
        let other = one
            .with("run.prefetch=9")
            .and_then(|config| config.with("run.epochs=9"))
            .unwrap();
        let found = first(&one, &other, |key| !HARMLESS.contains(&key))
            .unwrap()
            .unwrap();
        assert_eq!(
            (found.key.as_str(), found.other.as_str()),
            ("run.epochs", "9")
        );
        assert_eq!(first(&one, &other, |_| false).unwrap(), None);
        // A setting that only one of them has.
        let method = one.with("method.name=ce").unwrap();
        let found = first(&one, &method, |key| key == "method.alpha")
            .unwrap()
            .unwrap();
        assert_eq!(
            (found.one.as_str(), found.other.as_str()),
            ("0.4", "nothing")
        );
    }

    #[test]
    fn harmless_keys_are_keys() {
        let keys = flat(&TrainConfig::default()).unwrap();
        for key in HARMLESS.iter().filter(|key| **key != "init.weights") {
            assert!(keys.iter().any(|(known, _)| known == key), "{key}");
        }
    }
}
