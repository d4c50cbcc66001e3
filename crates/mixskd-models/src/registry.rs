//! Every network by name. A new one is a file with its `ModelSpec` and a line here.

use candle_nn::VarBuilder;

use crate::{Backbone, Error, ModelConfig, Result};
use crate::{
    densenet, efficientnet, hcgnet, mobilenet, preact_resnet, resnet, shufflenet, vgg, wide_resnet,
};

/// One network of the registry.
#[derive(Debug, Clone, Copy)]
pub struct ModelSpec {
    /// Name, as on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Recommended side of the square input, in pixels.
    pub input: usize,
    pub(crate) build: fn(&ModelConfig, VarBuilder) -> Result<Box<dyn Backbone>>,
}

/// Every network.
pub const ALL: &[ModelSpec] = &[
    resnet::CIFAR_RESNET18,
    resnet::CIFAR_RESNET34,
    resnet::CIFAR_RESNET50,
    preact_resnet::CIFAR_PREACT_RESNET18,
    wide_resnet::WRN_16_2,
    wide_resnet::WRN_28_10,
    densenet::CIFAR_DENSENET40_12,
    hcgnet::CIFAR_HCGNET_A1,
    mobilenet::CIFAR_MOBILENETV2,
    shufflenet::CIFAR_SHUFFLENETV2,
    vgg::CIFAR_VGG13_BN,
    resnet::RESNET18,
    resnet::RESNET34,
    resnet::RESNET50,
    resnet::RESNET101,
    resnet::RESNEXT50_32X4D,
    densenet::DENSENET121,
    mobilenet::MOBILENET_V2,
    shufflenet::SHUFFLENET_V2,
    efficientnet::EFFICIENTNET_B0,
];

/// The network called `name`.
///
/// # Errors
/// When there is none; the message names the nearest.
pub fn find(name: &str) -> Result<&'static ModelSpec> {
    if let Some(spec) = ALL.iter().find(|spec| spec.name == name) {
        return Ok(spec);
    }
    let lower = name.to_lowercase();
    let names = ALL.iter().map(|spec| spec.name);
    // Of a name that is part of others, the shortest of those.
    let key = |known: &&str| {
        let is_part = name.len() >= 3 && known.contains(&lower);
        (!is_part, strsim::levenshtein(&lower, known))
    };
    let nearest = names.min_by_key(key).unwrap_or_default();
    let known: Vec<&str> = ALL.iter().map(|spec| spec.name).collect();
    Err(Error::UnknownModel {
        name: name.into(),
        nearest: nearest.into(),
        known: known.join(", "),
    })
}
