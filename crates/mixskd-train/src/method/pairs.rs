//! Pairs of a batch, how they are mixed, and the settings that methods which mix share.

use candle_core::{DType, Device, Tensor};
use mixskd_data::{LambdaPer, PairSampler, PixelBox};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{MethodInputs, Mixes, TrainBatch};
use crate::Result;

/// What makes one image of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operator {
    /// `λ·x + (1−λ)·x[π]`.
    #[default]
    Mixup,
    /// x with a box of x[π]; λ is the area that x keeps.
    Cutmix,
}

/// How the feature maps of originals are interpolated, to be compared with those of mixes made by a box.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MapMix {
    /// By λ, the same everywhere.
    #[default]
    Lambda,
    /// By the box at the map's own resolution: each position keeps the share of its area outside the box.
    Box,
}

/// Settings of mixup's λ.
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

/// Draws the pairs of any batch.
pub(super) struct Mixer {
    pub(super) sampler: PairSampler,
    pub(super) operator: Operator,
    pub(super) maps: MapMix,
}

impl Mixer {
    pub(super) fn draw(&self, batch: &TrainBatch) -> Result<PairTensors> {
        match self.operator {
            Operator::Mixup => PairTensors::draw(&self.sampler, batch),
            Operator::Cutmix => {
                let (size, height, width, _) = batch.images.dims4()?;
                let (epoch, step) = (batch.epoch as u64, batch.step as u64);
                let (pairs, boxes) = self
                    .sampler
                    .draw_boxes(epoch, step, size, (height, width))?;
                let mut tensors = PairTensors::of(&pairs, batch)?;
                tensors.cut = Some(Cut {
                    boxes,
                    image: (height, width),
                    maps: self.maps,
                });
                Ok(tensors)
            }
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
    /// Set where a box mixes the images.
    pub(super) cut: Option<Cut>,
}

/// The boxes of one batch.
pub(super) struct Cut {
    boxes: Vec<PixelBox>,
    /// Height and width of the images.
    image: (usize, usize),
    maps: MapMix,
}

impl PairTensors {
    pub(super) fn draw(sampler: &PairSampler, batch: &TrainBatch) -> Result<Self> {
        let size = batch.images.dim(0)?;
        let pairs = sampler.draw(batch.epoch as u64, batch.step as u64, size)?;
        Self::of(&pairs, batch)
    }

    fn of(pairs: &mixskd_data::Pairs, batch: &TrainBatch) -> Result<Self> {
        let device = batch.images.device();
        let own = pairs
            .lambda
            .iter()
            .map(|&l| u8::from(l >= 0.5))
            .collect::<Vec<_>>();
        let partner = Tensor::new(pairs.partner.as_slice(), device)?;
        // As exact as losses are, whatever maps are kept in.
        let dtype = match batch.images.dtype() {
            DType::BF16 => DType::F32,
            dtype => dtype,
        };
        let lambda = Tensor::new(pairs.lambda.as_slice(), device)?.to_dtype(dtype)?;
        let partner_labels = batch.labels.index_select(&partner, 0)?;
        let dominant =
            Tensor::new(own.as_slice(), device)?.where_cond(&batch.labels, &partner_labels)?;
        Ok(Self {
            partner,
            partner_labels,
            lambda,
            dominant,
            cut: None,
        })
    }

    /// `λ·x + (1−λ)·x[π]`.
    pub(super) fn mix(&self, x: &Tensor) -> Result<Tensor> {
        Ok(mixskd_kernels::interpolate(x, &self.partner, &self.lambda)?)
    }

    /// The mixed images.
    pub(super) fn images(&self, x: &Tensor) -> Result<Tensor> {
        match &self.cut {
            Some(cut) => self.cut(x, cut),
            None => self.mix(x),
        }
    }

    /// Interpolated feature maps `[batch, height, width, channel]`.
    pub(super) fn maps(&self, x: &Tensor) -> Result<Tensor> {
        match &self.cut {
            Some(cut) if cut.maps == MapMix::Box => self.cut(x, cut),
            _ => self.mix(x),
        }
    }

    /// The mixed images, to be shown.
    pub(super) fn shown(&self, x: &Tensor) -> Result<Mixes> {
        Ok(Mixes {
            images: self.images(x)?,
            partner: self.partner.to_vec1()?,
            lambda: self.lambda.to_dtype(DType::F32)?.to_vec1()?,
            originals: false,
            depth: 0,
        })
    }

    /// mixCE of the mixes' logits.
    pub(super) fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        Ok(mixskd_losses::mix_cross_entropy(
            logits,
            labels,
            &self.partner_labels,
            &self.lambda,
        )?)
    }

    /// `s·x + (1−s)·x[π]`, s the share of each position that lies outside the box.
    fn cut(&self, x: &Tensor, cut: &Cut) -> Result<Tensor> {
        let (batch, height, width, _) = x.dims4()?;
        let kept: Vec<f32> = cut
            .boxes
            .iter()
            .flat_map(|b| b.kept(cut.image, (height, width)))
            .collect();
        let kept = Tensor::from_vec(kept, (batch, height, width, 1), &Device::Cpu)?;
        let kept = kept.to_dtype(x.dtype())?.to_device(x.device())?;
        let partner = x.index_select(&self.partner, 0)?;
        let given = partner.broadcast_mul(&(1.0 - &kept)?)?;
        Ok((x.broadcast_mul(&kept)? + given)?)
    }
}
