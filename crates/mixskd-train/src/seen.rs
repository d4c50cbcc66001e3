//! Training images as the network sees them.

use candle_core::{DType, Device, Tensor};

use crate::method::{Mixes, TrainBatch};
use crate::{Result, Trainer};

/// Batches that a few images are taken from, where there are so many: each has a λ of its own.
const BATCHES: usize = 6;

/// One image as it enters the network in training.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Augmented, normalised, mixed: `[1, height, width, channel]`, float32, on the CPU.
    pub image: Tensor,
    /// What it is made of: one image, or two that are mixed, the one with the share λ first.
    pub sources: Vec<Source>,
    /// What it is: `image`, `view 2`, `same class`, `mix`, or `mixed after stage 2`, where the image enters as it is and its feature map
    /// is mixed there.
    pub what: String,
}

/// One of the images that an image is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source {
    /// Index in the training set.
    pub index: u32,
    /// Its class.
    pub label: u32,
    /// Its weight; those of a mix add up to 1.
    pub share: f32,
}

impl Trainer {
    /// The first `count` images of the first epoch as the network sees them, a few of each of the first batches; fewer where the epoch
    /// has no more. Rows of one anchor stand together: its views or companions, then its mix. Nothing is trained, no state of the run
    /// changes.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn seen(&self, count: usize) -> Result<Vec<Seen>> {
        let batch = self.config.run.batch;
        let batches = BATCHES.max(count.div_ceil(batch)).min(count);
        let batches = batches.min(self.steps_per_epoch());
        let mut shown = Vec::with_capacity(count);
        for (at, loaded) in self.train_feed.epoch_from(0, 0, batches).enumerate() {
            let loaded = self.prepare(loaded?, 0)?;
            let mixes = self.method().mixes(&loaded)?;
            // Of what is still wanted, each batch that is left gives its share.
            let wanted = count.saturating_sub(shown.len()).div_ceil(batches - at);
            let end = shown.len() + wanted;
            for anchor in 0..batch {
                if shown.len() >= end {
                    break;
                }
                shown.extend(rows(&loaded, batch, anchor, mixes.as_ref())?);
            }
        }
        shown.truncate(count);
        Ok(shown)
    }
}

/// Everything of anchor `anchor` that goes through the network.
fn rows(
    batch: &TrainBatch,
    anchors: usize,
    anchor: usize,
    mixes: Option<&Mixes>,
) -> Result<Vec<Seen>> {
    let labels = batch.labels.to_vec1::<u32>()?;
    let source = |row: usize, share| Source {
        index: batch.indices[row],
        label: labels[row],
        share,
    };
    let mut seen = Vec::new();
    if mixes.is_none_or(|mixes| mixes.originals) {
        for (block, row) in (anchor..labels.len()).step_by(anchors).enumerate() {
            let what = match block {
                0 => "image".into(),
                _ if batch.indices[row] == batch.indices[anchor] => format!("view {}", block + 1),
                _ => "same class".into(),
            };
            seen.push(Seen {
                image: one(&batch.images, row)?,
                sources: vec![source(row, 1.0)],
                what,
            });
        }
    }
    if let Some(mixes) = mixes {
        let lambda = mixes.lambda[anchor];
        let partner = mixes.partner[anchor] as usize;
        seen.push(Seen {
            image: one(&mixes.images, anchor)?,
            sources: vec![source(anchor, lambda), source(partner, 1.0 - lambda)],
            what: match mixes.depth {
                0 => "mix".into(),
                stage => format!("mixed after stage {stage}"),
            },
        });
    }
    Ok(seen)
}

/// Row `row` of `images`, where files are written from.
fn one(images: &Tensor, row: usize) -> Result<Tensor> {
    let image = images.narrow(0, row, 1)?.to_dtype(DType::F32)?;
    // A copy: a view would keep the whole batch alive.
    Ok(image.to_device(&Device::Cpu)?.force_contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrainConfig;

    fn trainer(settings: &[&str]) -> Trainer {
        let mut config = TrainConfig::default();
        for setting in ["model.width=0.03125", "run.batch=50"]
            .iter()
            .chain(settings)
        {
            config = config.with(setting).unwrap();
        }
        Trainer::new(&config).unwrap()
    }

    fn values(image: &Tensor) -> Vec<f32> {
        image.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The augmented images of the first batches, by index.
    fn augmented(trainer: &Trainer, batches: usize) -> Vec<(u32, Vec<f32>)> {
        let mut found = Vec::new();
        for batch in trainer.train_feed.epoch_from(0, 0, batches) {
            let batch = batch.unwrap();
            for (row, index) in batch.indices.iter().enumerate() {
                found.push((*index, values(&batch.images.narrow(0, row, 1).unwrap())));
            }
        }
        found
    }

    #[test]
    fn a_mix_is_its_two_sources_by_their_shares() {
        for method in ["mixup", "mixskd"] {
            let trainer = trainer(&[&format!("method.name={method}")]);
            let all = augmented(&trainer, BATCHES);
            let of = |index: u32| &all.iter().find(|(at, _)| *at == index).unwrap().1;
            let seen = trainer.seen(24).unwrap();
            assert_eq!(seen.len(), 24);
            let mut shares = Vec::new();
            for seen in &seen {
                let pixels = values(&seen.image);
                let mixed = seen.sources.iter().fold(vec![0.0; pixels.len()], |sum, s| {
                    let part = of(s.index).iter().zip(sum);
                    part.map(|(x, y)| s.share * x + y).collect::<Vec<f32>>()
                });
                let far = pixels.iter().zip(&mixed).any(|(a, b)| (a - b).abs() > 1e-5);
                assert!(!far, "{method}: {}", seen.what);
                if seen.what == "mix" {
                    shares.push(seen.sources[0].share);
                }
            }
            shares.dedup();
            // One λ for each batch.
            assert_eq!(shares.len(), BATCHES, "{method}");
        }
    }

    #[test]
    fn every_method_shows_what_it_trains_on() {
        for spec in crate::method::ALL {
            let trainer = trainer(&[&format!("method.name={}", spec.name)]);
            let seen = trainer.seen(9).unwrap();
            assert_eq!(seen.len(), 9, "{}", spec.name);
            for seen in &seen {
                let total: f32 = seen.sources.iter().map(|source| source.share).sum();
                assert!((total - 1.0).abs() < 1e-6, "{}", spec.name);
                assert_eq!(seen.image.dims(), [1, 28, 28, 1]);
            }
            let again = trainer.seen(9).unwrap();
            let same = |(a, b): (&Seen, &Seen)| {
                (&a.what, &a.sources, values(&a.image)) == (&b.what, &b.sources, values(&b.image))
            };
            assert!(seen.iter().zip(&again).all(same), "{}", spec.name);
        }
    }

    #[test]
    fn views_and_companions_stand_beside_their_image() {
        let trainer = trainer(&["method.name=ddgsd"]);
        let seen = trainer.seen(4).unwrap();
        let what: Vec<_> = seen.iter().map(|seen| seen.what.as_str()).collect();
        assert_eq!(what, ["image", "view 2", "image", "view 2"]);
        assert_eq!(seen[0].sources, seen[1].sources);
        assert_ne!(values(&seen[0].image), values(&seen[1].image));
    }
}
