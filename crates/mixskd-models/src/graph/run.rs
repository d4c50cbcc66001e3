//! Running a graph.

use candle_core::{D, Tensor};
use mixskd_kernels::{
    self as kernels, PreparedConv2d, attention_pool2d, avg_pool2d, batch_norm_eval,
    concat_channels, global_avg_pool2d, linear, max_pool2d, relu, relu6, scale_channels,
    shift_channels, shuffle_channels, silu, slice_channels,
};

use super::{Activation, Affine, Conv, Graph, Node, Op};
use crate::{Error, Result};

/// Runs a graph again and again. Each intermediate map is freed as soon as its last reader has run, and convolutions keep their
/// weights in the form they are multiplied in, made when first wanted.
#[derive(Debug)]
pub struct Executor {
    graph: Graph,
    /// For each node that is a convolution, its weights and what follows it.
    convolutions: Vec<Option<PreparedConv2d>>,
    /// For each node, the values that nobody reads after it.
    spent: Vec<Vec<usize>>,
}

impl Executor {
    /// Prepares `graph`, whose parameters must not change from now on.
    ///
    /// # Errors
    /// When a convolution's bias does not fit its weight.
    pub fn new(graph: &Graph) -> Result<Self> {
        let mut last_reader: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        for (index, node) in graph.nodes().iter().enumerate() {
            for input in &node.inputs {
                last_reader[input.0] = Some(index);
            }
        }
        last_reader[graph.output().0] = None;
        let mut spent = vec![Vec::new(); graph.nodes().len()];
        for (value, reader) in last_reader.into_iter().enumerate() {
            if let Some(reader) = reader {
                spent[reader].push(value);
            }
        }
        let convolutions = graph
            .nodes()
            .iter()
            .map(|node| match &node.op {
                Op::Conv(conv) => prepare(conv).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            graph: graph.clone(),
            convolutions,
            spent,
        })
    }

    /// The graph's result on a batch.
    ///
    /// # Shapes
    /// `[batch, height, width, channel]` → `[batch, class]`
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mut values: Vec<Option<Tensor>> = vec![None; self.spent.len()];
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let result = {
                let inputs = node
                    .inputs
                    .iter()
                    .map(|input| values[input.0].as_ref().ok_or_else(|| lost(node)))
                    .collect::<Result<Vec<&Tensor>>>()?;
                match (&self.convolutions[index], &node.op, inputs.as_slice()) {
                    (Some(kernel), Op::Conv(conv), [x, residual @ ..]) => {
                        convolve(conv, kernel, x, residual.first().copied())?
                    }
                    _ => compute(node, &inputs, x)?,
                }
            };
            values[index] = Some(result);
            for &value in &self.spent[index] {
                values[value] = None;
            }
        }
        let output = self.graph.output();
        let result = values[output.0].take();
        let result = result.ok_or_else(|| lost(self.graph.node(output)))?;
        Ok(result.flatten_from(1)?)
    }
}

/// A value was read before it was made or after its last reader: the graph's order is broken.
fn lost(node: &Node) -> Error {
    Error::Shape {
        module: node.op.kind(),
        what: "inputs",
        wanted: "made before they are read".into(),
        got: format!("another order at `{}`", node.name),
    }
}

