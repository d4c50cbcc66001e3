//! The self-teacher of FRSKD: feature maps passed down and up once, each way with weights of its own.

use candle_core::{D, Tensor};
use candle_nn::{Init, VarBuilder};
use mixskd_kernels::{Conv2dConfig, Pool2dConfig, max_pool2d};

use crate::layers::{BatchNorm, Conv2d, ConvInit, ConvNorm, Layer, Linear};
use crate::{Cost, Error, Mode, Result, StageShape};

/// Bidirectional feature pyramid with the backbone's channels at every level (FRSKD, Ji et al., CVPR 2021, section 3.1; BiFPN, Tan et
/// al., CVPR 2020), and a classifier on its last map:
///
/// - lateral: `L_k = lateral_k(F_k)`
/// - down: `P_K = L_K`, `P_k = top_k(L_k, resize(up_k(P_{k+1})))`
/// - up: `T_1 = P_1`, `T_k = out_k(L_k, P_k, pool(down_k(T_{k−1})))`, without `P_K` for k = K
///
/// `lateral`, `up` and `down` are 1×1 convolutions with batch norm; `up` and `down` change to the channels of level k. A map is
/// enlarged to its neighbour's nearest pixel and shrunk by 3×3 maximum pools of stride 2. `top` and `out` add their inputs with
/// weights `relu(w_j) / (Σ relu(w) + 10⁻⁴)`, then apply a depthwise 3×3 and a 1×1 convolution, batch norm and ReLU.
///
/// This is the smallest form. The authors' code can make it wider and its convolutions deeper, does so for CIFAR, has a lateral
/// convolution of its own on the way up, and compares maps before their ReLU; what it costs and gains there may differ.
///
/// Parameters, k from 0: `lateral.K.*`, `up.K.*`, `down.K.*` (each `conv.weight`, `norm.*`), `top.K.*`, `out.K.*` (each `weights`,
/// `depthwise.weight`, `pointwise.conv.weight`, `pointwise.norm.*`), `fc.*`.
pub struct BiFpn {
    lateral: Vec<ConvNorm>,
    /// Of levels 0 … K−2.
    up: Vec<ConvNorm>,
    top: Vec<Fusion>,
    /// Of levels 1 … K−1.
    down: Vec<ConvNorm>,
    out: Vec<Fusion>,
    classifier: Linear,
}

/// Weighted sum of maps, then a separable convolution.
struct Fusion {
    weights: Tensor,
    depthwise: Conv2d,
    pointwise: ConvNorm,
}

impl BiFpn {
    /// Makes the module for maps of these channels, shallowest first.
    ///
    /// # Errors
    /// When there is no map or `vb` refuses a parameter.
    pub fn new(channels: &[usize], classes: usize, vb: VarBuilder) -> Result<Self> {
        let Some(&last) = channels.last() else {
            return Err(maps("at least one", 0));
        };
        let levels = channels.len();
        let point = |from: usize, to: usize, name: &str, level: usize| {
            pointwise(channels[from], channels[to], false, vb.pp(name).pp(level))
        };
        let fusion = |inputs: usize, name: &str, level: usize| {
            Fusion::new(inputs, channels[level], vb.pp(name).pp(level))
        };
        let inputs = |level: usize| if level + 1 == levels { 2 } else { 3 };
        Ok(Self {
            lateral: (0..levels)
                .map(|k| point(k, k, "lateral", k))
                .collect::<Result<_>>()?,
            up: (0..levels - 1)
                .map(|k| point(k + 1, k, "up", k))
                .collect::<Result<_>>()?,
            top: (0..levels - 1)
                .map(|k| fusion(2, "top", k))
                .collect::<Result<_>>()?,
            down: (1..levels)
                .map(|k| point(k - 1, k, "down", k))
                .collect::<Result<_>>()?,
            out: (1..levels)
                .map(|k| fusion(inputs(k), "out", k))
                .collect::<Result<_>>()?,
            classifier: Linear::new(last, classes, vb.pp("fc"))?,
        })
    }

