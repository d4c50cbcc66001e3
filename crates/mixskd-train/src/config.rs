//! The configuration of a run: plain data, defaults that train the shipped set, clear answers to a wrong key.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use mixskd_data::DataConfig;
use mixskd_losses::ObjectiveConfig;
use serde::{Deserialize, Serialize};

use crate::config_keys;
use crate::gpu_step::Launching;
use crate::method::{self, MethodConfig};
use crate::{
    CheckpointEvery, DeviceKind, DistributionConfig, Error, InitConfig, OptimizerConfig, OwnConfig,
    Precision, Result, ScheduleConfig,
};

/// Which network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// A name of `mixskd models`, or `auto`: `cifar_resnet18` where images are fed at up to 96 pixels, `resnet18` where they are larger.
    pub name: String,
    /// Width multiplier of every layer.
    pub width: f64,
    /// ReLU after the stem's batch norm; `false` reproduces the released MixSKD code's CIFAR network.
    pub stem_relu: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            name: AUTO.into(),
            width: 0.125,
            stem_relu: true,
        }
    }
}

/// The name of whichever network suits the images.
const AUTO: &str = "auto";

impl NetworkConfig {
    /// Whether the name is left to the images.
    pub(crate) fn is_auto(&self) -> bool {
        self.name == AUTO
    }

    /// Settles a name that is left to the images, which are fed at `size` pixels.
    pub(crate) fn settle(&mut self, size: usize) {
        if self.is_auto() {
            let name = if size <= 96 {
                "cifar_resnet18"
            } else {
                "resnet18"
            };
            self.name = name.into();
        }
    }
}

/// What happens when a loss or a gradient is not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNan {
    /// The run stops; its newest checkpoint is good.
    #[default]
    Stop,
    /// The step changes nothing, and the run goes on, at most `run.max_skips` times.
    Skip,
}

/// Settings of the loop itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Passes over the training set.
    pub epochs: usize,
    /// Original images per step (mixes come on top), in each process of a distributed run. An incomplete last batch of an epoch is dropped.
    pub batch: usize,
    /// Images per evaluation batch.
    pub eval_batch: usize,
    /// Seed of every random draw.
    pub seed: u64,
    /// Batches prepared ahead of the step.
    pub prefetch: usize,
    /// Side of the network's input in pixels; 0 takes what suits the data.
    pub image_size: usize,
    /// Checkpoints kept; older ones are removed.
    pub keep_checkpoints: usize,
    /// How often a checkpoint is written beside the one after each epoch: `epoch` (no more than that), a number of steps
    /// (`200`) or of seconds (`"30s"`). With `optimizer.accumulate`, after the update that is then under way.
    pub checkpoint_every: CheckpointEvery,
    /// What happens when a loss or a gradient is NaN or infinite: `stop`, or `skip` that step.
    pub on_nan: OnNan,
    /// Steps that `on_nan = "skip"` leaves out before it stops, counted over the whole run.
    pub max_skips: usize,
    /// Batches of an epoch and of an evaluation; 0 for all. For trying a configuration out.
    pub max_batches: usize,
    /// `auto` (the first GPU that can be opened, else the CPU), `cpu`, or `cuda` (an error where there is none). In a distributed run, the GPU of the process's local rank.
    pub device: DeviceKind,
    /// `f32`; on a GPU also `tf32` (factors of products cut to ten bits) or `bf16` (feature maps in bfloat16, other products as
    /// with `tf32`; parameters, statistics, losses and the optimiser's state stay float32).
    pub precision: Precision,
    /// On a GPU: whether a step that is the same work every time is captured as a CUDA graph and launched as a whole. It is captured where the
    /// method allows it, `optimizer.accumulate` is 1, gradients are not clipped and the run has one process.
    pub cuda_graph: bool,
    /// On a GPU: whether branches run beside the backbone, and heads and terms beside each other, where a step is captured. It changes no bit.
    pub cuda_branches: bool,
    /// On a GPU: whether cuDNN's ways to compute a convolution are tried out when it comes up for the first time and the fastest is taken, instead of the
    /// one that cuDNN guesses. A run of one process that is resumed goes on with its own choices, and its weights have the same bits; two runs need not
    /// choose alike.
    pub cudnn_benchmark: bool,
}

impl RunConfig {
    pub(crate) fn launching(&self) -> Launching {
        Launching::new(self.cuda_graph, self.cuda_branches)
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            epochs: 6,
            batch: 64,
            eval_batch: 250,
            seed: 0,
            prefetch: 4,
            image_size: 0,
            keep_checkpoints: 2,
            checkpoint_every: CheckpointEvery::Epoch,
            on_nan: OnNan::Stop,
            max_skips: 10,
            max_batches: 0,
            device: DeviceKind::Auto,
            precision: Precision::F32,
            cuda_graph: true,
            cuda_branches: true,
            cudnn_benchmark: false,
        }
    }
}

