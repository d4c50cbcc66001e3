//! Batch normalisation with its running statistics.

use candle_core::{Tensor, Var};
use candle_nn::{Init, VarBuilder};
use mixskd_kernels::{
    BATCH_NORM_EPS, BatchStats, Conv2dConfig, batch_norm_eval, batch_norm_train, conv_norm_train,
    move_running,
};

use crate::graph::{GraphBuilder, Norm, Value};
use crate::{Cost, Error, Mode, Result, StageShape};

/// Weight of the newest batch in the running statistics, PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// Batch normalisation (Ioffe & Szegedy 2015), PyTorch's semantics; parameters `weight` (starts at 1) and `bias` (0),
/// buffers `running_mean` (0) and `running_var` (1).
///
/// Training normalises by the batch and moves the buffers by `running ← 0.9·running + 0.1·batch`, the variance there
/// unbiased (divided by count − 1).
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
}

impl BatchNorm {
    /// Makes the layer, its tensors named below `vb`.
    ///
    /// # Errors
    /// When `vb` refuses a tensor.
    pub fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let get = |name: &str, value: f64| vb.get_with_hints(channels, name, Init::Const(value));
        Ok(Self {
            name: vb.prefix(),
            weight: get("weight", 1.0)?,
            bias: get("bias", 0.0)?,
            running_mean: Var::from_tensor(&get("running_mean", 0.0)?)?,
            running_var: Var::from_tensor(&get("running_var", 1.0)?)?,
        })
    }

    /// Normalises, adds `residual`, and applies ReLU where asked, in one pass.
    ///
    /// # Shapes
    /// `x`, `residual`, result: `[batch, height, width, channel]`
    ///
    /// # Errors
    /// When a shape does not fit, or training is asked for on one value per channel.
    pub fn forward(
        &self,
        x: &Tensor,
        mode: Mode,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        match mode {
            Mode::Train => {
                more_than_one_value(x.dims4()?)?;
                let (y, stats) =
                    batch_norm_train(x, &self.weight, &self.bias, BATCH_NORM_EPS, residual, relu)?;
                self.update(&stats)?;
                Ok(y)
            }
            Mode::Eval => Ok(batch_norm_eval(
                x,
                &mode.parameter(&self.weight),
                &mode.parameter(&self.bias),
                &self.running_mean.as_detached_tensor(),
                &self.running_var.as_detached_tensor(),
                BATCH_NORM_EPS,
                residual,
                relu,
            )?),
        }
    }

    /// [`BatchNorm::forward`] in training of a convolution of `x`, as one op.
    pub(super) fn forward_conv(
        &self,
        x: &Tensor,
        weight: &Tensor,
        config: Conv2dConfig,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let (_, _, kernel_h, kernel_w) = weight.dims4()?;
        let height = config.out_size(height, kernel_h)?;
        more_than_one_value((batch, height, config.out_size(width, kernel_w)?, channels))?;
        let params = [&self.weight, &self.bias];
        let (y, stats) =
            conv_norm_train(x, weight, config, params, BATCH_NORM_EPS, residual, relu)?;
        self.update(&stats)?;
        Ok(y)
    }

    fn update(&self, stats: &BatchStats) -> Result<()> {
        let (mean, var) = (&self.running_mean, &self.running_var);
        Ok(move_running(mean, var, stats, MOMENTUM)?)
    }

    /// Adds the norm by running statistics to `graph`.
    ///
    /// # Errors
    /// When the channels of `x` do not fit.
    pub fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let norm = Norm {
            weight: self.weight.clone(),
            bias: self.bias.clone(),
            mean: self.running_mean.as_detached_tensor(),
            var: self.running_var.as_detached_tensor(),
            eps: BATCH_NORM_EPS,
        };
        graph.norm(x, &self.name, norm)
    }

    /// Adds the cost of one sample of shape `input`, which is also the output's shape.
    pub fn cost(&self, input: StageShape, cost: &mut Cost) -> StageShape {
        cost.parameters += (self.weight.elem_count() + self.bias.elem_count()) as u64;
        cost.activations += input.elements();
        input
    }
}

/// Refuses a map of which a channel has a single value: it has no variance.
fn more_than_one_value((batch, height, width, _): (usize, usize, usize, usize)) -> Result<()> {
    if batch * height * width < 2 {
        return Err(Error::SingleValue {
            batch,
            height,
            width,
        });
    }
    Ok(())
}
