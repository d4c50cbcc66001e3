//! A trained network from its weights file, and pictures as it wants them.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use mixskd_data::Pipeline;
use mixskd_data::augment::{Augment, CentreCrop, Resize};
use mixskd_models::graph::{Executor, Graph};
use mixskd_models::weights::{self, Metadata};
use mixskd_train::DeviceKind;

use crate::commands::shared::existing_file;
use crate::failure::Result;

/// A network ready to classify.
pub(crate) struct Network {
    classifier: Executor,
    pub(crate) metadata: Metadata,
    pub(crate) device: Device,
}

impl Network {
    /// Opens `path` on the GPU where there is one, else on the CPU.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = existing_file(
            path,
            "`mixskd train` writes model.safetensors into its run directory",
        )?;
        let device = DeviceKind::Auto.open()?;
        let (backbone, metadata) = weights::build_from_file(path, &device)?;
        let graph = Graph::of(backbone.as_ref(), metadata.model.channels)?;
        Ok(Self {
            classifier: Executor::new(&graph.fold_batch_norm()?.fuse())?,
            metadata,
            device,
        })
    }

    /// What turns a picture of any size into the network's input.
    pub(crate) fn pipeline(&self) -> Result<Pipeline> {
        let size = self.metadata.model.input;
        let weights::Resize::CentreCrop { shorter } = self.metadata.resize;
        let ops: Vec<Arc<dyn Augment>> = vec![
            Arc::new(Resize { size: shorter }),
            Arc::new(CentreCrop { size }),
        ];
        Ok(Pipeline::new(ops, &self.metadata.mean, &self.metadata.std)?)
    }

    /// Logits of images on the network's device, `[batch, height, width, channel]` to `[batch, class]`.
    pub(crate) fn logits(&self, images: &Tensor) -> mixskd_train::Result<Tensor> {
        Ok(self.classifier.run(images)?)
    }

    /// The name of class `label`; its number where the file names none.
    pub(crate) fn class(&self, label: usize) -> String {
        self.metadata
            .classes
            .get(label)
            .cloned()
            .unwrap_or_else(|| label.to_string())
    }
}