/// Batches that may be prepared ahead: beyond it memory is wasted and nothing is faster.
const MAX_PREFETCH: usize = 1024;

/// Bytes of a configuration file; what has more is something else, and may have no end.
const MAX_FILE: u64 = 1 << 20;

fn text_of(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    let read = read.map_err(Error::file(path, "read"))?;
    if read as u64 > MAX_FILE {
        let message = "is larger than 1 MiB, which no configuration is";
        return Err(Error::config(path.display().to_string(), message));
    }
    Ok(text)
}

/// Everything that decides a run. The same configuration gives the same bits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The data.
    pub data: DataConfig,
    /// The network.
    pub model: NetworkConfig,
    /// Where its weights start.
    pub init: InitConfig,
    /// The method.
    pub method: MethodConfig,
    /// Terms and weights of the MixSKD objective.
    pub objective: ObjectiveConfig,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// The learning-rate schedule.
    pub schedule: ScheduleConfig,
    /// The loop.
    pub run: RunConfig,
    /// The processes that share the run.
    pub distribution: DistributionConfig,
    /// What the run has from the program that began it; nothing of what the command line begins.
    #[serde(skip_serializing_if = "OwnConfig::is_empty")]
    pub own: OwnConfig,
}

impl TrainConfig {
    /// Name of the method that trains, as it stands in records: that of the caller's own, where there is one.
    pub fn method_name(&self) -> &str {
        let own = self.own.method.as_deref();
        own.unwrap_or(self.method.name())
    }

