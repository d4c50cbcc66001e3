//! A backbone from a plan: a network says how its stem and stages are built, and gets everything else.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_kernels::landmark;

use crate::graph::{GraphBuilder, Value};
use crate::layers::{Layer, Linear, Sequential};
use crate::{Alignment, Backbone, Cost, Error, Mode, Result, StageShape};

/// What a network's file has to say: how each part is built, under torchvision's names.
///
/// Alignment modules call [`Plan::stage`] again with another builder, so they are of the network's own kind by construction.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::VarBuilder;
/// use mixskd_kernels::Conv2dConfig;
/// use mixskd_models::layers::{BatchNorm, Conv2d, ConvInit, ConvNorm, Sequential};
/// use mixskd_models::{Backbone, Branches, Mode, ParamStore, Plan, Result, Staged};
///
/// /// Three convolutions, each halving the image.
/// struct Tiny;
///
/// impl Plan for Tiny {
///     fn input_channels(&self) -> usize {
///         3
///     }
///
///     fn stage_channels(&self) -> &[usize] {
///         &[8, 16, 32]
///     }
///
///     fn stem(&self, _: VarBuilder) -> Result<Sequential> {
///         Ok(Sequential::new())
///     }
///
///     fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential> {
///         let (input, output) = [(3, 8), (8, 16), (16, 32)][index];
///         let geometry = Conv2dConfig { stride: 2, padding: 1, ..Conv2dConfig::default() };
///         let vb = vb.pp(format!("stage{index}"));
///         let mut layers = Sequential::new();
///         layers.push(ConvNorm {
///             conv: Conv2d::new(input, output, 3, geometry, ConvInit::FanOut, vb.pp("conv"))?,
///             norm: BatchNorm::new(output, vb.pp("norm"))?,
///             relu: true,
///         });
///         Ok(layers)
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let store = ParamStore::new(1, DType::F32, &Device::Cpu);
/// let backbone = Staged::new(Tiny, 10, store.builder().pp("backbone"))?;
/// let branches = Branches::new(&backbone, 10, store.builder().pp("branches"))?;
/// let images = Tensor::ones((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
/// for output in branches.all_outputs(&backbone, &images, Mode::Train)? {
///     assert_eq!(output.features.dims(), [2, 4, 4, 32]);
/// }
/// # Ok(())
/// # }
/// ```
pub trait Plan: Send + Sync {
    /// Channels of the input image.
    fn input_channels(&self) -> usize;

    /// Channels of each stage's output.
    fn stage_channels(&self) -> &[usize];

    /// The layers before the first stage.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    fn stem(&self, vb: VarBuilder) -> Result<Sequential>;

    /// The layers of one stage (0-based).
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    fn stage(&self, index: usize, vb: VarBuilder) -> Result<Sequential>;

    /// Name of the classifier.
    fn head_name(&self) -> &'static str {
        "fc"
    }
}

/// A network built from its [`Plan`].
pub struct Staged<P> {
    plan: P,
    stem: Sequential,
    stages: Vec<Sequential>,
    head: Linear,
}

impl<P: Plan> Staged<P> {
    /// Builds stem, stages and classifier, named below `vb`.
    ///
    /// # Errors
    /// When the plan has no stage or `vb` refuses a parameter.
    pub fn new(plan: P, classes: usize, vb: VarBuilder) -> Result<Self> {
        let channels = plan.stage_channels();
        let Some(&last) = channels.last() else {
            return Err(Error::Config {
                key: "name",
                message: "stands for a network without stages".into(),
            });
        };
        let stages = (0..channels.len())
            .map(|index| plan.stage(index, vb.clone()))
            .collect::<Result<_>>()?;
        Ok(Self {
            stem: plan.stem(vb.clone())?,
            stages,
            head: Linear::new(last, classes, vb.pp(plan.head_name()))?,
            plan,
        })
    }
}

impl<P: Plan> Backbone for Staged<P> {
    fn stages_in(&self, x: &Tensor, stages: Range<usize>, mode: Mode) -> Result<Vec<Tensor>> {
        let Some(part) = self.stages.get(stages.clone()) else {
            return Err(Error::Shape {
                module: "backbone",
                what: "stages",
                wanted: format!("within 0..{}", self.stages.len()),
                got: format!("{stages:?}"),
            });
        };
        let mut x = match stages.start {
            0 if !part.is_empty() => self.stem.forward(x, mode)?,
            _ => x.clone(),
        };
        let mut maps = Vec::with_capacity(part.len());
        for stage in part {
            x = stage.forward(&x, mode)?;
            landmark(&x)?;
            maps.push(x.clone());
        }
        Ok(maps)
    }

    fn classifier(&self) -> &Linear {
        &self.head
    }

    fn head(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(&self.pooled(features)?)
    }

    fn stage_channels(&self) -> &[usize] {
        self.plan.stage_channels()
    }

    fn alignment(&self, stage: usize, vb: VarBuilder) -> Result<Box<dyn Alignment>> {
        let count = self.stages.len();
        if stage + 1 >= count {
            return Err(Error::Shape {
                module: "alignment",
                what: "stage",
                wanted: format!("below {}", count - 1),
                got: stage.to_string(),
            });
        }
        let mut replay = Sequential::new();
        for index in stage + 1..count {
            replay.push(self.plan.stage(index, vb.clone())?);
        }
        Ok(Box::new(Replay(replay)))
    }

    fn cost(&self, input: (usize, usize)) -> Result<Cost> {
        let mut cost = Cost::default();
        let image = StageShape {
            h: input.0,
            w: input.1,
            c: self.plan.input_channels(),
        };
        let mut shape = self.stem.cost(image, &mut cost)?;
        for stage in &self.stages {
            shape = stage.cost(shape, &mut cost)?;
            cost.stages.push(shape);
        }
        self.head.cost_pooled(shape, &mut cost);
        Ok(cost)
    }

    fn trace(&self, graph: &mut GraphBuilder, image: Value) -> Result<Value> {
        let mut x = self.stem.trace(graph, image)?;
        for stage in &self.stages {
            x = stage.trace(graph, x)?;
        }
        self.head.trace_pooled(graph, x)
    }
}

/// Stages of a plan, once more.
struct Replay(Sequential);

impl Alignment for Replay {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.0.forward(x, mode)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        self.0.cost(input, cost)
    }
}
