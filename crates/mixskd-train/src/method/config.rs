//! Which method, and its settings: `[method]` holds a name and that method's own keys.

use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use toml::Table;

use crate::{Error, Result};

/// The method of a run. Each method has settings of its own, with their defaults in its file; a key that the named method does
/// not have is refused.
///
/// ```
/// use mixskd_train::method::MethodConfig;
///
/// let mixup = MethodConfig::new("mixup")?;
/// assert_eq!(mixup.settings()["alpha"].as_float(), Some(0.4));
/// assert_eq!(MethodConfig::new("ce")?.settings().len(), 0);
/// # Ok::<(), mixskd_train::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Table")]
pub struct MethodConfig {
    name: String,
    settings: Table,
}

/// What `mixskd train` does alone.
const DEFAULT: &str = "mixskd";

impl Default for MethodConfig {
    fn default() -> Self {
        // The table holds the default method, and its defaults fit itself: a test says so.
        Self::new(DEFAULT).unwrap_or(Self {
            name: DEFAULT.into(),
            settings: Table::new(),
        })
    }
}

impl MethodConfig {
    /// The method called `name` with every setting at its default.
    ///
    /// # Errors
    /// When there is none; the error names the nearest.
    pub fn new(name: &str) -> Result<Self> {
        let spec = super::spec(name)?;
        let settings = (spec.settings.complete)(Table::new())
            .map_err(|error| Error::config("method", error.message().to_string()))?;
        Ok(Self {
            name: name.into(),
            settings,
        })
    }

    /// A name of [`ALL`](super::ALL).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every setting of the method, by key.
    pub fn settings(&self) -> &Table {
        &self.settings
    }

    /// Checks every setting's range.
    ///
    /// # Errors
    /// Naming the key and the range.
    pub fn validate(&self) -> Result<()> {
        (super::spec(&self.name)?.settings.validate)(&self.settings)
    }

    /// The settings in the method's own type.
    pub(crate) fn typed<T: Settings>(&self) -> Result<T> {
        let settings: T = self
            .settings
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| Error::config("method", error.message()))?;
        settings.validate()?;
        Ok(settings)
    }
}

impl TryFrom<Table> for MethodConfig {
    type Error = String;

    fn try_from(mut settings: Table) -> std::result::Result<Self, String> {
        let name = match settings.remove("name") {
            None => DEFAULT.into(),
            Some(toml::Value::String(name)) => name,
            Some(other) => {
                return Err(format!(
                    "invalid type: {} for `name`, expected a string",
                    other.type_str()
                ));
            }
        };
        let Some(spec) = super::ALL.iter().find(|spec| spec.name == name) else {
            // serde's own words for an unknown name, which the configuration's reader turns into ours.
            let known: Vec<_> = super::ALL.iter().map(|s| format!("`{}`", s.name)).collect();
            let known = known.join(", ");
            return Err(format!("unknown variant `{name}`, expected one of {known}"));
        };
        let complete = |error: toml::de::Error| match error.message() {
            message if message.contains("there are no fields") => {
                let keys: Vec<_> = settings.keys().map(|key| format!("`{key}`")).collect();
                format!(
                    "{} has no setting {}: it has none at all",
                    spec.name,
                    keys.join(", ")
                )
            }
            message => message.to_string(),
        };
        let settings = (spec.settings.complete)(settings.clone()).map_err(complete)?;
        Ok(Self { name, settings })
    }
}

impl Serialize for MethodConfig {
    /// The name first, then the settings.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.settings.len()))?;
        map.serialize_entry("name", &self.name)?;
        for (key, value) in &self.settings {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Settings of one method: plain data with defaults that refuses unknown keys.
pub(crate) trait Settings: Default + Serialize + DeserializeOwned {
    /// Checks what types cannot.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}

/// A method's settings without their type, as its row of the table holds them.
pub struct SettingsSpec {
    complete: fn(Table) -> std::result::Result<Table, toml::de::Error>,
    validate: fn(&Table) -> Result<()>,
}

impl SettingsSpec {
    /// The settings `T`.
    pub(crate) const fn of<T: Settings>() -> Self {
        Self {
            complete: |table| {
                let settings: T = table.try_into()?;
                Table::try_from(settings).map_err(serde::de::Error::custom)
            },
            validate: |table| {
                let settings: T = table
                    .clone()
                    .try_into()
                    .map_err(|error: toml::de::Error| Error::config("method", error.message()))?;
                settings.validate()
            },
        }
    }

    /// Every key with its default.
    pub fn defaults(&self) -> Table {
        (self.complete)(Table::new()).unwrap_or_default()
    }
}

/// For a method with nothing to set.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NoSettings {}

impl Settings for NoSettings {}

/// `value` of the method's `key` lies from `low` to `high`, both included.
pub(crate) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::config(
        format!("method.{key}"),
        format!("must be from {low} to {high}, got {value}"),
    ))
}

/// The range of α of a Beta(α, α).
pub(crate) fn alpha(value: f64) -> Result<()> {
    within("alpha", value, 1e-3, 1e3)
}

/// The range of a softmax temperature.
pub(crate) fn temperature(value: f64) -> Result<()> {
    within("temperature", value, 1e-2, 1e3)
}

/// The range of a term's weight.
pub(crate) fn weight(key: &str, value: f64) -> Result<()> {
    within(key, value, 0.0, 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method;

    #[test]
    fn every_method_accepts_its_defaults_and_refuses_a_stranger() {
        assert_eq!(MethodConfig::default().name(), DEFAULT);
        assert!(!MethodConfig::default().settings().is_empty());
        for spec in method::ALL {
            let config = MethodConfig::new(spec.name).unwrap();
            config.validate().unwrap();
            let table = Table::try_from(&config).unwrap();
            assert_eq!(MethodConfig::try_from(table.clone()).unwrap(), config);
            let mut strange = table;
            strange.insert("no_such_key".into(), 1.into());
            let refused = MethodConfig::try_from(strange).unwrap_err();
            assert!(refused.contains("no_such_key"), "{refused}");
        }
    }

    #[test]
    fn every_number_out_of_range_is_refused_with_its_key() {
        for spec in method::ALL {
            for (key, value) in spec.settings.defaults() {
                let wrong: Vec<toml::Value> = match value {
                    toml::Value::Float(_) => vec![(-1.0).into(), f64::NAN.into()],
                    toml::Value::Integer(_) => vec![100_000.into()],
                    _ => continue,
                };
                for wrong in wrong {
                    let mut table = Table::try_from(MethodConfig::new(spec.name).unwrap()).unwrap();
                    table.insert(key.clone(), wrong.clone());
                    let error = MethodConfig::try_from(table)
                        .unwrap()
                        .validate()
                        .unwrap_err();
                    assert!(
                        error.to_string().contains(&format!("method.{key}")),
                        "{}: {key} = {wrong}: {error}",
                        spec.name
                    );
                }
            }
        }
    }
}
