//! What is compared: a name for a method and what it changes in the common settings.

use serde::{Deserialize, Serialize};

use crate::config_keys::unknown_name;
use crate::{Error, Result, TrainConfig, difference, method};

/// Letters of a name that still leaves room for seed and epochs in a directory's, and for the rest of a table.
const LONGEST_NAME: usize = 64;

/// One line of a comparison: a method, and settings of its own.
///
/// Only what makes the method itself may differ between entries: keys below `method.` and `objective.`, a whole named
/// `objective`, and `data.augment`. Network, batch, steps, optimiser and schedule are common to all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name in tables, chart and run directories.
    pub name: String,
    /// Name of the method.
    pub method: String,
    /// `KEY=VALUE` settings on top of the common ones.
    #[serde(default)]
    pub set: Vec<String>,
}

/// A named entry that is no method of its own.
pub struct EntrySpec {
    /// Its name.
    pub name: &'static str,
    /// The method.
    pub method: &'static str,
    /// Its settings.
    pub set: &'static [&'static str],
    /// What it is, in one line.
    pub summary: &'static str,
}

/// Names that stand for a method with settings. Every method is an entry under its own name as well.
pub static ALL: &[EntrySpec] = &[
    EntrySpec {
        name: "agreement",
        method: "mixskd",
        // On top of the common objective, and not the whole of it by name.
        set: &[
            "objective.feature=0",
            "objective.adversarial=0",
            "objective.self_teacher_task=0",
            "objective.backbone_probability=0",
        ],
        summary: "MixSKD whose branches agree on two images and their mix, without self-teacher and feature maps",
    },
    EntrySpec {
        name: "soft-labels",
        method: "mixskd",
        set: &["objective.feature=0", "objective.adversarial=0"],
        summary: "MixSKD without the terms that compare feature maps",
    },
    EntrySpec {
        name: "cutout",
        method: "ce",
        set: &["data.augment=['cutout']"],
        summary: "cross-entropy with cutout",
    },
    EntrySpec {
        name: "random-erasing",
        method: "ce",
        set: &["data.augment=['random_erasing']"],
        summary: "cross-entropy with random erasing",
    },
    EntrySpec {
        name: "autoaugment",
        method: "ce",
        set: &["data.augment=['autoaugment']"],
        summary: "cross-entropy with AutoAugment's CIFAR-10 policy",
    },
    EntrySpec {
        name: "randaugment",
        method: "ce",
        set: &["data.augment=['randaugment']"],
        summary: "cross-entropy with RandAugment",
    },
    EntrySpec {
        name: "augmix",
        method: "ce",
        set: &["data.augment=['augmix']"],
        summary: "cross-entropy with AugMix",
    },
    EntrySpec {
        name: "trivialaugment",
        method: "ce",
        set: &["data.augment=['trivialaugment']"],
        summary: "cross-entropy with TrivialAugmentWide",
    },
];

impl Entry {
    /// The entry called `name`: a method, or a row of [`ALL`].
    ///
    /// # Errors
    /// When there is none; the error names the nearest.
    pub fn named(name: &str) -> Result<Self> {
        Self::known(name, "--methods")
    }

    /// [`named`](Self::named), asked for at `place`.
    fn known(name: &str, place: &str) -> Result<Self> {
        if let Some(spec) = ALL.iter().find(|spec| spec.name == name) {
            return Ok(Self {
                name: name.into(),
                method: spec.method.into(),
                set: spec.set.iter().map(ToString::to_string).collect(),
            });
        }
        let known = method::ALL
            .iter()
            .map(|spec| spec.name)
            .chain(ALL.iter().map(|spec| spec.name));
        if !known.clone().any(|known| known == name) {
            return Err(unknown_name(place, "method", name, known));
        }
        Ok(Self {
            name: name.into(),
            method: name.into(),
            set: Vec::new(),
        })
    }

