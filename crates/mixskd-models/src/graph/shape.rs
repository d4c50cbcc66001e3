//! Shapes of a graph's values.

use super::{Graph, Node, Op};
use crate::{Error, Result, StageShape};

impl Graph {
    /// The shape of every value for an image of `input` = (height, width); logits are a map of one pixel.
    ///
    /// # Errors
    /// When the image is too small, or shapes that must agree do not.
    pub fn shapes(&self, input: (usize, usize)) -> Result<Vec<StageShape>> {
        let mut shapes: Vec<StageShape> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs: Vec<StageShape> = node.inputs.iter().map(|v| shapes[v.0]).collect();
            shapes.push(infer(node, &inputs, input)?);
        }
        Ok(shapes)
    }
}

fn infer(node: &Node, inputs: &[StageShape], image: (usize, usize)) -> Result<StageShape> {
    if let Op::Input { channels: c } = node.op {
        let (h, w) = image;
        return Ok(StageShape { h, w, c });
    }
    let Some(&x) = inputs.first() else {
        return Err(misfit(node, "at least one", "none".into()));
    };
    let one_pixel = |c| StageShape { h: 1, w: 1, c };
    Ok(match &node.op {
        Op::Conv(conv) => {
            let (out, _, kh, kw) = conv.weight.dims4()?;
            let shape = StageShape {
                h: conv.config.out_size(x.h, kh)?,
                w: conv.config.out_size(x.w, kw)?,
                c: out,
            };
            match inputs[1..] {
                [vector] if vector == one_pixel(out) => shape,
                ref residual => same(node, shape, residual)?,
            }
        }
        Op::Add | Op::Multiply => match inputs[1] {
            vector if vector == one_pixel(x.c) => x,
            map => same(node, x, &[map])?,
        },
        Op::AttentionPool => {
            same(node, StageShape { c: 1, ..x }, &inputs[1..])?;
            one_pixel(x.c)
        }
        Op::Concat => {
            let c = inputs.iter().map(|map| map.c).sum();
            for map in inputs {
                same(node, StageShape { c: map.c, ..x }, &[*map])?;
            }
            StageShape { c, ..x }
        }
        Op::Slice { channels, .. } => StageShape { c: *channels, ..x },
        Op::MaxPool(config) | Op::AvgPool(config) => StageShape {
            h: config.out_size(x.h)?,
            w: config.out_size(x.w)?,
            c: x.c,
        },
        Op::GlobalAvgPool => one_pixel(x.c),
        Op::Linear(linear) => {
            same(node, one_pixel(x.c), &[x])?;
            one_pixel(linear.weight.dims2()?.0)
        }
        Op::Input { .. }
        | Op::Norm(_)
        | Op::Affine(_)
        | Op::Activation(_)
        | Op::Shuffle { .. }
        | Op::Softmax => x,
    })
}

/// `shape`, if all of `others` are the same.
fn same(node: &Node, shape: StageShape, others: &[StageShape]) -> Result<StageShape> {
    match others.iter().find(|&&other| other != shape) {
        None => Ok(shape),
        Some(other) => Err(misfit(node, &format!("{shape:?}"), format!("{other:?}"))),
    }
}

fn misfit(node: &Node, wanted: &str, got: String) -> Error {
    Error::Shape {
        module: node.op.kind(),
        what: "input",
        wanted: wanted.into(),
        got,
    }
}
