//! Which of cuDNN's algorithms computes which convolution.

use candle_core::Device;
use mixskd_cuda::convolution::Choices;

use super::memory::Gpu;
use crate::Result;

/// Whether a GPU tries cuDNN's ways to compute a convolution out when it comes up for the first time and takes the fastest that gives the same bits
/// every time, as PyTorch does with `torch.backends.cudnn.benchmark` and `deterministic`; at first it takes the one that cuDNN guesses. Where that
/// changes, what was chosen is dropped.
///
/// # Errors
/// When the GPU cannot be opened.
pub fn set_cudnn_benchmark(device: &Device, on: bool) -> Result<()> {
    if let Some(gpu) = Gpu::of(device)? {
        gpu.convolutions.set_timed(on);
    }
    Ok(())
}

/// What has been chosen so far, as text for [`recall_cudnn_choices`]; `None` where that is nothing, or `device` is no GPU.
///
/// # Errors
/// When the GPU cannot be opened.
pub fn cudnn_choices(device: &Device) -> Result<Option<String>> {
    let Some(gpu) = Gpu::of(device)? else {
        return Ok(None);
    };
    let choices = gpu.convolutions.choices();
    if choices.chosen.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(&choices);
    Ok(Some(text.map_err(candle_core::Error::wrap)?))
}

/// Chooses what was chosen then, so that a run goes on with the same bits. False where that was on another kind of GPU or with another
/// version of cuDNN, or is not to be read: then everything is chosen anew.
///
/// # Errors
/// When the GPU cannot be opened.
pub fn recall_cudnn_choices(device: &Device, choices: &str) -> Result<bool> {
    match (Gpu::of(device)?, serde_json::from_str::<Choices>(choices)) {
        (Some(gpu), Ok(choices)) => Ok(gpu.convolutions.recall(&choices)),
        _ => Ok(false),
    }
}