fn compute(node: &Node, inputs: &[&Tensor], image: &Tensor) -> Result<Tensor> {
    if let Op::Input { channels } = node.op {
        return match image.dims() {
            [_, _, _, c] if *c == channels => Ok(image.clone()),
            dims => Err(Error::Shape {
                module: "input",
                what: "image",
                wanted: format!("[batch, height, width, {channels}]"),
                got: format!("{dims:?}"),
            }),
        };
    }
    let x = *inputs.first().ok_or_else(|| lost(node))?;
    Ok(match &node.op {
        Op::Input { .. } => x.clone(),
        Op::Conv(conv) => convolve(conv, &prepare(conv)?, x, inputs.get(1).copied())?,
        Op::Norm(norm) => batch_norm_eval(
            x,
            &norm.weight,
            &norm.bias,
            &norm.mean,
            &norm.var,
            norm.eps,
            None,
            false,
        )?,
        Op::Affine(affine) => scale_shift(affine, x, None)?,
        Op::Activation(activation) => activate(Some(*activation), x.clone())?,
        Op::Add if x.dims() == inputs[1].dims() => (x + inputs[1])?,
        Op::Add => shift_channels(x, &inputs[1].flatten_from(1)?)?,
        Op::Multiply if x.dims() == inputs[1].dims() => (x * inputs[1])?,
        Op::Multiply => scale_channels(x, &inputs[1].flatten_from(1)?)?,
        Op::Concat => {
            let mut all = x.clone();
            for other in &inputs[1..] {
                all = concat_channels(&all, other)?;
            }
            all
        }
        Op::Shuffle { groups } => shuffle_channels(x, *groups)?,
        Op::Slice { start, channels } => slice_channels(x, *start, *channels)?,
        Op::MaxPool(config) => max_pool2d(x, *config)?,
        Op::AvgPool(config) => avg_pool2d(x, *config)?,
        Op::AttentionPool => attention_pool2d(x, inputs[1])?,
        Op::GlobalAvgPool => one_pixel(&global_avg_pool2d(x)?)?,
        Op::Linear(layer) => {
            let rows = x.flatten_from(1)?;
            one_pixel(&linear(&rows, &layer.weight, layer.bias.as_ref())?)?
        }
        Op::Softmax => {
            let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
            e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?
        }
    })
}

/// `[batch, channel]` as `[batch, 1, 1, channel]`.
fn one_pixel(rows: &Tensor) -> Result<Tensor> {
    let (n, c) = rows.dims2()?;
    Ok(rows.reshape((n, 1, 1, c))?)
}

/// The kernel of a convolution, with its bias and, but for the sigmoid, its activation.
fn prepare(conv: &Conv) -> Result<PreparedConv2d> {
    let activation = match conv.activation {
        None | Some(Activation::Sigmoid) => kernels::Activation::None,
        Some(Activation::Relu) => kernels::Activation::Relu,
        Some(Activation::Relu6) => kernels::Activation::Relu6,
        Some(Activation::Silu) => kernels::Activation::Silu,
    };
    let bias = conv.bias.as_ref();
    Ok(PreparedConv2d::new(
        &conv.weight,
        bias,
        conv.config,
        activation,
    )?)
}

fn convolve(
    conv: &Conv,
    kernel: &PreparedConv2d,
    x: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let residual = residual.map(|map| spread(conv, x, map)).transpose()?;
    let y = kernel.forward(x, residual.as_ref())?;
    match conv.activation {
        Some(Activation::Sigmoid) => activate(conv.activation, y),
        _ => Ok(y),
    }
}

/// A residual of the shape that the convolution's result has: one of one pixel is the same at every pixel.
fn spread(conv: &Conv, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
    let (out, _, kh, kw) = conv.weight.dims4()?;
    let (batch, h, w, _) = x.dims4()?;
    let shape = [
        batch,
        conv.config.out_size(h, kh)?,
        conv.config.out_size(w, kw)?,
        out,
    ];
    if residual.dims() == [batch, 1, 1, out] && residual.dims() != shape {
        return Ok(residual.broadcast_as(&shape)?.contiguous()?);
    }
    Ok(residual.clone())
}

/// `act(x · scale + shift + residual)` in one pass where the activation is ReLU or none.
fn scale_shift(affine: &Affine, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let (mean, var) = (affine.shift.zeros_like()?, affine.scale.ones_like()?);
    let relu = affine.activation == Some(Activation::Relu);
    let y = batch_norm_eval(
        x,
        &affine.scale,
        &affine.shift,
        &mean,
        &var,
        0.0,
        residual,
        relu,
    )?;
    if relu {
        Ok(y)
    } else {
        activate(affine.activation, y)
    }
}

fn activate(activation: Option<Activation>, x: Tensor) -> Result<Tensor> {
    Ok(match activation {
        None => x,
        Some(Activation::Relu) => relu(&x)?,
        Some(Activation::Relu6) => relu6(&x)?,
        Some(Activation::Silu) => silu(&x)?,
        Some(Activation::Sigmoid) => (x.neg()?.exp()? + 1.0)?.recip()?,
    })
}