    /// Reads a TOML file; keys it does not name keep their defaults.
    ///
    /// # Errors
    /// When the file cannot be read, or names an unknown key or a value of the wrong type: file and line are told.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = text_of(path)?;
        toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text[..start].matches('\n').count() + 1;
            config_keys::explain(&format!("{}:{line}", path.display()), error.message())
        })
    }

    /// `error` with the line of the file at `path`, where it is about a key whose value in this configuration is the file's.
    pub fn in_file(&self, path: &Path, error: Error) -> Error {
        let Error::Config {
            place,
            message,
            hint,
        } = error
        else {
            return error;
        };
        let line = text_of(path).ok().and_then(|text| {
            let file: toml::Table = text.parse().ok()?;
            let own = toml::Table::try_from(self).ok()?;
            (value(&file, &place)? == value(&own, &place)?).then(|| line_of(&text, &place))?
        });
        let place = match line {
            Some(line) => format!("{}:{line}: {place}", path.display()),
            None => place,
        };
        Error::Config {
            place,
            message,
            hint,
        }
    }

    /// This configuration with `KEY=VALUE` applied, where KEY is dotted (`optimizer.lr`) and VALUE is TOML; a bare word is
    /// taken as a string.
    ///
    /// # Errors
    /// When the key is unknown or the value has the wrong type.
    pub fn with(&self, assignment: &str) -> Result<Self> {
        let parts = assignment.split_once('=');
        let Some((key, value)) = parts.filter(|(key, _)| !key.trim().is_empty()) else {
            return Err(Error::Config {
                place: format!("--set {assignment}"),
                message: "is not of the form KEY=VALUE".into(),
                hint: Some("for example --set optimizer.lr=0.1".into()),
            });
        };
        let key = key.trim();
        let value = value.trim();
        let parsed = format!("v = {value}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.into()));
        self.with_value(key, parsed)
    }

    /// Whether a `KEY=VALUE` setting is of the objective: the whole of it by name, or one of its keys.
    pub fn is_of_objective(assignment: &str) -> bool {
        let key = assignment.split('=').next().unwrap_or_default().trim();
        key == "objective" || key.starts_with("objective.")
    }

    /// This configuration with the dotted `key` set to `value`.
    ///
    /// # Errors
    /// When the key is unknown or the value has the wrong type.
    ///
    /// Another `method.name` puts that method's settings at their defaults; a named `objective` replaces the whole of it.
    pub fn with_value(&self, key: &str, value: impl Into<toml::Value>) -> Result<Self> {
        let mut value = value.into();
        if let ("objective", toml::Value::String(name)) = (key, &value) {
            let mut config = self.clone();
            config.objective = ObjectiveConfig::preset(name)?;
            return Ok(config);
        }
        let mut root =
            toml::Table::try_from(self).map_err(|error| Error::config(key, error.to_string()))?;
        if let (Some(toml::Value::Table(keys)), false) = (root.get(key), value.is_table()) {
            return Err(config_keys::is_section(key, keys));
        }
        let (sections, leaf) = key
            .rsplit_once('.')
            .map_or((vec![], key), |(s, leaf)| (s.split('.').collect(), leaf));
        let mut table = &mut root;
        for section in sections {
            table = table
                .entry(section)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .ok_or_else(|| {
                    Error::config(key, format!("`{section}` is a value, not a section"))
                })?;
        }
        // `lr = 1` is as good as `lr = 1.0`.
        if let (Some(toml::Value::Float(_)), toml::Value::Integer(whole)) =
            (table.get(leaf), &value)
        {
            value = toml::Value::Float(*whole as f64);
        }
        if key == "method.name" && table.get(leaf) != Some(&value) {
            // Another method has settings of its own: those of the one before mean nothing to it.
            table.clear();
        }
        table.insert(leaf.into(), value);
        root.try_into()
            .map_err(|error: toml::de::Error| config_keys::explain(key, error.message()))
    }

    /// The configuration as TOML, every key written out.
    ///
    /// # Errors
    /// When a value cannot be written as TOML, such as a seed above 2⁶³.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::config("config", error.to_string()))
    }

    /// Checks every range that does not need the data.
    ///
    /// # Errors
    /// Naming the key and the range.
    pub fn validate(&self) -> Result<()> {
        let at_least_one = |key: &str, value: usize| {
            if value >= 1 {
                Ok(())
            } else {
                Err(Error::config(key, "must be at least 1, got 0"))
            }
        };
        at_least_one("run.epochs", self.run.epochs)?;
        at_least_one("run.batch", self.run.batch)?;
        at_least_one("run.eval_batch", self.run.eval_batch)?;
        at_least_one("run.prefetch", self.run.prefetch)?;
        at_least_one("run.keep_checkpoints", self.run.keep_checkpoints)?;
        if self.run.prefetch > MAX_PREFETCH {
            return Err(Error::config(
                "run.prefetch",
                format!("must be at most {MAX_PREFETCH}, got {}", self.run.prefetch),
            ));
        }
        let within = |key: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(
                    key,
                    format!("must be from {low} to {high}, got {value}"),
                ))
            }
        };
        within(
            "objective.temperature",
            self.objective.temperature,
            1e-2,
            1e3,
        )?;
        if i64::try_from(self.run.seed).is_err() {
            return Err(Error::config("run.seed", "must be below 2^63"));
        }
        let width = self.model.width;
        if !(width > 0.0 && width <= 8.0) {
            return Err(Error::config(
                "model.width",
                format!("must be above 0 and at most 8, got {width}"),
            ));
        }
        self.init.validate()?;
        self.distribution.validate()?;
        self.optimizer.validate()?;
        self.method.validate()?;
        self.objective
            .validate()
            .map_err(|error| Error::from(error).with_key())?;
        (method::spec(self.method.name())?.check_objective)(&self.method, &self.objective)?;
        for augment in &self.data.augment {
            augment
                .build()
                .map_err(|error| Error::from(error).with_key())?;
        }
        self.schedule.build(self.optimizer.lr, self.run.epochs, 1)?;
        Ok(())
    }
}

/// The value of a dotted key, whole numbers as floats: a file may say `1` for `1.0`.
fn value(table: &toml::Table, key: &str) -> Option<toml::Value> {
    let (section, leaf) = key.split_once('.')?;
    match table.get(section)?.get(leaf)? {
        toml::Value::Integer(whole) => Some(toml::Value::Float(*whole as f64)),
        value => Some(value.clone()),
    }
}

