//! The weights file of an epoch, written while the weights are evaluated.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use mixskd_kernels::has_gpu_kernels;
use mixskd_models::weights::{self, Draft, Metadata, Resize};

use crate::method::BACKBONE;
use crate::to_host::OnHost;
use crate::trainer::Trainer;
use crate::{Error, Result};

impl Trainer {
    /// Calls `work`, and has a thread write and sync the backbone's weights as they are now, beside those of the epoch before at `path`: their place they take once
    /// they are known to be sound.
    pub(crate) fn drafting_weights<T>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T,
    ) -> Result<(T, Result<Draft>)> {
        let tensors = self.backbone_tensors();
        // On the processor they stay as they are until `work` is done, and need no copy.
        let coming = has_gpu_kernels(&self.device)
            .then(|| self.to_host.begin(&tensors.values().collect::<Vec<_>>()))
            .transpose()?;
        let metadata = self.metadata();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("weights".into());
            let write = || draft_of(path, tensors, coming.as_ref(), &metadata);
            let writing = thread.spawn_scoped(scope, write);
            let writing = writing.map_err(Error::file(path, "begin a thread that writes"))?;
            let done = work();
            let draft = writing.join().unwrap_or_else(|_| {
                let panic = std::io::Error::other("the thread that wrote it panicked");
                Err(Error::file(path, "write")(panic))
            });
            Ok((done, draft))
        })
    }

    fn backbone_tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = self.parameters().tensors();
        let is_kept = |name: &str| name.strip_prefix(BACKBONE)?.strip_prefix('.').map(drop);
        tensors.retain(|name, _| is_kept(name).is_some());
        tensors
    }

    /// What a prediction needs to know besides the tensors.
    fn metadata(&self) -> Metadata {
        let input = self.model.input;
        let shorter = self.dataset.preset().eval_shorter(input);
        Metadata {
            classes: self.dataset.classes.clone(),
            mean: self.dataset.mean.clone(),
            std: self.dataset.std.clone(),
            resize: Resize::CentreCrop { shorter },
            extra: BTreeMap::from([("method".into(), self.method_name().into())]),
            ..Metadata::new(self.model.clone())
        }
    }
}

/// The weights file of `tensors`, whose values may be on their way to the host, ready beside `path`.
fn draft_of(
    path: &Path,
    mut tensors: BTreeMap<String, Tensor>,
    coming: Option<&OnHost>,
    metadata: &Metadata,
) -> Result<Draft> {
    if let Some(coming) = coming {
        for (tensor, values) in tensors.values_mut().zip(coming.values()?) {
            *tensor = Tensor::from_slice(values, tensor.shape(), &Device::Cpu)?;
        }
    }
    Ok(weights::draft(path, &tensors, metadata)?)
}
