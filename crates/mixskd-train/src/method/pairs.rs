//! Pairs of a batch, how they are mixed, and the settings that methods which mix share.

use candle_core::{DType, Device, Tensor};
use mixskd_data::{LambdaPer, PairSampler, PixelBox};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{DrawSite, MethodInputs, Mixes, TrainBatch};
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
    /// Share of the batches that are mixed; the others stay as they are.
    pub(super) probability: f64,
}

impl Mixer {
    /// Mixup's, by `settings`.
    pub(super) fn mixup(sampler: PairSampler) -> Self {
        Self {
            sampler,
            operator: Operator::Mixup,
            maps: MapMix::Lambda,
            probability: 1.0,
        }
    }

    /// What [`Self::pairs`] takes, for [`Method::draws`](super::Method::draws): π, the partners' labels, λ, the label with the larger
    /// share, and for boxes the rows and the columns of each that lie in it: bytes, as the masks of a batch would be megabytes on their way to a GPU.
    pub(super) fn draws(&self, site: &DrawSite) -> Result<Vec<Tensor>> {
        let (labels, cpu) = (site.labels, &Device::Cpu);
        let (pairs, boxes) = self.draw(site)?;
        let partner_labels: Vec<u32> = pairs.partner.iter().map(|&i| labels[i as usize]).collect();
        let shares = labels.iter().zip(&partner_labels).zip(&pairs.lambda);
        let dominant: Vec<u32> = shares
            .map(|((&own, &other), &lambda)| if lambda >= 0.5 { own } else { other })
            .collect();
        let mut draws = vec![
            Tensor::new(pairs.partner, cpu)?,
            Tensor::new(partner_labels, cpu)?,
            Tensor::new(pairs.lambda, cpu)?,
            Tensor::new(dominant, cpu)?,
        ];
        if !boxes.is_empty() {
            let (height, width) = site.size;
            let lines = boxes.iter().map(|cut| cut.lines(site.size));
            let (rows, columns): (Vec<_>, Vec<_>) = lines.unzip();
            let bytes = |lines: Vec<Vec<u8>>, height, width| {
                Tensor::from_vec(lines.concat(), (boxes.len(), height, width, 1), cpu)
            };
            draws.push(bytes(rows, height, 1)?);
            draws.push(bytes(columns, 1, width)?);
        }
        Ok(draws)
    }

    fn draw(&self, site: &DrawSite) -> Result<(mixskd_data::Pairs, Vec<PixelBox>)> {
        let (epoch, step, batch) = (site.epoch as u64, site.step as u64, site.labels.len());
        let (mut pairs, mut boxes) = match self.operator {
            Operator::Mixup => (self.sampler.draw(epoch, step, batch)?, Vec::new()),
            Operator::Cutmix => self.sampler.draw_boxes(epoch, step, batch, site.size)?,
        };
        if !self.sampler.is_mixed(epoch, step, self.probability) {
            pairs.partner = (0..batch as u32).collect();
            pairs.lambda.fill(1.0);
            for cut in &mut boxes {
                (cut.height, cut.width) = (0, 0);
            }
        }
        Ok((pairs, boxes))
    }

    /// Whether a step with these draws reads nothing else that is drawn: boxes at the maps' own resolution are made on the way.
    pub(super) fn is_static(&self) -> bool {
        self.operator == Operator::Mixup || self.maps == MapMix::Lambda
    }

    /// The pairs of `batch`: of its draws where it has them, else drawn here.
    pub(super) fn pairs(&self, batch: &TrainBatch) -> Result<PairTensors> {
        let (_, height, width, _) = batch.images.dims4()?;
        let labels;
        let site = DrawSite {
            labels: if batch.draws.is_empty() || !self.is_static() {
                labels = batch.labels.to_vec1::<u32>()?;
                &labels
            } else {
                &[]
            },
            size: (height, width),
            epoch: batch.epoch,
            step: batch.step,
        };
        let draws = if batch.draws.is_empty() {
            let device = batch.images.device();
            let draws = self.draws(&site)?.into_iter();
            draws
                .map(|t| Ok(t.to_device(device)?))
                .collect::<Result<_>>()?
        } else {
            batch.draws.clone()
        };
        let [partner, partner_labels, lambda, dominant, lines @ ..] = draws.as_slice() else {
            return Err(without_draws());
        };
        // In the type of the logits: as exact as losses are, whatever maps are kept in.
        let dtype = match batch.images.dtype() {
            DType::BF16 => DType::F32,
            dtype => dtype,
        };
        let cut = if lines.is_empty() {
            None
        } else {
            let [rows, columns] = lines else {
                return Err(without_draws());
            };
            let boxes = if self.is_static() {
                Vec::new()
            } else {
                self.draw(&site)?.1
            };
            let [rows, columns] = [rows, columns].map(|lines| lines.to_dtype(DType::F32));
            Some(Cut {
                kept: (1.0 - rows?.broadcast_mul(&columns?)?)?,
                boxes,
                image: site.size,
                maps: self.maps,
            })
        };
        Ok(PairTensors {
            partner: partner.clone(),
            partner_labels: partner_labels.clone(),
            lambda: lambda.to_dtype(dtype)?,
            dominant: dominant.clone(),
            cut,
        })
    }
}

fn without_draws() -> crate::Error {
    crate::Error::config("method", "a batch came without its draws")
}

/// Of each position of maps of size `map`, the share that lies outside of the boxes in images of size `image`:
/// `[batch, height, width, 1]`, float32.
fn kept(boxes: &[PixelBox], image: (usize, usize), map: (usize, usize)) -> Result<Tensor> {
    let kept: Vec<f32> = boxes.iter().flat_map(|b| b.kept(image, map)).collect();
    let shape = (boxes.len(), map.0, map.1, 1);
    Ok(Tensor::from_vec(kept, shape, &Device::Cpu)?)
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
    /// Share of each pixel of the images that stays.
    kept: Tensor,
    boxes: Vec<PixelBox>,
    /// Height and width of the images.
    image: (usize, usize),
    maps: MapMix,
}

impl PairTensors {
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
        let (_, height, width, _) = x.dims4()?;
        let kept = if (height, width) == cut.image {
            cut.kept.clone()
        } else {
            kept(&cut.boxes, cut.image, (height, width))?.to_device(x.device())?
        };
        let kept = kept.to_dtype(x.dtype())?;
        let partner = x.index_select(&self.partner, 0)?;
        let given = partner.broadcast_mul(&(1.0 - &kept)?)?;
        Ok((x.broadcast_mul(&kept)? + given)?)
    }
}