/// The line, from 1, that sets a dotted key in `[section]` or at the top.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut section = String::new();
    for (k, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.split(']').next().unwrap_or(name).trim());
        } else if let Some((name, _)) = line.split_once('=')
            && format!("{section}{}", name.trim()) == key
        {
            return Some(k + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(assignment: &str, wanted: &[&str]) {
        let error = TrainConfig::default()
            .with(assignment)
            .and_then(|c| c.validate().map(|()| c))
            .unwrap_err();
        let text = format!("{error}; hint: {}", error.hint().unwrap_or_default());
        assert!(error.is_usage(), "{text}");
        for part in wanted {
            assert!(text.contains(part), "`{text}` lacks `{part}`");
        }
    }

    #[test]
    fn defaults_survive_a_round_trip() {
        let config = TrainConfig::default();
        assert_eq!(
            toml::from_str::<TrainConfig>(&config.to_toml().unwrap()).unwrap(),
            config
        );
        config.validate().unwrap();
    }

    #[test]
    fn set_takes_numbers_words_and_lists() {
        let config = TrainConfig::default();
        assert_eq!(config.with("optimizer.lr=1").unwrap().optimizer.lr, 1.0);
        assert_eq!(config.with("method.name=ce").unwrap().method.name(), "ce");
        let soft = config.with("objective=soft-labels").unwrap().objective;
        assert_eq!(soft, ObjectiveConfig::preset("soft-labels").unwrap());
        assert_eq!(
            config
                .with("schedule.milestones=[3, 5]")
                .unwrap()
                .schedule
                .milestones,
            [3, 5]
        );
    }

    #[test]
    fn wrong_keys_and_values_are_named_with_the_nearest() {
        check_error(
            "optimizer.momentun=0.5",
            &["optimizer.momentun", "`momentum`"],
        );
        check_error("optimiser.lr=0.5", &["did you mean `optimizer`"]);
        check_error("epochs=3", &["`epochs`", "did you mean `run.epochs`?"]);
        check_error("seed=3", &["`data.seed` or `run.seed`"]);
        check_error("flip=false", &["did you mean `data.flip`?"]);
        check_error("run.lr=1", &["did you mean `optimizer.lr`?"]);
        check_error("model=resnet18", &["is a section", "`model.name`?"]);
        check_error("optimizer=adam", &["is a section", "optimizer.lr"]);
        check_error("method.name=mixsdk", &["did you mean `mixskd`"]);
        check_error("method.alhpa=1", &["method.alhpa", "`alpha`"]);
        check_error("method.alpha=0", &["method.alpha", "must be from"]);
        check_error("schedule.kind=cosin", &["did you mean `cosine`"]);
        check_error("run.epochs=many", &["run.epochs", "invalid type"]);
        check_error("model.width=0", &["model.width", "above 0"]);
        check_error("objective.temperature=-3", &["temperature"]);
        check_error("objective=mixsdk", &["mixsdk"]);
        check_error("nonsense", &["KEY=VALUE"]);
    }

    #[test]
    fn another_method_begins_with_its_own_defaults() {
        let mixup = TrainConfig::default()
            .with("method.alpha=1")
            .and_then(|c| c.with("method.name=mixup"))
            .unwrap();
        assert_eq!(mixup.method.settings()["alpha"].as_float(), Some(0.4));
        let kept = mixup
            .with("method.alpha=1")
            .and_then(|c| c.with("method.name=mixup"));
        assert_eq!(
            kept.unwrap().method.settings()["alpha"].as_float(),
            Some(1.0)
        );
        let error = mixup
            .with("method.name=ce")
            .and_then(|c| c.with("method.alpha=1"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ce has no setting `alpha`"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_told_with_its_line_where_the_file_says_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        std::fs::write(
            &path,
            "# a run\n[optimizer]\nlr = 0.1\nmomentum = 2\n[run]\nepochs = 3\n",
        )
        .unwrap();
        let config = TrainConfig::from_file(&path).unwrap();
        let error = config.in_file(&path, config.validate().unwrap_err());
        assert!(
            error.to_string().contains("run.toml:4: optimizer.momentum"),
            "{error}"
        );
        // So is one that a lower crate refuses.
        for (text, wanted) in [
            (
                "[objective]\nfeature = -1\n",
                "run.toml:2: objective.feature",
            ),
            (
                "[data]\nval_fraction = 7\n",
                "run.toml:2: data.val_fraction",
            ),
            (
                "[data]\n\naugment = [\"cutuot\"]\n",
                "run.toml:3: data.augment",
            ),
            ("[run]\nimage_size = 70000\n", "run.toml:2: run.image_size"),
        ] {
            std::fs::write(&path, text).unwrap();
            let config = TrainConfig::from_file(&path).unwrap();
            let error = crate::Trainer::new(&config).err().unwrap();
            let error = config.in_file(&path, error);
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(error.is_usage());
        }
        // Said by somebody else, the file is not to blame.
        let other = config.with("optimizer.momentum=3").unwrap();
        let error = other.in_file(&path, other.validate().unwrap_err());
        assert!(
            error.to_string().starts_with("optimizer.momentum"),
            "{error}"
        );
    }

    #[test]
    fn a_file_error_names_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        std::fs::write(&path, "[run]\nepochs = 3\nbach = 4\n").unwrap();
        let error = TrainConfig::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("run.toml:3"), "{error}");
        assert!(error.hint().unwrap().contains("`batch`"));
    }
}
