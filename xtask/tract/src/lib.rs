//! ONNX files of mixskd through tract, an inference engine in Rust that shares no code with it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tract_onnx::prelude::*;

/// The output of the file's network for `images` `[batch, channel, height, width]`, given with their shape.
///
/// # Errors
/// When tract cannot read or run the file.
pub fn run(file: &Path, shape: [usize; 4], images: &[f32]) -> Result<Vec<f32>> {
    let model = tract_onnx::onnx()
        .model_for_path(file)?
        .with_input_fact(0, f32::fact(shape).into())?
        // The file says that the batch is free; here it is fixed.
        .with_output_fact(0, Default::default())?
        .into_optimized()?
        .into_runnable()?;
    let image = Tensor::from_shape(&shape, images)?;
    let outputs = model.run(tvec!(image.into()))?;
    let output = outputs.first().context("the network has no output")?;
    ensure!(output.shape()[0] == shape[0], "another batch came out");
    let values = output.to_plain_array_view::<f32>()?;
    Ok(values.iter().copied().collect())
}
