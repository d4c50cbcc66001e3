//! A graph's operations as ONNX's. Maps are `[batch, channel, height, width]` there.

use std::collections::BTreeSet;

use candle_core::Tensor;
use mixskd_kernels::{Conv2dConfig, Pool2dConfig};

use super::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, AttributeProto, FLOAT, INT64, NodeProto,
    TensorProto,
};
use super::raw;
use crate::graph::{Activation, Conv, Graph, Linear, Node, Norm, Op};
use crate::{Result, StageShape};

/// Nodes and constants of a graph.
#[derive(Default)]
pub(super) struct Written {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    names: BTreeSet<String>,
}

/// Writes `graph` for images of `size` = (height, width), from the value `input` to the value `output`.
pub(super) fn write(
    graph: &Graph,
    size: (usize, usize),
    input: &str,
    output: &str,
) -> Result<Written> {
    let shapes = graph.shapes(size)?;
    let flat = flat_values(graph);
    let last = graph.output().0;
    let mut written = Written::default();
    written
        .names
        .extend([input.to_string(), output.to_string()]);
    let mut values: Vec<String> = Vec::with_capacity(shapes.len());
    for (index, node) in graph.nodes().iter().enumerate() {
        if let Op::Input { .. } = node.op {
            values.push(input.into());
            continue;
        }
        // A result that is a map of one pixel still has to become a row.
        let flatten = index == last && !flat[index];
        let name = if index == last && !flatten {
            output.to_string()
        } else {
            written.unique(&node.name)
        };
        let inputs: Vec<String> = node.inputs.iter().map(|v| values[v.0].clone()).collect();
        let place = Place {
            node,
            shape: shapes[index],
            flat: flat[index],
            inputs,
            output: &name,
        };
        written.operation(&place)?;
        if flatten {
            written.node("Flatten", &[&name], output, vec![int("axis", 1)]);
        }
        values.push(name);
    }
    Ok(written)
}

/// Which values are rows `[batch, channel]` rather than maps of one pixel: the classifier's, and what follows it.
fn flat_values(graph: &Graph) -> Vec<bool> {
    let nodes = graph.nodes();
    let mut flat = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        flat[index] = match node.op {
            Op::Linear(_) => only_classifies(graph, index),
            Op::Softmax => flat[node.inputs[0].0],
            _ => false,
        };
    }
    flat
}

/// Whether nothing but softmax reads what node `index` makes.
fn only_classifies(graph: &Graph, index: usize) -> bool {
    graph
        .nodes()
        .iter()
        .filter(|node| node.inputs.iter().any(|input| input.0 == index))
        .all(|node| matches!(node.op, Op::Softmax))
}

/// A node of the graph and where its result goes.
struct Place<'a> {
    node: &'a Node,
    shape: StageShape,
    flat: bool,
    inputs: Vec<String>,
    output: &'a str,
}

impl Written {
    fn operation(&mut self, place: &Place) -> Result<()> {
        let Place {
            node,
            shape,
            inputs,
            output,
            ..
        } = place;
        let x = inputs.first().map_or("", String::as_str);
        let all: Vec<&str> = inputs.iter().map(String::as_str).collect();
        match &node.op {
            Op::Input { .. } => {}
            Op::Conv(conv) => self.conv(place, conv)?,
            Op::Norm(norm) => self.norm(place, norm)?,
            Op::Affine(affine) => {
                let per_channel = [1, affine.scale.elem_count(), 1, 1];
                let scale = self.constant(&node.name, "scale", &affine.scale, &per_channel)?;
                let shift = self.constant(&node.name, "shift", &affine.shift, &per_channel)?;
                let scaled = self.unique(&format!("{}.scaled", node.name));
                self.node("Mul", &[x, &scale], &scaled, vec![]);
                self.then(affine.activation, &node.name, output, |written, out| {
                    written.node("Add", &[&scaled, &shift], out, vec![]);
                });
            }
            Op::Activation(activation) => self.activation(*activation, x, output),
            Op::Add => self.node("Add", &all, output, vec![]),
            Op::Multiply => self.node("Mul", &all, output, vec![]),
            Op::Concat => self.node("Concat", &all, output, vec![int("axis", 1)]),
            Op::Shuffle { groups } => self.shuffle(*groups, *shape, x, output),
            Op::Slice { start, channels } => {
                let ends = [*start, start + channels];
                let [start, end] = ends.map(|end| self.integers("slice.at", &[end as i64]));
                let axis = self.integers("slice.axis", &[1]);
                self.node("Slice", &[x, &start, &end, &axis], output, vec![]);
            }
            Op::MaxPool(config) => self.node("MaxPool", &[x], output, windows(*config)),
            Op::AvgPool(config) => {
                let mut attributes = windows(*config);
                attributes.push(int("count_include_pad", 1));
                self.node("AveragePool", &[x], output, attributes);
            }
            Op::GlobalAvgPool => self.node("GlobalAveragePool", &[x], output, vec![]),
            Op::AttentionPool => self.attention_pool(x, all[1], output),
            Op::Linear(linear) => self.linear(place, linear)?,
            Op::Softmax => self.node("Softmax", &[x], output, vec![int("axis", 1)]),
        }
        Ok(())
    }

