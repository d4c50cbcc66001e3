//! Batches on the device: uploaded one by one, or made there of images that lie in its memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};
use mixskd_data::{Batch, Dataset, Loader, WindowBatch};
use mixskd_kernels::{DeviceImages, ImageWindow, Uploads, has_gpu_kernels};

use crate::method::{DrawSite, TrainBatch};
use crate::trainer::Trainer;
use crate::{Error, Precision, Result};

/// Bytes of images, at most, that are put into a GPU's memory whole.
const MOST_RESIDENT: usize = 4 << 30;

/// Where a loader's batches come from.
pub(crate) struct Feed {
    loader: Loader,
    device: Device,
    precision: Precision,
    /// The loader's images in the device's memory, where they fit and augmentation moves windows alone.
    resident: Option<DeviceImages>,
    /// Between epochs: memory for uploads is not made anew for each.
    uploads: Mutex<Option<Uploads>>,
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
    /// The batches of `loader`, whose images are `dataset`'s; and a word where a GPU has no memory for the images, which are uploaded batch by batch then.
    pub(crate) fn new(
        loader: Loader,
        dataset: &Dataset,
        device: &Device,
        precision: Precision,
    ) -> (Self, Option<String>) {
        let (mean, std) = (&dataset.mean, &dataset.std);
        let resident = loader.windowed().and_then(|set| {
            let fits = has_gpu_kernels(device) && set.pixels().len() <= MOST_RESIDENT;
            fits.then(|| DeviceImages::new(set.pixels(), set.shape(), mean, std, device))
        });
        let (resident, notice) = match resident.transpose() {
            Ok(resident) => (resident, None),
            Err(error) => {
                let notice = format!("images are brought to the GPU batch by batch: {error}");
                (None, Some(notice))
            }
        };
        let feed = Self {
            loader,
            device: device.clone(),
            precision,
            resident,
            uploads: Mutex::default(),
        };
        (feed, notice)
    }

    /// The batches of `loader`, uploaded as float32.
    pub(crate) fn uploading(loader: Loader, device: &Device) -> Self {
        Self {
            loader,
            device: device.clone(),
            precision: Precision::F32,
            resident: None,
            uploads: Mutex::default(),
        }
    }

    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Whether images lie in the device's memory.
    pub(crate) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// The batches of `epoch` from `first_step` on, `count` at most. Those of a loader thread are built ahead; those of resident images cost
    /// their draws.
    pub(crate) fn epoch_from(&self, epoch: u64, first_step: u64, count: usize) -> Batches<'_> {
        let source: Box<dyn Iterator<Item = Result<Loaded>>> = if self.is_resident() {
            let batches = self.loader.windows_from(epoch, first_step);
            Box::new(batches.map(|batch| Ok(Loaded::Windows(batch?))))
        } else {
            let batches = self.loader.epoch_from(epoch, first_step);
            Box::new(batches.map(|batch| Ok(Loaded::Images(batch?))))
        };
        Batches {
            feed: self,
            source: Box::new(source.take(count)),
            fetched: Ahead::Nothing,
            uploads: self.spare().take(),
            plain: false,
        }
    }

    /// What an earlier epoch's batches were uploaded by.
    fn spare(&self) -> MutexGuard<'_, Option<Uploads>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
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
        let images = made.ok_or_else(no_images)?;
        Ok(Fed {
            images,
            labels: batch.labels,
            indices: batch.indices,
            step: batch.step,
        })
    }
}

/// A batch as the loader gives it.
enum Loaded {
    Images(Batch),
    Windows(WindowBatch),
}

/// A batch that has been asked for, as far as it has come.
enum Fetched {
    Made(Fed),
    /// Its images are on their way.
    Sent(Batch),
}

/// What has been asked for and not been given yet.
enum Ahead {
    Nothing,
    Batch(Result<Fetched>),
    End,
}

/// Batches on the device. While a GPU works on one, the next can be fetched.
pub(crate) struct Batches<'a> {
    feed: &'a Feed,
    source: Box<dyn Iterator<Item = Result<Loaded>> + 'a>,
    fetched: Ahead,
    uploads: Option<Uploads>,
    /// There is no memory for uploads.
    plain: bool,
}

impl Batches<'_> {
    /// Brings the next batch on its way, unless it is. Its errors are told by `next`.
    pub(crate) fn fetch(&mut self) {
        if matches!(self.fetched, Ahead::Nothing) {
            self.fetched = match self.source.next() {
                Some(loaded) => Ahead::Batch(loaded.and_then(|loaded| self.begin(loaded))),
                None => Ahead::End,
            };
        }
    }

    fn begin(&mut self, loaded: Loaded) -> Result<Fetched> {
        let feed = self.feed;
        let batch = match (loaded, &feed.resident) {
            (Loaded::Images(batch), _) => batch,
            (Loaded::Windows(batch), Some(images)) => {
                return Ok(Fetched::Made(feed.make(images, batch)?));
            }
            (Loaded::Windows(_), None) => {
                return Err(no_images());
            }
        };
        if self.uploads.is_none() && !self.plain {
            self.uploads = Uploads::new(&feed.device)?;
        }
        if let Some(uploads) = &mut self.uploads {
            if uploads.send(&batch.images).is_ok() {
                return Ok(Fetched::Sent(batch));
            }
            // Page-locked memory is not to be had everywhere: the plain way does, and tells of anything worse.
            (self.uploads, self.plain) = (None, true);
        }
        let images = batch.images.to_device(&feed.device)?;
        let images = feed.precision.maps(&images)?;
        Ok(Fetched::Made(Fed::new(images, batch)))
    }

    fn finish(&mut self, fetched: Fetched) -> Result<Fed> {
        match (fetched, &mut self.uploads) {
            (Fetched::Made(fed), _) => Ok(fed),
            (Fetched::Sent(batch), Some(uploads)) => {
                let images = uploads.receive(self.feed.precision.dtype())?;
                Ok(Fed::new(images, batch))
            }
            (Fetched::Sent(_), None) => Err(no_images()),
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Fed>;

    fn next(&mut self) -> Option<Result<Fed>> {
        self.fetch();
        match std::mem::replace(&mut self.fetched, Ahead::Nothing) {
            Ahead::Batch(fetched) => Some(fetched.and_then(|fetched| self.finish(fetched))),
            Ahead::Nothing | Ahead::End => None,
        }
    }
}

impl Drop for Batches<'_> {
    fn drop(&mut self) {
        *self.feed.spare() = self.uploads.take();
    }
}

impl Fed {
    fn new(images: Tensor, batch: Batch) -> Self {
        Self {
            images,
            labels: batch.labels,
            indices: batch.indices,
            step: batch.step,
        }
    }
}

fn no_images() -> Error {
    Error::config("run.device", "the GPU has no kernel for batches of images")
}

impl Trainer {
    /// Whether the training images lie in the device's memory as a whole, and batches are made there.
    pub fn has_resident_images(&self) -> bool {
        self.train_feed.is_resident()
    }

    /// A batch with the method's draws for it.
    pub(crate) fn prepare(&self, batch: Fed, epoch: usize) -> Result<TrainBatch> {
        let (device, step) = (&self.device, batch.step as usize);
        let draws = self.method().draws(&DrawSite {
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
