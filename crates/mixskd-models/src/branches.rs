//! The branches b_k that hang on the shallow stages during training.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_kernels::side_by_side;

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

/// Branches of a backbone, each named by its stage, `0 … K−2`, with `alignment.*` and `fc.*`.
pub struct Branches {
    /// The stage each hangs on, ascending.
    branches: Vec<(usize, Branch)>,
    /// K.
    stages: usize,
}

impl Branches {
    /// Makes a branch for every stage but the last.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    pub fn new(backbone: &dyn Backbone, classes: usize, vb: VarBuilder) -> Result<Self> {
        let shallow = backbone.stage_channels().len().saturating_sub(1);
        let stages: Vec<usize> = (0..shallow).collect();
        Self::on(backbone, &stages, classes, vb)
    }

    /// Makes a branch for each of these stages (0-based, ascending, the last stage not among them).
    ///
    /// # Errors
    /// When there is no deeper stage or `vb` refuses a parameter.
    pub fn on(
        backbone: &dyn Backbone,
        stages: &[usize],
        classes: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let channels = backbone.stage_channels();
        let last = channels.last().copied().unwrap_or_default();
        let branches = stages
            .iter()
            .map(|&stage| {
                let vb = vb.pp(stage);
                let branch = Branch {
                    alignment: backbone.alignment(stage, vb.pp("alignment"))?,
                    classifier: Linear::new(last, classes, vb.pp("fc"))?,
                };
                Ok((stage, branch))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            branches,
            stages: channels.len(),
        })
    }

    /// The stages (0-based) that the branches hang on.
    pub fn stages(&self) -> impl Iterator<Item = usize> + '_ {
        self.branches.iter().map(|(stage, _)| *stage)
    }

    /// Applies every branch to its stage.
    ///
    /// # Shapes
    /// `stages`: the K maps of [`Backbone::stages`]; result: an output for each branch, shallowest first.
    ///
    /// # Errors
    /// When the number of maps or a map's shape does not fit.
    pub fn forward(&self, stages: &[Tensor], mode: Mode) -> Result<Vec<HeadOutput>> {
        if stages.len() != self.stages {
            return Err(Error::Shape {
                module: "branches",
                what: "stages",
                wanted: format!("{} maps", self.stages),
                got: format!("{} maps", stages.len()),
            });
        }
        let maps: Vec<_> = self.stages().map(|stage| &stages[stage]).collect();
        side_by_side(&maps, |index| {
            self.branches[index].1.forward(maps[index], mode)
        })
    }

    /// All outputs on a batch: the branches', shallowest first, then the backbone's own.
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
        // Before the branches, which may run beside it.
        let own = match stages.last() {
            Some(features) => Some(HeadOutput {
                features: features.clone(),
                logits: backbone.head(features)?,
            }),
            None => None,
        };
        let mut outputs = self.forward(&stages, mode)?;
        outputs.extend(own);
        Ok(outputs)
    }

    /// What the branches cost on one sample, given the backbone's stage shapes ([`Cost::stages`]).
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn cost(&self, stages: &[StageShape]) -> Result<Cost> {
        let mut cost = Cost::default();
        for (stage, branch) in &self.branches {
            let Some(&shape) = stages.get(*stage) else {
                continue;
            };
            let shape = branch.alignment.cost(shape, &mut cost)?;
            branch.classifier.cost_pooled(shape, &mut cost);
        }
        Ok(cost)
    }
}
