//! The branches b_k that hang on the shallow stages during training.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::layers::Linear;
use crate::{Alignment, Backbone, Cost, Error, Mode, Result, StageShape};

/// What a branch, or the backbone itself, says about a batch.
#[derive(Debug, Clone)]
pub struct HeadOutput {
    /// The feature map F_k just before the pool, `[batch, h_K, w_K, c_K]`: of one shape for all k.
    pub features: Tensor,
    /// The logits z_k, `[batch, class]`.
    pub logits: Tensor,
}

/// Branch b_k: alignment module ζ_k, global average pool, linear classifier g_k (Yang et al. 2022, section 3.1).
pub struct Branch {
    alignment: Box<dyn Alignment>,
    classifier: Linear,
}

impl Branch {
    /// Applies the branch to its stage's map.
    ///
    /// # Shapes
    /// `[batch, h_k, w_k, c_k]` → features `[batch, h_K, w_K, c_K]`, logits `[batch, class]`
    ///
    /// # Errors
    /// When the map does not fit.
    pub fn forward(&self, stage: &Tensor, mode: Mode) -> Result<HeadOutput> {
        let features = self.alignment.forward(stage, mode)?;
        let logits = self.classifier.forward_pooled(&features)?;
        Ok(HeadOutput { features, logits })
    }
}

/// The K − 1 branches of a backbone, named `0 … K−2`, each with `alignment.*` and `fc.*`.
pub struct Branches(Vec<Branch>);

impl Branches {
    /// Makes a branch for every stage but the last.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    pub fn new(backbone: &dyn Backbone, classes: usize, vb: VarBuilder) -> Result<Self> {
        let channels = backbone.stage_channels();
        let Some((&last, shallow)) = channels.split_last() else {
            return Ok(Self(Vec::new()));
        };
        let branches = (0..shallow.len())
            .map(|stage| {
                let vb = vb.pp(stage);
                Ok(Branch {
                    alignment: backbone.alignment(stage, vb.pp("alignment"))?,
                    classifier: Linear::new(last, classes, vb.pp("fc"))?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self(branches))
    }

    /// Applies every branch to its stage.
    ///
    /// # Shapes
    /// `stages`: the K maps of [`Backbone::stages`]; result: K − 1 outputs, shallowest first.
    ///
    /// # Errors
    /// When the number of maps or a map's shape does not fit.
    pub fn forward(&self, stages: &[Tensor], mode: Mode) -> Result<Vec<HeadOutput>> {
        if stages.len() != self.0.len() + 1 {
            return Err(Error::Shape {
                module: "branches",
                what: "stages",
                wanted: format!("{} maps", self.0.len() + 1),
                got: format!("{} maps", stages.len()),
            });
        }
        self.0
            .iter()
            .zip(stages)
            .map(|(branch, stage)| branch.forward(stage, mode))
            .collect()
    }

    /// All K outputs on a batch: the branches', shallowest first, then the backbone's own.
    ///
    /// # Shapes
    /// `x`: `[batch, height, width, channel]`
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn all_outputs(
        &self,
        backbone: &dyn Backbone,
        x: &Tensor,
        mode: Mode,
    ) -> Result<Vec<HeadOutput>> {
        let stages = backbone.stages(x, mode)?;
        let mut outputs = self.forward(&stages, mode)?;
        if let Some(features) = stages.last() {
            outputs.push(HeadOutput {
                features: features.clone(),
                logits: backbone.head(features)?,
            });
        }
        Ok(outputs)
    }

    /// What the branches cost on one sample, given the backbone's stage shapes ([`Cost::stages`]).
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn cost(&self, stages: &[StageShape]) -> Result<Cost> {
        let mut cost = Cost::default();
        for (branch, &stage) in self.0.iter().zip(stages) {
            let shape = branch.alignment.cost(stage, &mut cost)?;
            branch.classifier.cost_pooled(shape, &mut cost);
        }
        Ok(cost)
    }
}
