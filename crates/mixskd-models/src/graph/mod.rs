//! A network as a list of operations: what inference runs and what export writes.
//!
//! Every [`Layer`](crate::layers::Layer) and [`Backbone`] says its nodes (`trace`), so a [`Graph`] holds exactly what
//! evaluation computes. Passes then simplify it ([`Graph::fold_batch_norm`], [`Graph::fuse`]), [`Executor`] runs it, and
//! [`crate::onnx`] writes it for other programs.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use mixskd_models::graph::{Executor, Graph};
//! use mixskd_models::{Mode, ModelConfig, ParamStore};
//!
//! # fn main() -> mixskd_models::Result<()> {
//! let store = ParamStore::new(1, DType::F32, &Device::Cpu);
//! let config = ModelConfig { width: 0.0625, ..ModelConfig::new("cifar_resnet18", 10)? };
//! let backbone = config.build(store.builder())?;
//! let graph = Graph::of(backbone.as_ref(), config.channels)?;
//! let inference = Executor::new(&graph.fold_batch_norm()?.fuse())?;
//!
//! let images = Tensor::ones((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
//! let (folded, plain) = (inference.run(&images)?, backbone.forward(&images, Mode::Eval)?);
//! let difference = (folded - plain)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(difference < 1e-5);
//! # Ok(())
//! # }
//! ```

mod builder;
mod fold;
mod fuse;
mod op;
mod rewrite;
mod run;
mod shape;

pub use builder::GraphBuilder;
pub use op::{Activation, Affine, Conv, Linear, Norm, Op};
pub use run::Executor;

use crate::{Backbone, Result};

/// A tensor of a graph, by the node that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub(crate) usize);

/// One operation.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where the operation has parameters, their common prefix (`layer1.0.conv1`); else the kind of operation.
    pub name: String,
    /// What is done.
    pub op: Op,
    /// What it is done to. An [`Op::Conv`] with two inputs adds the second, of its result's shape or of one pixel, before its activation.
    pub inputs: Vec<Value>,
}

/// Operations in an order in which each finds its inputs already made; every tensor is made once.
///
/// Every value has the shape `[batch, height, width, channel]`; vectors are maps of one pixel.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    output: Value,
}

impl Graph {
    /// What `backbone` computes in evaluation, from an image of `channels` channels to its logits. The graph shares the
    /// parameters: it is valid until they are next changed.
    ///
    /// # Errors
    /// When a layer's channels do not fit.
    pub fn of(backbone: &dyn Backbone, channels: usize) -> Result<Self> {
        let mut builder = GraphBuilder::new();
        let image = builder.input(channels);
        let logits = backbone.trace(&mut builder, image)?;
        Ok(builder.finish(logits))
    }

    /// The operations; node `i` makes value `i`.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The result: the logits.
    pub fn output(&self) -> Value {
        self.output
    }

    /// The node that makes `value`.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.0]
    }

    /// How often each value is read; the graph's output counts as one reading.
    pub fn readings(&self) -> Vec<usize> {
        let mut readings = vec![0; self.nodes.len()];
        let inputs = self.nodes.iter().flat_map(|node| &node.inputs);
        for value in inputs.chain([&self.output]) {
            readings[value.0] += 1;
        }
        readings
    }
}
