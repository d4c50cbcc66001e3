//! Pairs of a batch, and the settings that methods which mix share.

use candle_core::Tensor;
use mixskd_data::{LambdaPer, PairSampler};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{MethodInputs, TrainBatch};
use crate::Result;

/// How images are mixed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mixing {
    /// α of the Beta(α, α) that λ is drawn from.
    pub(super) alpha: f64,
    /// One λ per `batch` or per `sample`.
    pub(super) lambda_per: LambdaPer,
}

impl Default for Mixing {
    fn default() -> Self {
        Self {
            alpha: 0.4,
            lambda_per: LambdaPer::Batch,
        }
    }
}

impl Settings for Mixing {
    fn validate(&self) -> Result<()> {
        config::alpha(self.alpha)
    }
}

impl Mixing {
    pub(super) fn sampler(&self, inputs: &MethodInputs) -> PairSampler {
        PairSampler {
            alpha: self.alpha,
            per: self.lambda_per,
            seed: inputs.seed,
        }
    }
}

/// Pairs of one batch as tensors on the batch's device.
pub(super) struct PairTensors {
    pub(super) partner: Tensor,
    pub(super) partner_labels: Tensor,
    pub(super) lambda: Tensor,
    /// The class with the larger share in each mix.
    pub(super) dominant: Tensor,
}

impl PairTensors {
    pub(super) fn draw(sampler: &PairSampler, batch: &TrainBatch) -> Result<Self> {
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

    pub(super) fn mix(&self, x: &Tensor) -> Result<Tensor> {
        Ok(mixskd_kernels::interpolate(x, &self.partner, &self.lambda)?)
    }
}
