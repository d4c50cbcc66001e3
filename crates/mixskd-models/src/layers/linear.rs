//! Fully connected layer with its parameters.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use mixskd_kernels::{global_avg_pool2d_as, linear};

use crate::graph::{GraphBuilder, Value};
use crate::{Cost, Result, StageShape};

/// `x · weightᵀ + bias`; parameters `weight` `[out, in]` and `bias` `[out]`, both from `U(±1/√in)`, PyTorch's default.
#[derive(Debug)]
pub struct Linear {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Makes the layer, its parameters named below `vb`.
    ///
    /// # Errors
    /// When `vb` refuses a parameter.
    pub fn new(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        let bound = 1.0 / (input as f64).sqrt();
        let init = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        Ok(Self {
            name: vb.prefix(),
            weight: vb.get_with_hints((output, input), "weight", init)?,
            bias: vb.get_with_hints(output, "bias", init)?,
        })
    }

    /// `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[out]`.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// `[batch, in]` → `[batch, out]`, of the parameters' type: logits are float where maps are bfloat16.
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?;
        Ok(linear(&x, &self.weight, Some(&self.bias))?)
    }

    /// Global average pool, then the layer: what turns a last feature map into logits.
    ///
    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, out]`
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn forward_pooled(&self, features: &Tensor) -> Result<Tensor> {
        self.forward(&global_avg_pool2d_as(features, self.weight.dtype())?)
    }

    /// Adds the layer on a map of one pixel to `graph`.
    ///
    /// # Errors
    /// When the channels of `x` do not fit.
    pub fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        graph.linear(x, &self.name, &self.weight, Some(&self.bias))
    }

    /// Adds [`Self::forward_pooled`] to `graph`.
    ///
    /// # Errors
    /// When the channels of `features` do not fit.
    pub fn trace_pooled(&self, graph: &mut GraphBuilder, features: Value) -> Result<Value> {
        let pooled = graph.global_avg_pool(features);
        self.trace(graph, pooled)
    }

    /// Adds the cost for one sample.
    pub fn cost(&self, cost: &mut Cost) {
        cost.macs += self.weight.elem_count() as u64;
        cost.parameters += (self.weight.elem_count() + self.bias.elem_count()) as u64;
        cost.activations += self.bias.elem_count() as u64;
    }

    /// Adds the cost of [`Self::forward_pooled`] for one sample of shape `input`.
    pub fn cost_pooled(&self, input: StageShape, cost: &mut Cost) {
        cost.activations += input.c as u64;
        self.cost(cost);
    }
}
