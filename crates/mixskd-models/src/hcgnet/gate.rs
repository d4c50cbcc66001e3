//! The gate at the end of an HCGNet layer: how much of the map to keep, and what to add to it.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mixskd_kernels::{
    attention_pool2d, concat_channels, scale_channels, shift_channels, sigmoid, tanh,
};

use super::{push, window};
use crate::blocks::Window;
use crate::graph::{Activation, GraphBuilder, Value};
use crate::layers::{BatchNorm, Conv2d, ConvInit, Layer, Sequential};
use crate::{Cost, Mode, Result, StageShape};

/// `y = f ⊙ x + u`, both vectors of one value a channel (section 3 of the paper).
///
/// - forget gate: `f = σ(fc2(tanh(bn_forget(fc1(A(x))))))`, A the attention pool whose scores a 1×1 convolution gives;
/// - update gate: with `p` and `q` the attention pools of a depthwise 3×3 convolution and a dilated one,
///   `t = tanh(bn_attention(fcall([p, q])))` and `u = a ⊙ p + (1 − a) ⊙ q`, `(a, 1 − a) = softmax(fc3x3(t), fc5x5(t))`.
pub(super) struct Gate {
    forget_scores: Conv2d,
    forget_in: Squeeze,
    forget_out: Conv2d,
    near: Context,
    far: Context,
    update_in: Squeeze,
    update_near: Conv2d,
    update_far: Conv2d,
}

/// A depthwise convolution and the scores of its attention pool.
struct Context {
    body: Sequential,
    scores: Conv2d,
}

/// `tanh(norm(fc(x)))`.
struct Squeeze {
    fc: Conv2d,
    norm: BatchNorm,
}

fn dense(input: usize, output: usize, vb: VarBuilder) -> Result<Conv2d> {
    window(input, output, 1).conv_with_bias(vb)
}

