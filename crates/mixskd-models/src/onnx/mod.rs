//! Networks for other programs: ONNX files.
//!
//! [`OnnxConfig::model`] turns a backbone and its metadata into the bytes of a file that onnxruntime and its like run. The
//! input is `[batch, channel, height, width]` as the ONNX world has it, the batch free; weights are written as they are, so that no
//! transposition is left inside.
//!
//! ```
//! use candle_core::{DType, Device};
//! use mixskd_models::onnx::OnnxConfig;
//! use mixskd_models::weights::Metadata;
//! use mixskd_models::{ModelConfig, ParamStore};
//!
//! # fn main() -> mixskd_models::Result<()> {
//! let store = ParamStore::new(1, DType::F32, &Device::Cpu);
//! let config = ModelConfig { width: 0.0625, ..ModelConfig::new("cifar_resnet18", 10)? };
//! let backbone = config.build(store.builder())?;
//! let file = OnnxConfig { softmax: true, ..OnnxConfig::default() }
//!     .model(backbone.as_ref(), &Metadata::new(config))?;
//! assert!(file.len() > 1000);
//! # Ok(())
//! # }
//! ```

mod ops;
mod proto;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Tensor};
use prost::Message;

use crate::graph::{Graph, GraphBuilder};
use crate::weights::Metadata;
use crate::{Backbone, Error, Result};
use proto::{
    DimensionProto, DimensionValue, FLOAT, GraphProto, ModelProto, OperatorSetIdProto,
    StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Opsets that can be written; the operations used mean the same in all of them.
const OPSETS: std::ops::RangeInclusive<i64> = 17..=22;

/// Largest file that protobuf's readers accept, in bytes.
const LARGEST: usize = i32::MAX as usize;

/// What an ONNX file holds besides the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxConfig {
    /// Version of ONNX's operators, 17 to 22.
    pub opset: i64,
    /// Multiply batch norms into the convolutions.
    pub fold: bool,
    /// End in class probabilities instead of logits.
    pub softmax: bool,
    /// Take pixels in 0…1 and normalise inside, instead of taking normalised ones.
    pub normalize: bool,
}

impl Default for OnnxConfig {
    fn default() -> Self {
        Self {
            opset: 17,
            fold: true,
            softmax: false,
            normalize: false,
        }
    }
}

impl OnnxConfig {
    /// The file for `backbone`: input `image`, output `logits` or `probabilities`, and in its `metadata_props` the class
    /// names, input size, mean and standard deviation.
    ///
    /// # Errors
    /// When the opset is none of those known, the metadata does not fit the network, or the file would be too large for
    /// protobuf (2 GiB).
    pub fn model(&self, backbone: &dyn Backbone, metadata: &Metadata) -> Result<Vec<u8>> {
        if !OPSETS.contains(&self.opset) {
            let (low, high) = (OPSETS.start(), OPSETS.end());
            return Err(Error::Onnx(format!(
                "opset {} is not supported; there are {low} to {high}",
                self.opset
            )));
        }
        let graph = self.graph(backbone, metadata)?;
        let model = ModelProto {
            ir_version: ir_version(self.opset),
            producer_name: "mixskd".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph_proto(&graph, metadata)?),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: self.opset,
            }],
            metadata_props: self.properties(metadata)?,
        };
        let length = model.encoded_len();
        if length > LARGEST {
            return Err(Error::Onnx(format!(
                "a file of {length} bytes is beyond what protobuf can hold (2 GiB)"
            )));
        }
        Ok(model.encode_to_vec())
    }

    /// The network between what goes before and after it.
    fn graph(&self, backbone: &dyn Backbone, metadata: &Metadata) -> Result<Graph> {
        metadata.check().map_err(Error::Onnx)?;
        let mut builder = GraphBuilder::new();
        let mut x = builder.input(metadata.model.channels);
        if self.normalize {
            let pairs = metadata.mean.iter().zip(&metadata.std);
            let shift: Vec<f32> = pairs.map(|(mean, std)| -mean / std).collect();
            let scale: Vec<f32> = metadata.std.iter().map(|std| 1.0 / std).collect();
            let tensor = |values: Vec<f32>| Tensor::new(values, &Device::Cpu);
            x = builder.affine(x, "normalize", &tensor(scale)?, &tensor(shift)?)?;
        }
        let mut output = backbone.trace(&mut builder, x)?;
        if self.softmax {
            output = builder.softmax(output);
        }
        let graph = builder.finish(output);
        if self.fold {
            graph.fold_batch_norm()
        } else {
            Ok(graph)
        }
    }

    fn graph_proto(&self, graph: &Graph, metadata: &Metadata) -> Result<GraphProto> {
        let model = &metadata.model;
        let side = model.input;
        let output = if self.softmax {
            "probabilities"
        } else {
            "logits"
        };
        let written = ops::write(graph, (side, side), "image", output)?;
        let image = [model.channels, side, side];
        Ok(GraphProto {
            node: written.nodes,
            name: model.name.clone(),
            initializer: written.initializers,
            input: vec![value_info("image", &image)],
            output: vec![value_info(output, &[model.classes])],
        })
    }

    /// What a program that runs the file wants to know.
    fn properties(&self, metadata: &Metadata) -> Result<Vec<StringStringEntryProto>> {
        let mut strings = metadata
            .to_strings()
            .map_err(|error| Error::Onnx(error.to_string()))?;
        strings.remove("format");
        strings.insert("input".into(), metadata.model.input.to_string());
        strings.insert("normalized".into(), self.normalize.to_string());
        let properties = strings
            .into_iter()
            .map(|(key, value)| StringStringEntryProto { key, value });
        Ok(properties.collect())
    }
}

/// The file format that came with an opset.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}

/// A float32 tensor of any batch.
fn value_info(name: &str, sample: &[usize]) -> ValueInfoProto {
    let dimension = |value| DimensionProto { value: Some(value) };
    let batch = dimension(DimensionValue::Name("batch".into()));
    let rest = sample
        .iter()
        .map(|&size| dimension(DimensionValue::Size(size as i64)));
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: FLOAT,
                shape: Some(TensorShapeProto {
                    dim: std::iter::once(batch).chain(rest).collect(),
                }),
            }),
        }),
    }
}

/// A tensor's values as the file wants them.
fn raw(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = tensor
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    Ok(values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect())
}
