//! Methods: how one batch becomes a loss. One file each, one line each in [`ALL`].

mod bake;
mod byot;
mod ce;
mod config;
mod cs_kd;
mod cutmix;
mod ddgsd;
mod deep;
mod dks;
mod focal;
mod frskd;
mod label_smoothing;
mod manifold_mixup;
mod max_entropy;
mod mixskd;
mod mixup;
mod pairs;
mod ps_kd;
mod sad;
mod tf_kd;
mod virtual_softmax;

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_data::BatchNeeds;
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{Backbone, Cost, Frozen, Mode, ModelConfig, ParamStore};

use crate::Result;

pub use config::{MethodConfig, SettingsSpec};
use config::{NoSettings, Settings};
use pairs::Mixing;

/// Name of the head that survives training.
pub const BACKBONE: &str = "backbone";
/// Name of the head that teaches the others and is thrown away with them.
pub const SELF_TEACHER: &str = "self-teacher";

/// One training batch on the device: n anchors, then what the method's [`MethodSpec::batch`] asks for, in blocks of n rows.
#[derive(Debug, Clone)]
pub struct TrainBatch {
    /// Normalised images, `[rows, height, width, channel]`: float32, or bfloat16 where `run.precision` says so.
    pub images: Tensor,
    /// Class of each image, `[rows]`, u32.
    pub labels: Tensor,
    /// Index of each image in the training set.
    pub indices: Vec<u32>,
    /// Epoch, from 0.
    pub epoch: usize,
    /// Place among the batches of the epoch, from 0: the step, where one process takes all of them.
    pub step: usize,
    /// What [`Method::draws`] gave for it, on the device; where it is empty a method draws for itself.
    pub draws: Vec<Tensor>,
}

/// What a step's draws are made for.
#[derive(Debug, Clone, Copy)]
pub struct DrawSite<'a> {
    /// Class of each row of the batch.
    pub labels: &'a [u32],
    /// Height and width of its images.
    pub size: (usize, usize),
    /// Epoch, from 0.
    pub epoch: usize,
    /// Place among the batches of the epoch, from 0, as [`TrainBatch::step`].
    pub step: usize,
}

/// What a method says of one batch.
pub struct StepOutput {
    /// The scalar to minimise.
    pub loss: Tensor,
    /// Its named, unweighted terms, each a scalar.
    pub parts: Vec<(&'static str, Tensor)>,
    /// The backbone's logits, `[batch, class]`, detached: the running training accuracy reads them. One row for each anchor,
    /// by which samples are counted.
    pub logits: Tensor,
    /// What those logits should have said, `[batch]`, u32; for mixed images the class with the larger share.
    pub targets: Tensor,
}

impl StepOutput {
    /// The weighted sum of `terms` (name, weight, value), with the backbone's logits and what they should have said. A term of
    /// weight 0 is reported and adds nothing to the gradient's graph.
    ///
    /// # Shapes
    /// - values: `[]`
    /// - `logits`: `[batch, class]`, one row for each anchor
    /// - `targets`: `[batch]`, u32
    ///
    /// # Errors
    /// When there is no term, or a value is no scalar.
    pub fn of(
        terms: &[(&'static str, f64, Tensor)],
        logits: &Tensor,
        targets: &Tensor,
    ) -> Result<Self> {
        if terms.is_empty() {
            return Err(crate::Error::config("method", "a step gives no term"));
        }
        if let Some((name, _, value)) = terms.iter().find(|(_, _, value)| value.rank() != 0) {
            let message = format!("`{name}` is to be a scalar, got {:?}", value.dims());
            return Err(crate::Error::config("method", message));
        }
        let mut loss = Tensor::zeros((), logits.dtype(), logits.device())?;
        for (_, weight, value) in terms {
            if *weight != 0.0 {
                loss = (loss + (value * *weight)?)?;
            }
        }
        let parts = terms.iter().map(|(name, _, value)| (*name, value.detach()));
        Ok(Self {
            loss,
            parts: parts.collect(),
            logits: logits.detach(),
            targets: targets.clone(),
        })
    }
}

/// The mixes of one batch of n anchors: row i is made of anchor i and of anchor `partner[i]`.
pub struct Mixes {
    /// What goes through the network, `[n, height, width, channel]`.
    pub images: Tensor,
    /// Which anchor each is mixed with.
    pub partner: Vec<u32>,
    /// Share of the anchor itself; its partner has the rest.
    pub lambda: Vec<f32>,
    /// Whether the anchors go through the network besides.
    pub originals: bool,
    /// The stage, counted from 1, after which feature maps are mixed while `images` are the anchors as they are; 0 where `images`
    /// are mixed.
    pub depth: usize,
}

/// A way of training a backbone.
pub trait Method {
    /// The network that is kept.
    fn backbone(&self) -> &dyn Backbone;

    /// What a step draws beside its batch, on the CPU, for [`TrainBatch::draws`]: a function of the seed and of `site`, and always of the
    /// same shapes and types.
    ///
    /// # Errors
    /// When a setting does not allow a draw.
    fn draws(&self, _site: &DrawSite) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// Whether every step asks a GPU for the same work, given its batch and draws, and leaves nothing behind but parameters and running
    /// statistics: then it may be captured once and launched again.
    fn is_static(&self) -> bool {
        false
    }

    /// The loss of one batch, with the network in training mode.
    ///
    /// # Errors
    /// When the batch does not fit the network.
    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput>;

    /// Forgets what the last [`Self::step`] has remembered for later ones: it came to something that is not finite, and is left out.
    fn undo_step(&mut self) {}

    /// Logits `[batch, class]` of every head in evaluation mode by name, for images `[batch, height, width, channel]`: first those of [`BACKBONE`], the
    /// network that is kept; the best of the others counts in a report unless it is called [`SELF_TEACHER`].
    ///
    /// # Errors
    /// When the images do not fit the network.
    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let logits = self.backbone().forward(images, Mode::Eval)?;
        Ok(vec![(BACKBONE.into(), logits)])
    }

    /// What is mixed of this batch, as [`Self::step`] mixes it; nothing where the images go through the network as they are.
    ///
    /// # Errors
    /// When the batch does not fit the network.
    fn mixes(&self, _batch: &TrainBatch) -> Result<Option<Mixes>> {
        Ok(None)
    }

    /// Images that go through the network per image of the batch, for the cost estimate.
    fn images_per_sample(&self) -> usize {
        1
    }

    /// Cost of one forward pass of everything in training, for one image of `size` pixels a side.
    ///
    /// # Errors
    /// When the image is too small for the network.
    fn cost(&self, size: usize) -> Result<Cost> {
        Ok(self.backbone().cost((size, size))?)
    }

    /// What the method remembers between steps beside its parameters, by name, for a checkpoint. Float32: a trainer refuses a method whose state is of another
    /// type. (A count up to 2²⁴ is as good as a float.)
    ///
    /// # Errors
    /// candle's.
    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::new())
    }

