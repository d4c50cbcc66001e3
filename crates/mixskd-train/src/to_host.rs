//! Values of tensors for the host, which need not wait for a GPU to be done with what it is at.

use candle_core::{DType, Device, Tensor};
use mixskd_kernels::{Download, Downloads, has_gpu_kernels};

use crate::Result;

/// Brings them there. What was brought for one purpose is let go of before the next is asked for, or there is memory for both.
#[derive(Default)]
pub(crate) struct ToHost {
    /// None where there is no GPU.
    downloads: Option<Downloads>,
}

/// Values of tensors, or what has been begun to bring them.
pub(crate) enum OnHost {
    Here(Vec<Vec<f32>>),
    Coming {
        download: Download,
        /// Of each tensor.
        parts: Vec<Part>,
    },
}

/// A tensor's values: those that come next, or of one that was on the host.
pub(crate) enum Part {
    Coming,
    Here(Vec<f32>),
}

impl ToHost {
    pub(crate) fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            downloads: Downloads::new(device)?,
        })
    }

    /// The values of `tensors` as they are now: what is done with them later does not change them.
    pub(crate) fn begin(&self, tensors: &[&Tensor]) -> Result<OnHost> {
        if let Some(downloads) = &self.downloads {
            // What was recorded before, an error of something that was let go of, is told once and is none of this.
            let coming = begin(downloads, tensors).or_else(|_| begin(downloads, tensors));
            // There may be no page-locked memory, and what is wrong with the GPU the plain way tells.
            if let Ok(coming) = coming {
                return Ok(coming);
            }
        }
        let values = tensors.iter().map(|tensor| values(tensor));
        Ok(OnHost::Here(values.collect::<Result<_>>()?))
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn begin(downloads: &Downloads, tensors: &[&Tensor]) -> Result<OnHost> {
    let (mut sent, mut parts) = (Vec::new(), Vec::new());
    for tensor in tensors {
        if has_gpu_kernels(tensor.device()) {
            sent.push(tensor.detach().to_dtype(DType::F32)?.contiguous()?);
            parts.push(Part::Coming);
        } else {
            parts.push(Part::Here(values(tensor)?));
        }
    }
    let download = downloads.begin(&sent.iter().collect::<Vec<_>>())?;
    Ok(OnHost::Coming { download, parts })
}

impl OnHost {
    /// The values of each tensor, once they are there. On whatever thread.
    pub(crate) fn values(&self) -> Result<Vec<&[f32]>> {
        match self {
            Self::Here(values) => Ok(values.iter().map(Vec::as_slice).collect()),
            Self::Coming { download, parts } => {
                let mut come = download.values()?.into_iter();
                let mut all = Vec::with_capacity(parts.len());
                for part in parts {
                    all.extend(match part {
                        Part::Coming => come.next(),
                        Part::Here(values) => Some(values.as_slice()),
                    });
                }
                Ok(all)
            }
        }
    }
}