    /// The refined maps, shallowest first, and the logits.
    ///
    /// # Shapes
    /// `stages`: K maps `[batch, h_k, w_k, c_k]`; result: as many maps of the same shapes, and `[batch, class]`
    ///
    /// # Errors
    /// When the number of maps or a shape does not fit.
    pub fn forward(&self, stages: &[Tensor], mode: Mode) -> Result<(Vec<Tensor>, Tensor)> {
        if stages.len() != self.lateral.len() {
            return Err(maps(&self.lateral.len().to_string(), stages.len()));
        }
        let lateral = self
            .lateral
            .iter()
            .zip(stages)
            .map(|(layer, map)| layer.forward(map, mode))
            .collect::<Result<Vec<_>>>()?;
        // From the deepest level to the shallowest.
        let mut passed = lateral.clone();
        for k in (0..self.top.len()).rev() {
            let above = self.up[k].forward(&passed[k + 1], mode)?;
            let above = resize(&above, &lateral[k])?;
            passed[k] = self.top[k].forward(&[&lateral[k], &above], mode)?;
        }
        // And back.
        let mut refined = passed;
        for k in 1..refined.len() {
            let below = self.down[k - 1].forward(&refined[k - 1], mode)?;
            let below = shrink(&below, &lateral[k])?;
            let fusion = &self.out[k - 1];
            refined[k] = if k + 1 == refined.len() {
                fusion.forward(&[&lateral[k], &below], mode)?
            } else {
                fusion.forward(&[&lateral[k], &refined[k], &below], mode)?
            };
        }
        let logits = self
            .classifier
            .forward_pooled(&refined[refined.len() - 1])?;
        Ok((refined, logits))
    }

    /// What one run costs on one sample, given the backbone's stage shapes ([`Cost::stages`]).
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn cost(&self, stages: &[StageShape]) -> Result<Cost> {
        let mut cost = Cost::default();
        for (layer, &shape) in self.lateral.iter().zip(stages) {
            layer.cost(shape, &mut cost)?;
        }
        for (k, (layer, fusion)) in self.up.iter().zip(&self.top).enumerate() {
            layer.cost(stages[k + 1], &mut cost)?;
            fusion.cost(stages[k], &mut cost)?;
        }
        for (k, (layer, fusion)) in self.down.iter().zip(&self.out).enumerate() {
            layer.cost(stages[k], &mut cost)?;
            fusion.cost(stages[k + 1], &mut cost)?;
        }
        if let Some(&last) = stages.last() {
            self.classifier.cost_pooled(last, &mut cost);
        }
        Ok(cost)
    }
}

impl Fusion {
    fn new(inputs: usize, channels: usize, vb: VarBuilder) -> Result<Self> {
        let geometry = Conv2dConfig {
            padding: 1,
            groups: channels,
            ..Conv2dConfig::default()
        };
        let init = ConvInit::FanOut;
        Ok(Self {
            weights: vb.get_with_hints(inputs, "weights", Init::Const(1.0))?,
            depthwise: Conv2d::new(channels, channels, 3, geometry, init, vb.pp("depthwise"))?,
            pointwise: pointwise(channels, channels, true, vb.pp("pointwise"))?,
        })
    }

    fn forward(&self, maps: &[&Tensor], mode: Mode) -> Result<Tensor> {
        let weights = mode.parameter(&self.weights).relu()?;
        let shares = weights.broadcast_div(&(weights.sum_keepdim(D::Minus1)? + 1e-4)?)?;
        let shares = shares.to_dtype(maps[0].dtype())?;
        let share = |j: usize, map: &Tensor| map.broadcast_mul(&shares.narrow(0, j, 1)?);
        let mut sum = share(0, maps[0])?;
        for (j, map) in maps.iter().enumerate().skip(1) {
            sum = (sum + share(j, map)?)?;
        }
        self.pointwise
            .forward(&self.depthwise.forward(&sum, mode)?, mode)
    }

    fn cost(&self, shape: StageShape, cost: &mut Cost) -> Result<StageShape> {
        cost.parameters += self.weights.elem_count() as u64;
        cost.activations += shape.elements();
        let shape = self.depthwise.cost(shape, cost)?;
        self.pointwise.cost(shape, cost)
    }
}

fn pointwise(from: usize, to: usize, relu: bool, vb: VarBuilder) -> Result<ConvNorm> {
    let (config, init) = (Conv2dConfig::default(), ConvInit::FanOut);
    Ok(ConvNorm {
        conv: Conv2d::new(from, to, 1, config, init, vb.pp("conv"))?,
        norm: BatchNorm::new(to, vb.pp("norm"))?,
        relu,
    })
}

/// `x` at the height and width of `like`, each position the nearest of `x`.
fn resize(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for axis in [1, 2] {
        let (from, to) = (x.dim(axis)?, like.dim(axis)?);
        if from != to {
            let at: Vec<u32> = (0..to).map(|at| (at * from / to) as u32).collect();
            x = x.index_select(&Tensor::new(at, x.device())?, axis)?;
        }
    }
    Ok(x)
}

/// `x` pooled down to about the height and width of `like`, then resized to it.
fn shrink(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let halve = Pool2dConfig {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let mut x = x.clone();
    while x.dim(1)? > like.dim(1)? && x.dim(2)? > like.dim(2)? {
        x = max_pool2d(&x, halve)?;
    }
    resize(&x, like)
}

fn maps(wanted: &str, got: usize) -> Error {
    Error::Shape {
        module: "bifpn",
        what: "stages",
        wanted: format!("{wanted} maps"),
        got: format!("{got} maps"),
    }
}
