//! Plain cross-entropy: the baseline.

use candle_core::Tensor;
use mixskd_models::{Backbone, Cost, Mode};

use super::{BACKBONE, Method, MethodInputs, MethodSpec, StepOutput, TrainBatch};
use crate::Result;

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "ce",
    summary: "cross-entropy alone, the baseline",
    source: "—",
    build: |inputs| Ok(Box::new(CrossEntropy::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// `CE(z(x), y)`, a batch mean.
struct CrossEntropy {
    backbone: Box<dyn Backbone>,
}

impl CrossEntropy {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        Ok(Self {
            backbone: inputs.backbone()?,
        })
    }
}

impl Method for CrossEntropy {
    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let loss = mixskd_losses::cross_entropy(&logits, &batch.labels)?;
        let parts = vec![("task", loss.detach())];
        Ok(StepOutput {
            loss,
            parts,
            logits: logits.detach(),
            targets: batch.labels.clone(),
        })
    }

    fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        Ok(vec![(
            BACKBONE.into(),
            self.backbone.forward(images, Mode::Eval)?,
        )])
    }

    fn cost(&self, size: usize) -> Result<Cost> {
        Ok(self.backbone.cost((size, size))?)
    }
}
