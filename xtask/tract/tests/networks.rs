//! Every network's folded and unfolded files, for two sizes of batch. `MIXSKD_SAMPLES` names the folder that the example `samples` of
//! mixskd-models wrote; `cargo xtask interop` sets it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use safetensors::SafeTensors;

/// Shape and values of a tensor of `file`.
fn tensor(file: &SafeTensors, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let view = file.tensor(name)?;
    let bytes = view.data().chunks_exact(4);
    let values = bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok((view.shape().to_vec(), values.collect()))
}

/// The files of a network that take normalised images and give logits.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("-logits-pixels.onnx") {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn logits_are_mixskds() -> Result<()> {
    let folder = std::env::var("MIXSKD_SAMPLES").context("MIXSKD_SAMPLES names no folder")?;
    let mut networks = 0;
    for entry in fs::read_dir(folder)? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let data = fs::read(folder.join("samples.safetensors"))?;
        let data = SafeTensors::deserialize(&data)?;
        let (shape, pixels) = tensor(&data, "pixels")?;
        let (_, logits) = tensor(&data, "logits")?;
        let scale = logits.iter().fold(0f32, |a, b| a.max(b.abs()));
        let files = files(&folder)?;
        assert!(!files.is_empty(), "{name}: no file to run");
        let mut worst = 0f32;
        for file in &files {
            for batch in [shape[0], 1] {
                let shape = [batch, shape[1], shape[2], shape[3]];
                let wanted = &logits[..logits.len() / 3 * batch];
                let got = mixskd_tract_check::run(file, shape, &pixels[..shape.iter().product()])
                    .with_context(|| file.display().to_string())?;
                assert_eq!(got.len(), wanted.len(), "{}", file.display());
                for (a, b) in got.iter().zip(wanted) {
                    let error = (a - b).abs() / scale;
                    worst = if error.is_nan() { f32::INFINITY } else { worst.max(error) };
                }
            }
        }
        println!("{name}: tract within {worst:.1e}");
        assert!(worst < 1e-4, "{name}: off by {worst}");
        networks += 1;
    }
    assert!(networks >= 20, "only {networks} networks");
    Ok(())
}