    /// Reads `NAME=METHOD` or `NAME=METHOD:KEY=VALUE,KEY=VALUE,…`; commas inside of brackets and quotes do not part settings.
    /// METHOD is anything that [`named`](Self::named) knows, whose settings come first.
    ///
    /// # Errors
    /// When the text has another form, or the method is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || Error::Config {
            place: format!("--entry {text}"),
            message: "is not of the form NAME=METHOD:KEY=VALUE,…".into(),
            hint: Some(
                "for example --entry no-teacher=mixskd:objective.self_teacher_task=0".into(),
            ),
        };
        let (name, rest) = text.split_once('=').ok_or_else(refuse)?;
        let (method, settings) = rest.split_once(':').unwrap_or((rest, ""));
        let place = format!("--entry {text}");
        check_name(name, &place)?;
        let mut entry = Self::known(method, &place)?;
        entry.name = name.into();
        for setting in split_settings(settings) {
            if !setting.contains('=') {
                return Err(refuse());
            }
            entry.set.push(setting.into());
        }
        Ok(entry)
    }

    /// Whether its name can be a directory's.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn check_name(&self) -> Result<()> {
        check_name(&self.name, "entries")
    }

    /// The common settings with this entry's own.
    ///
    /// # Errors
    /// When a setting is unknown, out of range, without effect, or one that has to be common to all.
    pub fn apply(&self, common: &TrainConfig) -> Result<TrainConfig> {
        let mut config = common.clone();
        config.method = TrainConfig::default().method;
        config = config.with_value("method.name", self.method.as_str())?;
        let reads_objective = method::spec(&self.method)?.objective;
        for (at, setting) in self.set.iter().enumerate() {
            let key = setting.split('=').next().unwrap_or_default().trim();
            let of_objective = TrainConfig::is_of_objective(setting);
            if of_objective && !reads_objective {
                return Err(Error::Config {
                    place: format!("entry {}", self.name),
                    message: format!(
                        "{setting}: the method `{}` has no objective to set",
                        self.method
                    ),
                    hint: Some(
                        "leave it out; MixSKD has one: --entry NAME=mixskd:objective.…".into(),
                    ),
                });
            }
            if key == "objective" {
                let earlier = self.set[..at]
                    .iter()
                    .find(|earlier| TrainConfig::is_of_objective(earlier));
                if let Some(earlier) = earlier {
                    return Err(Error::Config {
                        place: format!("entry {}", self.name),
                        message: format!(
                            "{setting} replaces the whole objective, and so undoes {earlier}"
                        ),
                        hint: Some(format!("name it first: {setting},{earlier}")),
                    });
                }
                let of_objective = |key: &str| key.starts_with("objective.");
                if let Some(own) = difference::first(common, &TrainConfig::default(), of_objective)?
                {
                    return Err(Error::Config {
                        place: format!("entry {}", self.name),
                        message: format!(
                            "{setting} replaces the whole objective, and so undoes {} = {}, which is common to all",
                            own.key, own.one
                        ),
                        hint: Some("name the weights that differ instead: objective.TERM=0".into()),
                    });
                }
            }
            let own = key == "data.augment"
                || key.starts_with("method.") && key != "method.name"
                || of_objective;
            if !own {
                return Err(Error::Config {
                    place: format!("entry {}", self.name),
                    message: format!("`{key}` has to be the same for all that is compared"),
                    hint: Some(format!(
                        "set it for all with --set {setting}; an entry's own are method.*, objective.*, objective and data.augment"
                    )),
                });
            }
            config = config.with(setting).map_err(|error| self.in_entry(error))?;
        }
        config.validate().map_err(|error| self.in_entry(error))?;
        Ok(config)
    }

    /// `error` with the entry that it is about.
    fn in_entry(&self, error: Error) -> Error {
        match Error::with_key(error) {
            Error::Config {
                place,
                message,
                hint,
            } => Error::Config {
                place: format!("entry {}: {place}", self.name),
                message,
                hint,
            },
            other => other,
        }
    }
}

