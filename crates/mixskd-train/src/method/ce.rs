//! Plain cross-entropy: the baseline.

use mixskd_models::{Backbone, Mode};

use super::{Method, MethodInputs, MethodSpec, StepOutput, TrainBatch};
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
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let task = mixskd_losses::cross_entropy(&logits, &batch.labels)?;
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }
}