impl Squeeze {
    fn new(input: usize, output: usize, vb: &VarBuilder, fc: &str, norm: &str) -> Result<Self> {
        Ok(Self {
            fc: dense(input, output, vb.pp(fc))?,
            norm: BatchNorm::new(output, vb.pp(norm))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.fc.forward(x, mode)?;
        Ok(tanh(&self.norm.forward(&y, mode, None, false)?)?)
    }

    /// `tanh(x)` as `2σ(2x) − 1`.
    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.fc.trace(graph, x)?;
        let y = self.norm.trace(graph, y)?;
        let (channels, dtype, device) = self.fc.outputs()?;
        let constant = |value: f64| Tensor::full(value, channels, &device)?.to_dtype(dtype);
        let (two, one, none) = (constant(2.0)?, constant(-1.0)?, constant(0.0)?);
        let y = graph.affine(y, "double", &two, &none)?;
        let y = graph.activation(y, Activation::Sigmoid);
        graph.affine(y, "tanh", &two, &one)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = self.fc.cost(input, cost)?;
        cost.activations += shape.elements();
        Ok(self.norm.cost(shape, cost))
    }
}

impl Context {
    fn new(
        channels: usize,
        dilation: usize,
        vb: &VarBuilder,
        conv: &str,
        scores: &str,
    ) -> Result<Self> {
        let depthwise = Window::depthwise(channels, 3)
            .dilation(dilation)
            .init(ConvInit::TorchDefault);
        let mut body = Sequential::new();
        push(&mut body, depthwise, vb.pp(conv))?;
        Ok(Self {
            body,
            scores: dense(channels, 1, vb.pp(scores))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.body.forward(x, mode)?;
        Ok(attention_pool2d(&y, &self.scores.forward(&y, mode)?)?)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = self.body.trace(graph, x)?;
        let scores = self.scores.trace(graph, y)?;
        graph.attention_pool(y, scores)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        let shape = self.body.cost(input, cost)?;
        self.scores.cost(shape, cost)?;
        Ok(pooled(shape, cost))
    }
}

/// One pixel that stands for the map.
fn pooled(map: StageShape, cost: &mut Cost) -> StageShape {
    cost.activations += map.c as u64;
    StageShape { h: 1, w: 1, ..map }
}

impl Gate {
    /// Makes the gate; `squeeze` divides the channels inside the forget gate and the joined channels inside the update gate.
    pub(super) fn new(channels: usize, squeeze: usize, vb: &VarBuilder) -> Result<Self> {
        let forget = (channels / squeeze).max(1);
        let update = (2 * channels / squeeze).max(1);
        Ok(Self {
            forget_scores: dense(channels, 1, vb.pp("global_forget_context"))?,
            forget_in: Squeeze::new(channels, forget, vb, "fc1", "bn_forget")?,
            forget_out: dense(forget, channels, vb.pp("fc2"))?,
            near: Context::new(channels, 1, vb, "conv_3x3", "global_context3x3")?,
            far: Context::new(channels, 2, vb, "conv_5x5", "global_context5x5")?,
            update_in: Squeeze::new(2 * channels, update, vb, "fcall", "bn_attention")?,
            update_near: dense(update, channels, vb.pp("fc3x3"))?,
            update_far: dense(update, channels, vb.pp("fc5x5"))?,
        })
    }
}

impl Layer for Gate {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let scores = self.forget_scores.forward(x, mode)?;
        let seen = self
            .forget_in
            .forward(&attention_pool2d(x, &scores)?, mode)?;
        let forget = sigmoid(&self.forget_out.forward(&seen, mode)?)?;

        let near = self.near.forward(x, mode)?;
        let far = self.far.forward(x, mode)?;
        let seen = self
            .update_in
            .forward(&concat_channels(&near, &far)?, mode)?;
        let (a, b) = (
            self.update_near.forward(&seen, mode)?,
            self.update_far.forward(&seen, mode)?,
        );
        // A softmax of two is a sigmoid of their difference.
        let share = sigmoid(&(a - b)?)?;
        let update = (&far + (share * (near - &far)?)?)?;

        let kept = scale_channels(x, &forget.flatten_from(1)?)?;
        Ok(shift_channels(&kept, &update.flatten_from(1)?)?)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        self.forget_scores.cost(input, cost)?;
        let seen = self.forget_in.cost(pooled(input, cost), cost)?;
        self.forget_out.cost(seen, cost)?;
        let near = self.near.cost(input, cost)?;
        let far = self.far.cost(input, cost)?;
        let both = StageShape {
            c: near.c + far.c,
            ..near
        };
        let seen = self.update_in.cost(both, cost)?;
        self.update_near.cost(seen, cost)?;
        self.update_far.cost(seen, cost)?;
        cost.activations += 2 * input.elements() + 10 * input.c as u64;
        Ok(input)
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        let scores = self.forget_scores.trace(graph, x)?;
        let seen = graph.attention_pool(x, scores)?;
        let seen = self.forget_in.trace(graph, seen)?;
        let forget = self.forget_out.trace(graph, seen)?;
        let forget = graph.activation(forget, Activation::Sigmoid);

        let near = self.near.trace(graph, x)?;
        let far = self.far.trace(graph, x)?;
        let both = graph.concat(&[near, far]);
        let seen = self.update_in.trace(graph, both)?;
        // The softmax of two scores: a sigmoid of their difference for each.
        let (a, b) = (&self.update_near, &self.update_far);
        let share = |graph: &mut GraphBuilder, a: &Conv2d, b: &Conv2d, map: Value| {
            let difference = a.trace_difference(b, graph, seen)?;
            let share = graph.activation(difference, Activation::Sigmoid);
            graph.multiply(map, share)
        };
        let near = share(graph, a, b, near)?;
        let far = share(graph, b, a, far)?;
        let update = graph.add(near, far)?;

        let kept = graph.multiply(x, forget)?;
        graph.add(kept, update)
    }
}
