//! A trained network: logits, gradients with respect to the image, and images as it wants them.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use mixskd_data::augment::{Augment, CentreCrop, Resize};
use mixskd_data::{Dataset, Pipeline};
use mixskd_models::graph::{Executor, Graph};
use mixskd_models::weights::{self, Metadata};
use mixskd_models::{Backbone, Mode};

use crate::{Error, Result};

/// A network to be analysed.
pub struct Classifier {
    /// What it is called in messages: its weights file.
    pub name: String,
    /// What its weights file says of it.
    pub metadata: Metadata,
    backbone: Box<dyn Backbone>,
    executor: Executor,
    device: Device,
    /// `[channel]`, of values in 0…1.
    mean: Tensor,
    std: Tensor,
}

impl Classifier {
    /// Opens a weights file of mixskd.
    ///
    /// # Errors
    /// When it cannot be read, is no such file, or its tensors do not fit the network it names.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let (backbone, metadata) = weights::build_from_file(path, device)?;
        Self::new(path.display().to_string(), backbone, metadata, device)
    }

    /// A network in memory, in float32 on `device`.
    ///
    /// # Errors
    /// When its channels or classes and those of its metadata differ.
    pub fn new(
        name: impl Into<String>,
        backbone: Box<dyn Backbone>,
        metadata: Metadata,
        device: &Device,
    ) -> Result<Self> {
        let name = name.into();
        let answers = backbone.classifier().weight().dim(0)?;
        let named = metadata.classes.len();
        if metadata.model.classes != answers || (named != 0 && named != answers) {
            return Err(Error::Fit {
                message: format!(
                    "{name}: the network has {answers} logits, its metadata speaks of {} classes and names {named}",
                    metadata.model.classes
                ),
                hint: "give it the metadata of the same network".into(),
            });
        }
        let graph = Graph::of(backbone.as_ref(), metadata.model.channels)?;
        Ok(Self {
            name,
            executor: Executor::new(&graph.fold_batch_norm()?.fuse())?,
            mean: Tensor::new(metadata.mean.as_slice(), device)?,
            std: Tensor::new(metadata.std.as_slice(), device)?,
            backbone,
            metadata,
            device: device.clone(),
        })
    }

    /// Refuses data of other classes or channels than the network's.
    ///
    /// # Errors
    /// Says how they differ.
    pub fn check_fit(&self, dataset: &Dataset) -> Result<()> {
        let Self { name, metadata, .. } = self;
        let hint = "name the data set that the weights were trained on with --data";
        let differ = |message| {
            Err(Error::Fit {
                message,
                hint: hint.into(),
            })
        };
        let (own, theirs) = (metadata.model.classes, dataset.classes.len());
        if own != theirs {
            return differ(format!(
                "{name} knows {own} classes, {} has {theirs}",
                dataset.name
            ));
        }
        let names = metadata.classes.iter().zip(&dataset.classes).enumerate();
        if let Some((label, (own, theirs))) = names.into_iter().find(|(_, (a, b))| a != b) {
            return differ(format!(
                "class {label} is `{own}` in {name}, but `{theirs}` in {}",
                dataset.name
            ));
        }
        let channels = metadata.model.channels;
        if channels != dataset.channels {
            return differ(format!(
                "{name} takes {channels} channels, the images of {} have {}",
                dataset.name, dataset.channels
            ));
        }
        Ok(())
    }

    /// The name of class `label`; its number where the file names none.
    pub fn class(&self, label: usize) -> String {
        let name = self.metadata.classes.get(label);
        name.cloned().unwrap_or_else(|| label.to_string())
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What turns a picture of any size into its input; nothing is drawn.
    ///
    /// # Errors
    /// When its metadata hold a senseless mean or deviation.
    pub fn pipeline(&self) -> Result<Pipeline> {
        let size = self.metadata.model.input;
        let weights::Resize::CentreCrop { shorter } = self.metadata.resize;
        let ops: Vec<Arc<dyn Augment>> = vec![
            Arc::new(Resize { size: shorter }),
            Arc::new(CentreCrop { size }),
        ];
        Ok(Pipeline::new(ops, &self.metadata.mean, &self.metadata.std)?)
    }

    /// Logits, batch norms folded into the convolutions, as `mixskd eval` computes them.
    ///
    /// # Shapes
    /// Normalised images `[batch, height, width, channel]` → `[batch, class]`
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.executor.run(images)?)
    }

    /// [`Self::logits`] as rows of numbers, all finite.
    ///
    /// # Errors
    /// As [`Self::logits`], and when a number is not finite.
    pub fn rows(&self, images: &Tensor) -> Result<Vec<Vec<f32>>> {
        self.rows_of(images, |row| format!("image {row} of a batch"))
    }

    /// [`Self::rows`] of images that `name` tells apart in errors, by their rows.
    pub(crate) fn rows_of(
        &self,
        images: &Tensor,
        name: impl Fn(usize) -> String,
    ) -> Result<Vec<Vec<f32>>> {
        let rows: Vec<Vec<f32>> = self.logits(images)?.to_dtype(DType::F32)?.to_vec2()?;
        let broken = |row: &Vec<f32>| row.iter().any(|logit| !logit.is_finite());
        match rows.iter().position(broken) {
            Some(row) => Err(Error::NotFinite {
                network: self.name.clone(),
                image: name(row),
            }),
            None => Ok(rows),
        }
    }

    /// Gradient of the mean cross-entropy with respect to the normalised images; parameters get none.
    ///
    /// # Shapes
    /// `[batch, height, width, channel]`, one label each → `[batch, height, width, channel]`
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn image_gradient(&self, images: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let input = Var::from_tensor(images)?;
        let labels = Tensor::new(labels, &self.device)?;
        let logits = self.backbone.forward(&input, Mode::Eval)?;
        let loss = mixskd_losses::cross_entropy(&logits, &labels)?;
        gradient(&loss, &input)
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.backbone.stage_channels().len()
    }

    /// The feature map after stage `stage` (0-based) for `image`, and the gradient of the logit of `class` with respect to it.
    ///
    /// # Shapes
    /// `[1, height, width, channel]` → two of `[1, h, w, c]`
    ///
    /// # Errors
    /// When the image does not fit or there is no such stage or class.
    pub fn stage_gradient(
        &self,
        image: &Tensor,
        stage: usize,
        class: usize,
    ) -> Result<(Tensor, Tensor)> {
        let maps = self.backbone.stages_in(image, 0..stage + 1, Mode::Eval)?;
        let none = || {
            Error::config(
                "cam_stage",
                "the network has no stage",
                "use another network",
            )
        };
        let map = Var::from_tensor(&maps.last().ok_or_else(none)?.detach())?;
        let deeper = self
            .backbone
            .stages_in(&map, stage + 1..self.stages(), Mode::Eval)?;
        let logits = self.backbone.head(deeper.last().unwrap_or(&map))?;
        let logit = logits.narrow(1, class, 1)?.sum_all()?;
        let gradient = gradient(&logit, &map)?;
        Ok((map.as_tensor().clone(), gradient))
    }

    /// Normalised images as pixels between 0 and 1.
    ///
    /// # Errors
    /// When the channels do not fit.
    pub fn to_pixels(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.broadcast_mul(&self.std)?.broadcast_add(&self.mean)?)
    }

    /// The reverse of [`Self::to_pixels`].
    ///
    /// # Errors
    /// When the channels do not fit.
    pub fn normalise(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(pixels.broadcast_sub(&self.mean)?.broadcast_div(&self.std)?)
    }
}

/// Gradient of `value`, one number, with respect to `variable`; zeros where it does not depend on it.
fn gradient(value: &Tensor, variable: &Var) -> Result<Tensor> {
    let mut gradients = value.backward()?;
    match gradients.remove(variable) {
        Some(gradient) => Ok(gradient),
        None => Ok(variable.zeros_like()?),
    }
}
