//! Batches on the device: uploaded one by one, or made there of images that lie in its memory.

use candle_core::{Device, Tensor};
use mixskd_data::{Dataset, Loader, WindowBatch};
use mixskd_kernels::{DeviceImages, ImageWindow, has_gpu_kernels};

use crate::method::{DrawSite, TrainBatch};
use crate::trainer::Trainer;
use crate::{Precision, Result};

/// Bytes of images, at most, that are put into a GPU's memory whole.
const MOST_RESIDENT: usize = 4 << 30;

/// Where a loader's batches come from.
pub(crate) struct Feed {
    loader: Loader,
    device: Device,
    precision: Precision,
    /// The loader's images in the device's memory, where they fit and augmentation moves windows alone.
    resident: Option<DeviceImages>,
}

/// One batch on the device.
pub(crate) struct Fed {
    /// `[rows, height, width, channel]`, in the type of feature maps.
    pub(crate) images: Tensor,
    pub(crate) labels: Vec<u32>,
    pub(crate) indices: Vec<u32>,
    pub(crate) step: u64,
}

impl Feed {
    /// The batches of `loader`, whose images are `dataset`'s.
    pub(crate) fn new(
        loader: Loader,
        dataset: &Dataset,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        let resident = match loader.windowed() {
            Some(set) if has_gpu_kernels(device) && set.pixels().len() <= MOST_RESIDENT => {
                Some(DeviceImages::new(
                    set.pixels(),
                    set.shape(),
                    &dataset.mean,
                    &dataset.std,
                    device,
                )?)
            }
            _ => None,
        };
        Ok(Self {
            loader,
            device: device.clone(),
            precision,
            resident,
        })
    }

    /// The batches of `loader`, uploaded as float32.
    pub(crate) fn uploading(loader: Loader, device: &Device) -> Self {
        Self {
            loader,
            device: device.clone(),
            precision: Precision::F32,
            resident: None,
        }
    }

    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Whether images lie in the device's memory.
    pub(crate) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// The batches of `epoch` from `first_step` on. Those of a loader thread are built ahead; those of resident images cost their draws.
    pub(crate) fn epoch_from(
        &self,
        epoch: u64,
        first_step: u64,
    ) -> Box<dyn Iterator<Item = Result<Fed>> + '_> {
        if let Some(images) = &self.resident {
            let batches = self.loader.windows_from(epoch, first_step);
            return Box::new(batches.map(|batch| self.make(images, batch?)));
        }
        let batches = self.loader.epoch_from(epoch, first_step);
        Box::new(batches.map(|batch| {
            let batch = batch?;
            let images = batch.images.to_device(&self.device)?;
            Ok(Fed {
                images: self.precision.maps(&images)?,
                labels: batch.labels,
                indices: batch.indices,
                step: batch.step,
            })
        }))
    }

    /// A batch of resident images.
    fn make(&self, images: &DeviceImages, batch: WindowBatch) -> Result<Fed> {
        let windows = batch.windows.iter().zip(&batch.indices);
        let windows: Vec<_> = windows
            .map(|(window, &index)| ImageWindow {
                index,
                top: window.top,
                left: window.left,
                flipped: window.flipped,
            })
            .collect();
        let dtype = self.precision.dtype();
        let made = images.batch(&windows, self.loader.size(), dtype)?;
        let images = made.ok_or_else(|| {
            crate::Error::config("run.device", "the GPU has no kernel for batches of images")
        })?;
        Ok(Fed {
            images,
            labels: batch.labels,
            indices: batch.indices,
            step: batch.step,
        })
    }
}

impl Trainer {
    /// Whether the training images lie in the device's memory as a whole, and batches are made there.
    pub fn has_resident_images(&self) -> bool {
        self.train_feed.is_resident()
    }

    /// A batch with the method's draws for it.
    pub(crate) fn prepare(&self, batch: Fed, epoch: usize) -> Result<TrainBatch> {
        let (device, step) = (&self.device, batch.step as usize);
        let draws = self.method.draws(&DrawSite {
            labels: &batch.labels,
            size: self.train_feed.loader().size(),
            epoch,
            step,
        })?;
        let draws = draws.iter().map(|t| Ok(t.to_device(device)?));
        Ok(TrainBatch {
            draws: draws.collect::<Result<_>>()?,
            images: batch.images,
            labels: Tensor::new(batch.labels, device)?,
            indices: batch.indices,
            epoch,
            step,
        })
    }
}
