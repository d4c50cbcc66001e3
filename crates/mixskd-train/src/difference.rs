//! Where two configurations differ.

use std::collections::BTreeMap;

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
const HARMLESS: [&str; 5] = [
    "data.source",
    "init.weights",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.prefetch",
];

/// Every `section.key` that says what a run is, with its value: not how its work is given to a GPU, which gives the same bits, nor who shares it.
pub(crate) fn settings(config: &TrainConfig) -> Result<BTreeMap<String, String>> {
    let counts = |(key, _): &(String, String)| {
        let is_how = key.starts_with("distribution.") || key.starts_with("run.cuda_");
        !is_how && !HARMLESS.contains(&key.as_str())
    };
    let mut settings: BTreeMap<_, _> = flat(config)?.into_iter().filter(counts).collect();
    // Without a value of its own it is one that suits the data.
    let flip = settings.entry("data.flip".into());
    flip.or_insert_with(|| "nothing".into());
    Ok(settings)
}

/// All that differs between two sets of [`settings`]. A key that only one has is another version's, or another method's, which is told by its name.
pub(crate) fn all(
    one: &BTreeMap<String, String>,
    other: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let of = |(key, value): (&String, &String)| {
        let its = other.get(key)?;
        (its != value).then(|| Difference {
            key: key.clone(),
            one: value.clone(),
            other: its.clone(),
        })
    };
    one.iter().filter_map(of).collect()
}

/// The first key that differs and may change a run's result, but for those that are `let_be`. Where starting weights lie changes none, and whether there are
/// any does.
pub(crate) fn in_results(
    one: &TrainConfig,
    other: &TrainConfig,
    let_be: &[&str],
) -> Result<Option<Difference>> {
    let has_weights = |config: &TrainConfig| config.init.weights.is_some();
    let is_start = has_weights(one) != has_weights(other);
    // A network that is left to the data is whichever it comes to be.
    let is_left = one.model.is_auto() || other.model.is_auto();
    first(one, other, |key| {
        let is_open = is_left && key == "model.name";
        let counts = !HARMLESS.contains(&key) && !let_be.contains(&key) && !is_open;
        counts || (is_start && key == "init.weights")
    })
}

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
        .map_err(|error| Error::Internal(format!("settings: {error}")))?;
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
        assert_eq!(in_results(&one, &other, &["run.epochs"]).unwrap(), None);
        // Weights may lie elsewhere; none are something else.
        let from = |weights| one.with(&format!("init.weights={weights}")).unwrap();
        assert_eq!(
            in_results(&from("a.pth"), &from("b.pth"), &[]).unwrap(),
            None
        );
        let found = in_results(&from("a.pth"), &one, &[]).unwrap().unwrap();
        assert_eq!(
            (found.key.as_str(), found.other.as_str()),
            ("init.weights", "nothing")
        );
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
