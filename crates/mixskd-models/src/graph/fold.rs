//! Batch norms without statistics: at inference a norm is a scale and a shift per channel.

use candle_core::{DType, Tensor};

use super::{Affine, Conv, Graph, Linear, Node, Norm, Op, rewrite};
use crate::{Error, Result};

impl Graph {
    /// This graph with every batch norm multiplied into the convolution (or linear layer) before it:
    /// `weight · scale`, `bias · scale + shift`, computed in float64. A norm that follows anything else, as in pre-activation
    /// networks, becomes an [`Op::Affine`].
    ///
    /// # Errors
    /// candle's.
    pub fn fold_batch_norm(&self) -> Result<Self> {
        let mut graph = rewrite::merge::<Error>(self, |node, _, producer| {
            let Op::Norm(norm) = &node.op else {
                return Ok(None);
            };
            let op = match &producer.op {
                Op::Conv(conv) if conv.activation.is_none() && producer.inputs.len() == 1 => {
                    Op::Conv(fold_conv(conv, norm)?)
                }
                Op::Linear(linear) => Op::Linear(fold_linear(linear, norm)?),
                _ => return Ok(None),
            };
            Ok(Some(Node {
                op,
                ..producer.clone()
            }))
        })?;
        for node in &mut graph.nodes {
            if let Op::Norm(norm) = &node.op {
                let dtype = norm.weight.dtype();
                let (scale, shift) = norm.scale_and_shift()?;
                node.op = Op::Affine(Affine {
                    scale: scale.to_dtype(dtype)?,
                    shift: shift.to_dtype(dtype)?,
                    activation: None,
                });
            }
        }
        Ok(graph)
    }
}

fn fold_conv(conv: &Conv, norm: &Norm) -> Result<Conv> {
    let (scale, shift) = norm.scale_and_shift()?;
    let rows = scale.reshape((scale.elem_count(), 1, 1, 1))?;
    Ok(Conv {
        weight: scaled(&conv.weight, &rows)?,
        bias: Some(fold_bias(conv.bias.as_ref(), &scale, &shift, &conv.weight)?),
        ..conv.clone()
    })
}

fn fold_linear(linear: &Linear, norm: &Norm) -> Result<Linear> {
    let (scale, shift) = norm.scale_and_shift()?;
    let rows = scale.reshape((scale.elem_count(), 1))?;
    Ok(Linear {
        weight: scaled(&linear.weight, &rows)?,
        bias: Some(fold_bias(
            linear.bias.as_ref(),
            &scale,
            &shift,
            &linear.weight,
        )?),
    })
}

fn scaled(weight: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let wide = weight.to_dtype(DType::F64)?.broadcast_mul(rows)?;
    Ok(wide.to_dtype(weight.dtype())?)
}

fn fold_bias(
    bias: Option<&Tensor>,
    scale: &Tensor,
    shift: &Tensor,
    weight: &Tensor,
) -> Result<Tensor> {
    let folded = match bias {
        Some(bias) => ((bias.to_dtype(DType::F64)? * scale)? + shift)?,
        None => shift.clone(),
    };
    Ok(folded.to_dtype(weight.dtype())?)
}
