//! Methods: how one batch becomes a loss. One file each, one line each in [`ALL`].

mod ce;
mod mixskd;
mod mixup;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_data::{LambdaPer, PairSampler};
use mixskd_losses::ObjectiveConfig;
use mixskd_models::{Backbone, Cost, ModelConfig, ParamStore};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Name of the head that survives training.
pub const BACKBONE: &str = "backbone";

/// One training batch on the device.
#[derive(Debug, Clone)]
pub struct TrainBatch {
    /// Normalised images, `[batch, height, width, channel]`, float32.
    pub images: Tensor,
    /// Class of each image, `[batch]`, u32.
    pub labels: Tensor,
    /// Index of each image in the training set.
    pub indices: Vec<u32>,
    /// Epoch, from 0.
    pub epoch: usize,
    /// Step inside the epoch, from 0.
    pub step: usize,
}

/// What a method says of one batch.
pub struct StepOutput {
    /// The scalar to minimise.
    pub loss: Tensor,
    /// Its named, unweighted terms, each a scalar.
    pub parts: Vec<(&'static str, Tensor)>,
    /// The backbone's logits, `[batch, class]`, detached: the running training accuracy reads them.
    pub logits: Tensor,
    /// What those logits should have said, `[batch]`, u32; for mixed images the class with the larger share.
    pub targets: Tensor,
}

/// A way of training a backbone.
pub trait Method {
    /// The loss of one batch, with the network in training mode.
    ///
    /// # Errors
    /// When the batch does not fit the network.
    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput>;

    /// Logits of every head in evaluation mode, the backbone first, for images `[batch, height, width, channel]`.
    ///
    /// # Errors
    /// When the images do not fit the network.
    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>>;

    /// Images that go through the network per image of the batch, for the cost estimate.
    fn images_per_sample(&self) -> usize {
        1
    }

    /// Cost of one forward pass of everything in training, for one image of `size` pixels a side.
    ///
    /// # Errors
    /// When the image is too small for the network.
    fn cost(&self, size: usize) -> Result<Cost>;
}

/// Settings that methods share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MethodConfig {
    /// A name of [`ALL`].
    pub name: String,
    /// α of the Beta(α, α) that λ is drawn from.
    pub alpha: f64,
    /// One λ per `batch` or per `sample`.
    pub lambda_per: LambdaPer,
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self {
            name: "mixskd".into(),
            alpha: 0.4,
            lambda_per: LambdaPer::Batch,
        }
    }
}

/// What a method is built from.
pub struct MethodInputs<'a> {
    /// The shared settings.
    pub config: &'a MethodConfig,
    /// Weights and switches of the MixSKD objective.
    pub objective: &'a ObjectiveConfig,
    /// The network's configuration.
    pub model: &'a ModelConfig,
    /// Where parameters live. Its root holds `backbone.`; whatever a method adds stands beside it.
    pub store: &'a ParamStore,
    /// Seed of every draw.
    pub seed: u64,
}

impl MethodInputs<'_> {
    fn builder(&self) -> VarBuilder<'static> {
        self.store.builder()
    }

    fn backbone(&self) -> Result<Box<dyn Backbone>> {
        Ok(self.model.build(self.builder().pp(BACKBONE))?)
    }

    fn pairs(&self) -> PairSampler {
        PairSampler {
            alpha: self.config.alpha,
            per: self.config.lambda_per,
            seed: self.seed,
        }
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
    /// Makes it.
    pub build: fn(&MethodInputs) -> Result<Box<dyn Method>>,
}

/// Every method.
pub static ALL: &[MethodSpec] = &[ce::SPEC, mixup::SPEC, mixskd::SPEC];

/// The method called `name`.
///
/// # Errors
/// When there is none; the error names the nearest.
pub fn spec(name: &str) -> Result<&'static MethodSpec> {
    ALL.iter().find(|spec| spec.name == name).ok_or_else(|| {
        crate::config::unknown_name(
            "method.name",
            "method",
            name,
            ALL.iter().map(|spec| spec.name),
        )
    })
}

/// Pairs of one batch as tensors on the batch's device.
struct PairTensors {
    partner: Tensor,
    partner_labels: Tensor,
    lambda: Tensor,
    /// The class with the larger share in each mix.
    dominant: Tensor,
}

impl PairTensors {
    fn draw(sampler: &PairSampler, batch: &TrainBatch) -> Result<Self> {
        let size = batch.images.dim(0)?;
        let device = batch.images.device();
        let pairs = sampler.draw(batch.epoch as u64, batch.step as u64, size)?;
        let own = pairs
            .lambda
            .iter()
            .map(|&l| u8::from(l >= 0.5))
            .collect::<Vec<_>>();
        let partner = Tensor::new(pairs.partner.as_slice(), device)?;
        let lambda =
            Tensor::new(pairs.lambda.as_slice(), device)?.to_dtype(batch.images.dtype())?;
        let partner_labels = batch.labels.index_select(&partner, 0)?;
        let dominant =
            Tensor::new(own.as_slice(), device)?.where_cond(&batch.labels, &partner_labels)?;
        Ok(Self {
            partner,
            partner_labels,
            lambda,
            dominant,
        })
    }

    fn mix(&self, x: &Tensor) -> Result<Tensor> {
        Ok(mixskd_kernels::interpolate(x, &self.partner, &self.lambda)?)
    }
}
