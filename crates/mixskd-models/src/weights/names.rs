//! Names that other programs give a network's tensors.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::timm;
use crate::{ModelConfig, Result};

type Tensors = BTreeMap<String, Tensor>;

/// What wrappers put before every name: data parallelism, compilation, a training script's own class.
const WRAPPERS: [&str; 5] = ["module.", "_orig_mod.", "model.", "net.", "backbone."];

/// The network among the modules of a training checkpoint.
const BACKBONE: &str = "backbone.";

/// The tensors without the prefixes that all of them share. Where only some begin with `backbone.`, those are the network; the
/// others' names come second.
pub(super) fn unwrap(mut tensors: Tensors) -> (Tensors, Vec<String>) {
    let mut left_out = Vec::new();
    loop {
        let common = WRAPPERS
            .iter()
            .find(|wrapper| tensors.keys().all(|name| name.starts_with(**wrapper)));
        let prefix = match common {
            Some(prefix) if !tensors.is_empty() => *prefix,
            _ if tensors.keys().any(|name| name.starts_with(BACKBONE)) => BACKBONE,
            _ => return (tensors, left_out),
        };
        let mut kept = Tensors::new();
        for (name, tensor) in tensors {
            match name.strip_prefix(prefix) {
                Some(rest) => {
                    kept.insert(rest.into(), tensor);
                }
                None => left_out.push(name),
            }
        }
        tensors = kept;
    }
}

/// The tensors under the names of the network `model`: those that timm or an older torchvision calls otherwise are renamed, those that
/// already have them stay.
pub(super) fn of(model: &ModelConfig, mut tensors: Tensors) -> Result<Tensors> {
    let other: fn(&str, &str) -> Option<String> = match model.name.as_str() {
        "mobilenet_v2" | "efficientnet_b0" => timm::name,
        "densenet121" => |_, own| timm::old_densenet(own),
        _ => return Ok(tensors),
    };
    for own in model.shapes()?.into_keys() {
        if tensors.contains_key(&own) {
            continue;
        }
        let foreign = other(&model.name, &own).and_then(|name| tensors.remove(&name));
        if let Some(tensor) = foreign {
            tensors.insert(own, tensor);
        }
    }
    Ok(tensors)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use candle_core::Device;

    use super::*;

    fn check(names: &[&str], kept: &[&str], left_out: &[&str]) {
        let tensor = Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap();
        let tensors = names.iter().map(|&name| (name.to_string(), tensor.clone()));
        let (got, left) = unwrap(tensors.collect());
        assert_eq!(got.keys().collect::<Vec<_>>(), kept);
        assert_eq!(left, left_out);
    }

    #[test]
    fn shared_prefixes_go_one_after_another() {
        check(
            &["fc.bias", "conv1.weight"],
            &["conv1.weight", "fc.bias"],
            &[],
        );
        check(
            &["module.model.fc.bias", "module.model.a"],
            &["a", "fc.bias"],
            &[],
        );
        check(&["net.a", "b"], &["b", "net.a"], &[]);
        check(&[], &[], &[]);
    }

    #[test]
    fn of_a_training_checkpoint_the_backbone_remains() {
        check(
            &[
                "module.backbone.fc.bias",
                "module.final_aux_classifier.fc.bias",
            ],
            &["fc.bias"],
            &["final_aux_classifier.fc.bias"],
        );
    }
}
