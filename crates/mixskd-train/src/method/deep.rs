//! A backbone with branches, for the methods that train heads at several depths.

use candle_core::Tensor;
use mixskd_models::{Backbone, Branches, Cost, HeadOutput, Mode};

use super::{BACKBONE, MethodInputs};
use crate::Result;

/// A backbone and the branches on some of its shallow stages.
pub(super) struct Deep {
    pub(super) backbone: Box<dyn Backbone>,
    branches: Branches,
}

impl Deep {
    /// With a branch on every stage but the last, or on the last `branches` of those.
    pub(super) fn new(inputs: &MethodInputs, branches: Option<usize>) -> Result<Self> {
        let backbone = inputs.backbone()?;
        let shallow = backbone.stage_channels().len().saturating_sub(1);
        let first = branches.map_or(0, |count| shallow.saturating_sub(count));
        let stages: Vec<usize> = (first..shallow).collect();
        let builder = inputs.builder().pp("branches");
        let branches = Branches::on(backbone.as_ref(), &stages, inputs.model.classes, builder)?;
        Ok(Self { backbone, branches })
    }

    /// The branches' outputs, shallowest first, then the backbone's.
    pub(super) fn outputs(&self, images: &Tensor, mode: Mode) -> Result<Vec<HeadOutput>> {
        Ok(self
            .branches
            .all_outputs(self.backbone.as_ref(), images, mode)?)
    }

    /// Logits of every head in evaluation mode, the backbone first.
    pub(super) fn heads(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        Ok(self.named(self.outputs(images, Mode::Eval)?))
    }

    /// The logits of `outputs`, the backbone's first.
    pub(super) fn named(&self, mut outputs: Vec<HeadOutput>) -> Vec<(String, Tensor)> {
        let mut named = Vec::with_capacity(outputs.len());
        named.extend(
            outputs
                .pop()
                .map(|last| (BACKBONE.to_string(), last.logits)),
        );
        let stages = self.branches.stages();
        named.extend(
            stages
                .zip(outputs)
                .map(|(stage, head)| (format!("branch {}", stage + 1), head.logits)),
        );
        named
    }

    pub(super) fn cost(&self, size: usize) -> Result<Cost> {
        let mut cost = self.backbone.cost((size, size))?;
        cost.add(&self.branches.cost(&cost.stages)?);
        Ok(cost)
    }
}

/// `branches·Σ_{k<K} CE(z_k, y) + CE(z_K, y)` over every head, the backbone K last.
pub(super) fn task(heads: &[HeadOutput], branches: f64, labels: &Tensor) -> Result<Tensor> {
    let mut total = Tensor::zeros((), heads[0].logits.dtype(), labels.device())?;
    for (k, head) in heads.iter().enumerate() {
        let mut task = mixskd_losses::cross_entropy(&head.logits, labels)?;
        if k + 1 < heads.len() && branches != 1.0 {
            task = (task * branches)?;
        }
        total = (total + task)?;
    }
    Ok(total)
}