/// Whether `name`, which stands at `place`, can be a directory's.
fn check_name(name: &str, place: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let fits = (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('.');
    if fits && name.chars().all(known) {
        return Ok(());
    }
    Err(Error::Config {
        place: place.into(),
        message: format!("`{name}` cannot be an entry's name, which names a directory, too"),
        hint: Some(format!(
            "use at most {LONGEST_NAME} letters, digits, and . _ + -"
        )),
    })
}

/// Parts of `text` between commas that stand in no bracket and no quote.
fn split_settings(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_i32, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use mixskd_losses::ObjectiveConfig;

    use super::*;

    #[test]
    fn every_named_entry_is_a_valid_configuration() {
        for spec in ALL {
            assert!(method::ALL.iter().all(|method| method.name != spec.name));
            let entry = Entry::named(spec.name).unwrap();
            let config = entry.apply(&TrainConfig::default()).unwrap();
            assert_eq!(config.method.name(), spec.method);
            for augment in &config.data.augment {
                augment.build().unwrap();
            }
        }
        for spec in method::ALL {
            let entry = Entry::named(spec.name).unwrap();
            entry.apply(&TrainConfig::default()).unwrap();
        }
    }

    #[test]
    fn an_entry_is_read_with_lists_and_tables_in_its_settings() {
        let text = "a-b=mixup:method.alpha=1,data.augment=[{op='cutout', size=4}, 'flip']";
        let entry = Entry::parse(text).unwrap();
        assert_eq!(
            (entry.name.as_str(), entry.method.as_str()),
            ("a-b", "mixup")
        );
        assert_eq!(entry.set.len(), 2);
        let config = entry.apply(&TrainConfig::default()).unwrap();
        assert_eq!(config.data.augment.len(), 2);
        assert_eq!(Entry::parse("x=cutout").unwrap().method, "ce");
        let reference = Entry::parse("r=mixskd:objective=reference-cifar").unwrap();
        assert_eq!(
            reference
                .apply(&TrainConfig::default())
                .unwrap()
                .objective
                .task_mix,
            0.0
        );
    }

    #[test]
    fn what_is_no_entry_is_refused_with_a_hint() {
        let check = |text: &str, wanted: &str| {
            let error = Entry::parse(text)
                .and_then(|entry| entry.apply(&TrainConfig::default()))
                .unwrap_err();
            let told = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(error.is_usage() && told.contains(wanted), "{text}: {told}");
        };
        check("mixup", "NAME=METHOD");
        check("a=mixpu", "did you mean `mixup`");
        check("a/b=mixup", "cannot be an entry's name");
        check("..=mixup", "cannot be an entry's name");
        check(&format!("{}=mixup", "n".repeat(65)), "at most 64 letters");
        check("a=mixup:alpha", "NAME=METHOD");
        check("a=mixup:run.epochs=3", "the same for all");
        check("a=mixup:optimizer.lr=3", "--set optimizer.lr=3");
        check("a=mixup:method.name=ce", "the same for all");
        check("a=mixup:method.alpa=3", "`alpha`");
        check("a=ce:objective.feature=0", "`ce` has no objective to set");
        check("a=byot:objective=soft-labels", "`byot` has no objective");
        check(
            "a=mixskd:objective.feature=0,objective=mixskd",
            "name it first: objective=mixskd,objective.feature=0",
        );
        check("a=mixskd:method.map_mixing=box", "method.mixing=cutmix");
        check("a=mixup:method.alpha=x", "entry a: method.alpha");
        check("a=ce:data.augment=['cutuot']", "did you mean `cutout`");
        check(
            "a=mixskd:objective.task_original=0,objective.task_mix=0,objective.feature=0,objective.adversarial=0,objective.self_teacher_task=0,objective.backbone_probability=0,method.branches=false",
            "nothing to learn",
        );
    }

    #[test]
    fn the_common_objective_is_that_of_every_entry() {
        let common = TrainConfig::default()
            .with("objective.temperature=4")
            .unwrap();
        for name in ["agreement", "soft-labels"] {
            let named = Entry::named(name).unwrap().apply(&common).unwrap();
            let expected = ObjectiveConfig {
                temperature: 4.0,
                ..ObjectiveConfig::preset(name).unwrap()
            };
            assert_eq!(named.objective, expected, "{name}");
        }
        let whole = Entry::parse("a=mixskd:objective=reference-cifar").unwrap();
        let error = whole.apply(&common).unwrap_err().to_string();
        assert!(
            error.contains("undoes objective.temperature = 4"),
            "{error}"
        );
    }
}
