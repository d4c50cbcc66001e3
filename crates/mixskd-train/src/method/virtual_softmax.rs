//! Virtual softmax: one more class, as hard to beat as can be.

use mixskd_losses::virtual_softmax;
use mixskd_models::{Backbone, Mode};

use super::{Method, MethodInputs, MethodSpec, StepOutput, TrainBatch};
use crate::{Error, Result};

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "virtual-softmax",
    summary: "cross-entropy beside a virtual class of logit ‖W_y‖·‖x‖; no bias",
    source: "Chen et al., Virtual Class Enhanced Discriminative Embedding Learning, NeurIPS 2018",
    build: |inputs| Ok(Box::new(VirtualSoftmax::new(inputs)?)),
    ..MethodSpec::PLAIN
};

/// [`mixskd_losses::virtual_softmax`] of the pooled features and the classifier's weight. The classifier's bias stays 0; the network
/// that is kept has no virtual class.
struct VirtualSoftmax {
    backbone: Box<dyn Backbone>,
}

impl VirtualSoftmax {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        let backbone = inputs.backbone()?;
        let bias = backbone.classifier().bias().id();
        let parameters = inputs.store.parameters();
        let Some((name, bias)) = parameters.iter().find(|(_, var)| var.id() == bias) else {
            return Err(Error::config(
                "method.name",
                "wants a classifier with a bias of its own, which this network lacks",
            ));
        };
        bias.set(&bias.zeros_like()?)?;
        inputs.store.freeze(name);
        Ok(Self { backbone })
    }
}

impl Method for VirtualSoftmax {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let stages = self.backbone.stages(&batch.images, Mode::Train)?;
        // A network has at least one stage.
        let features = self.backbone.pooled(&stages[stages.len() - 1])?;
        let classifier = self.backbone.classifier();
        let logits = classifier.forward(&features)?;
        let task = virtual_softmax(&logits, &features, classifier.weight(), &batch.labels)?;
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }
}
