//! What follows a convolution, done while its result is still in the cache.

use std::convert::Infallible;

use super::{Activation, Affine, Conv, Graph, Node, Op, Value, rewrite};

impl Graph {
    /// This graph with activations taken into the convolution or [`Op::Affine`] before them, and sums into the convolution that makes
    /// their first map, where nobody else reads what that makes.
    #[must_use]
    pub fn fuse(&self) -> Self {
        let Ok(fused) = rewrite::merge::<Infallible>(self, |node, input, producer| {
            Ok(match (&node.op, &producer.op) {
                (Op::Activation(activation), _) => fuse_activation(*activation, producer),
                (Op::Add, Op::Conv(conv)) => fuse_residual(node, input, producer, conv),
                _ => None,
            })
        });
        fused
    }
}

fn fuse_activation(activation: Activation, producer: &Node) -> Option<Node> {
    let activation = Some(activation);
    let op = match &producer.op {
        Op::Conv(conv) if conv.activation.is_none() => Op::Conv(Conv {
            activation,
            ..conv.clone()
        }),
        Op::Affine(affine) if affine.activation.is_none() => Op::Affine(Affine {
            activation,
            ..affine.clone()
        }),
        _ => return None,
    };
    Some(Node {
        op,
        ..producer.clone()
    })
}

fn fuse_residual(add: &Node, input: Value, producer: &Node, conv: &Conv) -> Option<Node> {
    let &[first, residual] = add.inputs.as_slice() else {
        return None;
    };
    // The second may be of one pixel where the first is not: the sum then has no place in what makes the second.
    if input != first || conv.activation.is_some() || producer.inputs.len() != 1 {
        return None;
    }
    Some(Node {
        inputs: vec![producer.inputs[0], residual],
        ..producer.clone()
    })
}
