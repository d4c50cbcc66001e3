//! What is said of keys and values that no configuration has.

use mixskd_data::did_you_mean;

use crate::{Error, TrainConfig};

/// Keys that a configuration does not show while they are not set.
const OPTIONAL: [&str; 3] = ["data.flip", "data.val_fraction", "init.weights"];

/// What a section is named by, where it has more keys: `model=resnet18` means `model.name=resnet18`.
const NAMING: [&str; 3] = ["name", "kind", "source"];

/// A usage error for `name`, which is none of `known`; names the nearest.
pub(crate) fn unknown_name<'a>(
    place: &str,
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Error {
    Error::Config {
        place: place.into(),
        message: format!("there is no {kind} called `{name}`"),
        hint: Some(did_you_mean(name, known)),
    }
}

/// Turns serde's message about an unknown field or variant into ours, with the nearest name, or the sections that have a key of that name.
pub(crate) fn explain(place: &str, message: &str) -> Error {
    let quoted = message.split('`').skip(1).step_by(2).collect::<Vec<_>>();
    let is_key = message.starts_with("unknown field");
    match quoted.split_first() {
        Some((name, known)) if is_key && !known.is_empty() => {
            // What a program leaves in a configuration, and nobody sets.
            let known: Vec<_> = known.iter().copied().filter(|key| *key != "own").collect();
            let mut error = unknown_name(place, "key", name, known.into_iter());
            let found = elsewhere(name);
            if let (false, Error::Config { hint, .. }) = (found.is_empty(), &mut error) {
                *hint = Some(format!("did you mean {}?", found.join(" or ")));
            }
            error
        }
        Some((name, known)) if message.starts_with("unknown variant") && !known.is_empty() => {
            unknown_name(place, "value", name, known.iter().copied())
        }
        _ => Error::config(place, message.to_string()),
    }
}

/// The error for a value where `section` has keys.
pub(crate) fn is_section(section: &str, keys: &toml::Table) -> Error {
    let named = NAMING.iter().find(|key| keys.contains_key(**key));
    let hint = if let Some(key) = named {
        format!("did you mean `{section}.{key}`?")
    } else {
        let keys: Vec<_> = keys.keys().map(|key| format!("{section}.{key}")).collect();
        format!("its keys: {}", keys.join(", "))
    };
    Error::Config {
        place: section.into(),
        message: "is a section with keys of its own, and takes no value".into(),
        hint: Some(hint),
    }
}

/// The keys whose last part is `leaf`, each as it is set.
fn elsewhere(leaf: &str) -> Vec<String> {
    let Ok(root) = toml::Table::try_from(TrainConfig::default()) else {
        return Vec::new();
    };
    let shown = root.iter().filter_map(|(section, keys)| {
        let has_it = keys.as_table()?.contains_key(leaf);
        has_it.then(|| format!("`{section}.{leaf}`"))
    });
    let optional = OPTIONAL
        .iter()
        .filter(|key| key.ends_with(&format!(".{leaf}")));
    shown
        .chain(optional.map(|key| format!("`{key}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_keys_are_keys_that_are_not_shown() {
        let config = TrainConfig::default();
        let shown = config.to_toml().unwrap();
        for key in OPTIONAL {
            let value = ["true", "0.5", "a"].iter().any(|value| {
                let set = config.with(&format!("{key}={value}"));
                set.is_ok_and(|set| set != config)
            });
            let leaf = key.split_once('.').unwrap().1;
            assert!(value && !shown.contains(&format!("\n{leaf} =")), "{key}");
        }
    }
}
