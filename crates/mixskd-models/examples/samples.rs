//! Every network of the registry with random weights, as files for other programs, and what it says of three images.
//!
//! `cargo run -p mixskd-models --example samples -- FOLDER WIDTH default|all`: for each network `FOLDER/NAME/` with
//! `model.safetensors`, `samples.safetensors` (`pixels` `[3, channel, height, width]` in 0…1, `logits` `[3, class]`) and ONNX files, one for each
//! way of writing them with `all`. `cargo xtask interop` runs them elsewhere and compares.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mixskd_models::onnx::OnnxConfig;
use mixskd_models::weights::{self, Metadata};
use mixskd_models::{Backbone, Mode, ModelConfig, ParamStore, registry};

const IMAGES: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, width, which] = arguments.as_slice() else {
        return Err("wanted: FOLDER WIDTH default|all".into());
    };
    let width: f64 = width.parse()?;
    for spec in registry::ALL {
        let folder = Path::new(folder).join(spec.name);
        std::fs::create_dir_all(&folder)?;
        let classes = if spec.input < 64 { 100 } else { 1000 };
        let model = ModelConfig {
            width,
            ..ModelConfig::new(spec.name, classes)?
        };
        write(&folder, &model, which == "all")?;
    }
    Ok(())
}

fn write(folder: &Path, model: &ModelConfig, all: bool) -> Result<(), Box<dyn Error>> {
    let store = ParamStore::new(5, DType::F32, &Device::Cpu);
    let backbone = model.build(store.builder())?;
    let metadata = Metadata::usual(model.clone());
    let pixels = pixels(IMAGES, model.input, model.channels)?;
    let images = normalised(&pixels, &metadata)?;
    // Twice, so that the running statistics are far from where they start.
    backbone.stages(&images, Mode::Train)?;
    backbone.stages(&images, Mode::Train)?;
    let logits = backbone.forward(&images, Mode::Eval)?;

    weights::save(
        &folder.join("model.safetensors"),
        &store.tensors(),
        &metadata,
    )?;
    let channels_first = pixels.permute((0, 3, 1, 2))?.contiguous()?;
    let samples = HashMap::from([("pixels", channels_first), ("logits", logits)]);
    candle_core::safetensors::save(&samples, folder.join("samples.safetensors"))?;
    export(folder, backbone.as_ref(), &metadata, all)
}

/// ONNX files named after what is in them: `folded-logits-normalised.onnx` and so on.
fn export(
    folder: &Path,
    backbone: &dyn Backbone,
    metadata: &Metadata,
    all: bool,
) -> Result<(), Box<dyn Error>> {
    for variant in 0..if all { 8 } else { 1 } {
        let config = OnnxConfig {
            fold: variant & 1 == 0,
            softmax: variant & 2 != 0,
            normalize: variant & 4 != 0,
            ..OnnxConfig::default()
        };
        let name = format!(
            "{}-{}-{}.onnx",
            if config.fold { "folded" } else { "plain" },
            if config.softmax {
                "probabilities"
            } else {
                "logits"
            },
            if config.normalize {
                "pixels"
            } else {
                "normalised"
            },
        );
        weights::export_onnx(&folder.join(name), backbone, metadata, &config)?;
    }
    Ok(())
}

/// Images of a fixed pattern, `[batch, side, side, channel]`, in 0…1.
fn pixels(batch: usize, side: usize, channels: usize) -> candle_core::Result<Tensor> {
    let count = batch * side * side * channels;
    let value = |i: usize| {
        let (y, x) = (i / channels / side % side, i / channels % side);
        let (image, channel) = (i / channels / side / side, i % channels);
        let wave =
            (0.11 * (x * (image + 1)) as f32).sin() + (0.07 * (y + 9 * channel) as f32).cos();
        // Something that no neighbour tells.
        let noise = (i as u32).wrapping_mul(2_654_435_761) >> 16;
        0.5 + 0.15 * wave + 0.2 * (noise as f32 / 65_536.0 - 0.5)
    };
    let values: Vec<f32> = (0..count).map(value).collect();
    Tensor::from_vec(values, (batch, side, side, channels), &Device::Cpu)
}

fn normalised(pixels: &Tensor, metadata: &Metadata) -> candle_core::Result<Tensor> {
    let mean = Tensor::new(metadata.mean.as_slice(), &Device::Cpu)?;
    let std = Tensor::new(metadata.std.as_slice(), &Device::Cpu)?;
    pixels.broadcast_sub(&mean)?.broadcast_div(&std)
}