    /// Takes back what [`Self::state`] gave.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    fn load_state(&mut self, _state: &BTreeMap<String, Tensor>) -> Result<()> {
        Ok(())
    }
}

/// What a method is built from.
pub struct MethodInputs<'a> {
    /// Which method, and its settings.
    pub config: &'a MethodConfig,
    /// Weights and switches of the MixSKD objective.
    pub objective: &'a ObjectiveConfig,
    /// The network's configuration.
    pub model: &'a ModelConfig,
    /// Where parameters live. Its root holds `backbone.`; whatever a method adds stands beside it.
    pub store: &'a ParamStore,
    /// Seed of every draw.
    pub seed: u64,
    /// Epochs of the run.
    pub epochs: usize,
    /// Images of the training set; [`TrainBatch::indices`] are below it.
    pub train_images: usize,
    /// Whether the backbone's stages stay as they are, see [`Frozen`].
    pub freeze_backbone: bool,
}

impl MethodInputs<'_> {
    /// Makes parameters: those of the network that is kept under [`BACKBONE`], others under prefixes beside it.
    pub fn builder(&self) -> VarBuilder<'static> {
        self.store.builder()
    }

    /// The network of [`Self::model`] under [`BACKBONE`], frozen where that was asked for.
    ///
    /// # Errors
    /// When there is no such network, or its configuration is out of range.
    pub fn backbone(&self) -> Result<Box<dyn Backbone>> {
        let backbone = self.model.build(self.builder().pp(BACKBONE))?;
        Ok(if self.freeze_backbone {
            Box::new(Frozen::new(backbone))
        } else {
            backbone
        })
    }

    /// The method's settings in its own type.
    fn settings<T: Settings>(&self) -> Result<T> {
        self.config.typed()
    }
}

/// One row of the table of methods.
pub struct MethodSpec {
    /// Name on the command line.
    pub name: &'static str,
    /// What it adds to cross-entropy, in one line.
    pub summary: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Its settings.
    pub settings: SettingsSpec,
    /// What it needs of a batch.
    pub batch: fn(&MethodConfig) -> Result<BatchNeeds>,
    /// Whether it reads the MixSKD objective.
    pub objective: bool,
    /// Whether something of the MixSKD objective is left to learn with its settings; methods without it take any.
    pub check_objective: fn(&MethodConfig, &ObjectiveConfig) -> Result<()>,
    /// Makes it.
    pub build: fn(&MethodInputs) -> Result<Box<dyn Method>>,
}

impl MethodSpec {
    /// What most rows have: no settings, the anchors alone, no objective.
    const PLAIN: Self = Self {
        name: "",
        summary: "",
        source: "",
        settings: SettingsSpec::of::<NoSettings>(),
        batch: |_| Ok(BatchNeeds::Anchors),
        objective: false,
        check_objective: |_, _| Ok(()),
        build: |_| {
            Err(crate::Error::config(
                "method.name",
                "has nothing that builds it",
            ))
        },
    };
}

/// Every method.
pub static ALL: &[MethodSpec] = &[
    ce::SPEC,
    label_smoothing::SPEC,
    focal::SPEC,
    max_entropy::SPEC,
    virtual_softmax::SPEC,
    mixup::SPEC,
    manifold_mixup::SPEC,
    cutmix::SPEC,
    ddgsd::SPEC,
    dks::SPEC,
    sad::SPEC,
    byot::SPEC,
    tf_kd::SPEC,
    cs_kd::SPEC,
    ps_kd::SPEC,
    bake::SPEC,
    frskd::SPEC,
    mixskd::SPEC,
];

/// The method called `name`.
///
/// # Errors
/// When there is none; the error names the nearest.
pub fn spec(name: &str) -> Result<&'static MethodSpec> {
    ALL.iter().find(|spec| spec.name == name).ok_or_else(|| {
        crate::config_keys::unknown_name(
            "method.name",
            "method",
            name,
            ALL.iter().map(|spec| spec.name),
        )
    })
}
