//! Layers one after another.

use candle_core::Tensor;

use crate::graph::{GraphBuilder, Value};
use crate::layers::Layer;
use crate::{Cost, Mode, Result, StageShape};

/// Applies its layers in order.
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Layer>>);

impl Sequential {
    /// No layers: the identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a layer.
    pub fn push(&mut self, layer: impl Layer + 'static) {
        self.0.push(Box::new(layer));
    }
}

impl Layer for Sequential {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in &self.0 {
            x = layer.forward(&x, mode)?;
        }
        Ok(x)
    }

    fn cost(&self, input: StageShape, cost: &mut Cost) -> Result<StageShape> {
        self.0
            .iter()
            .try_fold(input, |shape, layer| layer.cost(shape, cost))
    }

    fn trace(&self, graph: &mut GraphBuilder, x: Value) -> Result<Value> {
        self.0.iter().try_fold(x, |x, layer| layer.trace(graph, x))
    }
}
