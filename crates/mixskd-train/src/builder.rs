//! A trainer with parts that no configuration names: a data set, or a method, of the caller's own.

use mixskd_data::{BatchNeeds, Dataset};
use serde::{Deserialize, Serialize};

use crate::method::{Method, MethodInputs, MethodSpec};
use crate::{Control, Error, Place, Result, TrainConfig, Trainer};

/// Names of the parts that a run has from the program that began it, for the record; see [`Trainer::builder`]. Nothing else can go on
/// with such a run: its configuration does not say how those parts are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnConfig {
    /// Name of the method; `method.name` is not read then.
    pub method: Option<String>,
    /// Name of the data set; `data.source` is not read then.
    pub data: Option<String>,
}

impl OwnConfig {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Builds a method from what a trainer has made: the network's configuration, its parameters, the seed.
type Build = Box<dyn FnOnce(&MethodInputs) -> Result<Box<dyn Method>>>;

/// A method of the caller's own.
pub(crate) struct OwnMethod {
    name: String,
    needs: BatchNeeds,
    build: Build,
}

/// Makes a [`Trainer`] of a configuration and of parts of the caller's own.
///
/// ```
/// use candle_core::Tensor;
/// use mixskd_data::{BatchNeeds, DataConfig};
/// use mixskd_models::{Backbone, Mode};
/// use mixskd_train::method::{Method, StepOutput, TrainBatch};
/// use mixskd_train::{RunDir, TrainConfig, Trainer};
///
/// /// Cross-entropy with a penalty on large logits.
/// struct Calm {
///     backbone: Box<dyn Backbone>,
/// }
///
/// impl Method for Calm {
///     fn backbone(&self) -> &dyn Backbone {
///         self.backbone.as_ref()
///     }
///
///     fn step(&mut self, batch: &TrainBatch) -> mixskd_train::Result<StepOutput> {
///         let logits = self.backbone.forward(&batch.images, Mode::Train)?;
///         let task = mixskd_losses::cross_entropy(&logits, &batch.labels)?;
///         let size = logits.sqr()?.mean_all()?;
///         let terms = [("task", 1.0, task), ("size", 1e-3, size)];
///         StepOutput::of(&terms, &logits, &batch.labels)
///     }
/// }
///
/// # fn main() -> mixskd_train::Result<()> {
/// let config = TrainConfig::default()
///     .with("model.width=0.03125")?
///     .with("run.batch=500")?
///     .with("run.epochs=1")?;
/// let mut dataset = DataConfig::default().open()?;
/// dataset.name = "mine".into();
/// let mut trainer = Trainer::builder(&config)
///     .dataset(dataset)
///     .method("calm", BatchNeeds::Anchors, |inputs| {
///         Ok(Box::new(Calm { backbone: inputs.backbone()? }))
///     })
///     .build()?;
/// let run = RunDir::create(&std::env::temp_dir().join("mixskd-calm"), trainer.config())?;
/// let report = trainer.run(&run, &mut ())?;
/// # std::fs::remove_dir_all(&report.dir).ok();
/// assert_eq!((report.method.as_str(), report.data.as_str()), ("calm", "mine"));
/// # Ok(())
/// # }
/// ```
pub struct TrainerBuilder {
    config: TrainConfig,
    place: Option<Place>,
    control: Control,
    pub(crate) dataset: Option<Dataset>,
    pub(crate) method: Option<OwnMethod>,
}

impl TrainerBuilder {
    pub(crate) fn new(config: &TrainConfig) -> Self {
        Self {
            config: config.clone(),
            place: None,
            control: Control::default(),
            dataset: None,
            method: None,
        }
    }

    /// Trains on `dataset`, whatever `data.source` says. Its augmentation is its own, too: `data.augment`, `data.flip` and `data.crop` are not read; `data.balance` is.
    #[must_use]
    pub fn dataset(mut self, dataset: Dataset) -> Self {
        self.dataset = Some(dataset);
        self
    }

    /// Trains by the method that `build` makes, whatever `method.name` says. `name` stands in records; `needs` is what a batch holds
    /// beside one view of each image. [`MethodInputs::backbone`] makes the network of the configuration; a network of another kind may be made
    /// from [`MethodInputs::builder`] under the prefix [`BACKBONE`](crate::method::BACKBONE), but then the weights file still names the one of the
    /// configuration, and what reads it refuses the tensors.
    #[must_use]
    pub fn method(
        mut self,
        name: impl Into<String>,
        needs: BatchNeeds,
        build: impl FnOnce(&MethodInputs) -> Result<Box<dyn Method>> + 'static,
    ) -> Self {
        self.method = Some(OwnMethod {
            name: name.into(),
            needs,
            build: Box::new(build),
        });
        self
    }

    /// Lets `control` stop the run and ask it for checkpoints. A handle can be had before the trainer is built, in another thread.
    #[must_use]
    pub fn control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// The place among the processes of a distributed run, whatever the launcher's variables say.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The trainer.
    ///
    /// # Errors
    /// As [`Trainer::new`], and when the data set has a single class, no image, or a label without a class.
    pub fn build(self) -> Result<Trainer> {
        let mut trainer = self.build_for_resume()?;
        trainer.require_start()?;
        Ok(trainer)
    }

    /// The trainer of a run about to be resumed by [`Trainer::resume`].
    ///
    /// # Errors
    /// As [`Trainer::for_resume`], and as [`Self::build`].
    pub fn build_for_resume(mut self) -> Result<Trainer> {
        let mut config = self.config.clone();
        let place = match self.place.take() {
            Some(place) => place,
            None => config.distribution.place()?,
        };
        config.validate()?;
        config.distribution.check(&place)?;
        let own = OwnConfig {
            method: self.method.as_ref().map(|method| method.name.clone()),
            data: self.dataset.as_ref().map(|dataset| dataset.name.clone()),
        };
        // A run knows its parts by name; a new one has none noted.
        for (key, noted, given) in [
            ("own.method", &config.own.method, &own.method),
            ("own.data", &config.own.data, &own.data),
        ] {
            if noted.is_some() && noted != given {
                let noted = noted.as_deref().unwrap_or_default();
                return Err(Error::Config {
                    place: key.into(),
                    message: format!("the run has its `{noted}` from the program that began it"),
                    hint: Some("go on with it from that program, by `Trainer::builder`".into()),
                });
            }
        }
        config.own = own;
        let control = self.control.clone();
        let mut trainer = Trainer::assemble(config, place, self).map_err(Error::with_key)?;
        trainer.control = control;
        Ok(trainer)
    }
}

/// What a batch has to hold, and what makes the method.
pub(crate) enum Maker {
    Known(&'static MethodSpec),
    Own(OwnMethod),
}

impl Maker {
    pub(crate) fn new(config: &TrainConfig, own: Option<OwnMethod>) -> Result<Self> {
        Ok(match own {
            Some(own) => Self::Own(own),
            None => Self::Known(crate::method::spec(config.method.name())?),
        })
    }

    pub(crate) fn needs(&self, config: &TrainConfig) -> Result<BatchNeeds> {
        match self {
            Self::Known(spec) => (spec.batch)(&config.method),
            Self::Own(own) => Ok(own.needs),
        }
    }

    pub(crate) fn build(self, inputs: &MethodInputs) -> Result<Box<dyn Method>> {
        match self {
            Self::Known(spec) => (spec.build)(inputs),
            Self::Own(own) => (own.build)(inputs),
        }
    }
}
