//! Values of tensors for the host, which need not wait for a GPU to be done with what it is at.

use candle_core::{DType, Device, Tensor};
use mixskd_kernels::{Download, Downloads};

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
        /// Where each tensor's values are: the place among those that come, or the values of one that was on the host.
        parts: Vec<Part>,
    },
}

pub(crate) enum Part {
    Coming(usize),
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
        if let Some(downloads) = &self.downloads
            // There may be no page-locked memory, and what is wrong with the GPU the plain way tells.
            && let Ok(coming) = begin(downloads, tensors)
        {
            return Ok(coming);
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
        parts.push(
            if tensor.device().is_cpu() && !mixskd_kernels::has_gpu_kernels(tensor.device()) {
                Part::Here(values(tensor)?)
            } else {
                sent.push(tensor.detach().to_dtype(DType::F32)?.contiguous()?);
                Part::Coming(sent.len() - 1)
            },
        );
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
                let come = download.values()?;
                let part = |part| match part {
                    &Part::Coming(at) => come.get(at).copied().unwrap_or_default(),
                    Part::Here(values) => values.as_slice(),
                };
                Ok(parts.iter().map(part).collect())
            }
        }
    }
}