    fn conv(&mut self, place: &Place, conv: &Conv) -> Result<()> {
        let name = &place.node.name;
        let weight = self.constant(name, "weight", &conv.weight, conv.weight.dims())?;
        let mut inputs = vec![place.inputs[0].clone(), weight];
        if let Some(bias) = &conv.bias {
            inputs.push(self.constant(name, "bias", bias, bias.dims())?);
        }
        let (_, _, kh, kw) = conv.weight.dims4()?;
        let attributes = convolution(conv.config, kh, kw);
        let residual = place.inputs.get(1);
        self.then(conv.activation, name, place.output, |written, out| {
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            match residual {
                Some(residual) => {
                    let before = written.unique(&format!("{name}.before_add"));
                    written.node("Conv", &inputs, &before, attributes);
                    written.node("Add", &[&before, residual], out, vec![]);
                }
                None => written.node("Conv", &inputs, out, attributes),
            }
        });
        Ok(())
    }

    fn norm(&mut self, place: &Place, norm: &Norm) -> Result<()> {
        let mut inputs = vec![place.inputs[0].clone()];
        for (what, tensor) in [
            ("weight", &norm.weight),
            ("bias", &norm.bias),
            ("running_mean", &norm.mean),
            ("running_var", &norm.var),
        ] {
            inputs.push(self.constant(&place.node.name, what, tensor, tensor.dims())?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let eps = AttributeProto {
            name: "epsilon".into(),
            f: norm.eps as f32,
            r#type: ATTRIBUTE_FLOAT,
            ..AttributeProto::default()
        };
        self.node("BatchNormalization", &inputs, place.output, vec![eps]);
        Ok(())
    }

    /// The classifier as a matrix product; a layer in the middle of a network as a 1×1 convolution, which keeps maps maps.
    fn linear(&mut self, place: &Place, linear: &Linear) -> Result<()> {
        let name = &place.node.name;
        let (out, input) = linear.weight.dims2()?;
        let x = place.inputs[0].as_str();
        let (op, x, shape, attributes) = if place.flat {
            let rows = self.unique(&format!("{name}.rows"));
            self.node("Flatten", &[x], &rows, vec![int("axis", 1)]);
            ("Gemm", rows, vec![out, input], vec![int("transB", 1)])
        } else {
            let attributes = convolution(Conv2dConfig::default(), 1, 1);
            ("Conv", x.to_string(), vec![out, input, 1, 1], attributes)
        };
        let mut inputs = vec![x, self.constant(name, "weight", &linear.weight, &shape)?];
        if let Some(bias) = &linear.bias {
            inputs.push(self.constant(name, "bias", bias, bias.dims())?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.node(op, &inputs, place.output, attributes);
        Ok(())
    }

    fn shuffle(&mut self, groups: usize, shape: StageShape, x: &str, output: &str) {
        let StageShape { h, w, c } = shape;
        let table = [groups, c / groups, h, w].map(|size| size as i64);
        let map = [c, h, w].map(|size| size as i64);
        let table = self.integers("shuffle.table", &[&[-1], &table[..]].concat());
        let map = self.integers("shuffle.map", &[&[-1], &map[..]].concat());
        let (grouped, turned) = (
            self.unique("shuffle.grouped"),
            self.unique("shuffle.turned"),
        );
        self.node("Reshape", &[x, &table], &grouped, vec![]);
        self.node(
            "Transpose",
            &[&grouped],
            &turned,
            vec![ints("perm", &[0, 2, 1, 3, 4])],
        );
        self.node("Reshape", &[&turned, &map], output, vec![]);
    }

    /// Maps as lists of pixels, their sum weighted by the softmax of the scores, a map of one pixel again.
    fn attention_pool(&mut self, x: &str, scores: &str, output: &str) {
        // A zero keeps a dimension as it is.
        let list = self.integers("attention.list", &[0, 0, -1]);
        let pixel = self.integers("attention.pixel", &[0, 0, 1, 1]);
        let axis = self.integers("attention.axis", &[2]);
        let [pixels, listed, weights, weighted, sum] =
            ["pixels", "scores", "weights", "weighted", "sum"]
                .map(|what| self.unique(&format!("attention.{what}")));
        self.node("Reshape", &[x, &list], &pixels, vec![]);
        self.node("Reshape", &[scores, &list], &listed, vec![]);
        self.node("Softmax", &[&listed], &weights, vec![int("axis", 2)]);
        self.node("Mul", &[&pixels, &weights], &weighted, vec![]);
        let keep = vec![int("keepdims", 1)];
        self.node("ReduceSum", &[&weighted, &axis], &sum, keep);
        self.node("Reshape", &[&sum, &pixel], output, vec![]);
    }

    /// What `write` writes, then `activation` where there is one.
    fn then(
        &mut self,
        activation: Option<Activation>,
        name: &str,
        output: &str,
        write: impl FnOnce(&mut Self, &str),
    ) {
        match activation {
            None => write(self, output),
            Some(activation) => {
                let before = self.unique(&format!("{name}.before_{}", activation.name()));
                write(self, &before);
                self.activation(activation, &before, output);
            }
        }
    }

    fn activation(&mut self, activation: Activation, x: &str, output: &str) {
        match activation {
            Activation::Relu => self.node("Relu", &[x], output, vec![]),
            Activation::Sigmoid => self.node("Sigmoid", &[x], output, vec![]),
            Activation::Relu6 => {
                let [low, high] = [0f32, 6.0].map(|bound| self.scalar("relu6.bound", bound));
                self.node("Clip", &[x, &low, &high], output, vec![]);
            }
            Activation::Silu => {
                let gate = self.unique("silu.gate");
                self.node("Sigmoid", &[x], &gate, vec![]);
                self.node("Mul", &[x, &gate], output, vec![]);
            }
        }
    }

    /// Adds a node whose name is that of its result.
    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: op.into(),
            attribute: attributes,
        });
    }

    /// A parameter in the given shape, under its name in the weights file; returns that name.
    fn constant(
        &mut self,
        prefix: &str,
        what: &str,
        tensor: &Tensor,
        shape: &[usize],
    ) -> Result<String> {
        let data = raw(tensor)?;
        let dims: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        Ok(self.initializer(&format!("{prefix}.{what}"), FLOAT, &dims, data))
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let data = values.iter().flat_map(|value| value.to_le_bytes());
        self.initializer(name, INT64, &[values.len() as i64], data.collect())
    }

    fn scalar(&mut self, name: &str, value: f32) -> String {
        self.initializer(name, FLOAT, &[], value.to_le_bytes().to_vec())
    }

    fn initializer(
        &mut self,
        name: &str,
        data_type: i32,
        dims: &[i64],
        raw_data: Vec<u8>,
    ) -> String {
        let name = self.unique(name);
        self.initializers.push(TensorProto {
            dims: dims.to_vec(),
            data_type,
            name: name.clone(),
            raw_data,
        });
        name
    }

    /// `name`, or with a number where that is taken.
    fn unique(&mut self, name: &str) -> String {
        let mut free = name.to_string();
        let mut number = 1;
        while !self.names.insert(free.clone()) {
            number += 1;
            free = format!("{name}_{number}");
        }
        free
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: value,
        r#type: ATTRIBUTE_INT,
        ..AttributeProto::default()
    }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.iter().map(|&value| value as i64).collect(),
        r#type: ATTRIBUTE_INTS,
        ..AttributeProto::default()
    }
}

fn convolution(config: Conv2dConfig, kernel_h: usize, kernel_w: usize) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", &[kernel_h, kernel_w]),
        ints("strides", &[config.stride; 2]),
        ints("pads", &[config.padding; 4]),
        ints("dilations", &[config.dilation; 2]),
        int("group", config.groups as i64),
    ]
}

fn windows(config: Pool2dConfig) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", &[config.kernel; 2]),
        ints("strides", &[config.stride; 2]),
        ints("pads", &[config.padding; 4]),
    ]
}
