//! A build without CUDA.

use std::convert::Infallible;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::activation::Kind;
use crate::conv::Geometry;
use crate::gate::PerChannel;
use crate::pool::Reduction;
use crate::{BatchStats, DeviceImages, ParameterUpdate, Pool2dConfig, Result, SgdConfig};

/// Defines functions that never have a kernel.
macro_rules! nothing {
    ($($name:ident($($type:ty),* $(,)?) -> $out:ty;)*) => {
        $(
            #[inline(always)]
            pub(crate) fn $name($(_: $type),*) -> Result<Option<$out>> {
                Ok(None)
            }
        )*
    };
}

/// What a convolution keeps on a GPU: nothing, as there is none.
#[derive(Debug, Default)]
pub(crate) struct GpuForms {}

type Pairs<'a> = Option<(&'a Tensor, &'a Tensor)>;

/// Whether the CPU stands in for a GPU.
#[inline(always)]
pub(crate) fn is_emulating() -> bool {
    false
}

/// Whether tensors of `device` are computed with by a GPU's kernels.
pub fn has_gpu_kernels(_: &candle_core::Device) -> bool {
    false
}

/// Whether float convolutions and matrix products on a GPU may cut factors to TensorFloat-32's ten bits; this build knows no GPU.
pub fn set_tf32(_: bool) {}

/// None: this build knows no GPU.
pub fn gpu_notices() -> Vec<String> {
    Vec::new()
}

/// Nothing: this build knows no GPU.
///
/// # Errors
/// Never.
pub fn set_cudnn_benchmark(_: &candle_core::Device, _: bool) -> Result<()> {
    Ok(())
}

/// Nothing: this build knows no GPU.
///
/// # Errors
/// Never.
pub fn set_cuda_branches(_: &candle_core::Device, _: bool) -> Result<()> {
    Ok(())
}

/// Nothing: this build knows no GPU.
///
/// # Errors
/// Never.
#[inline(always)]
pub fn landmark(_: &Tensor) -> Result<()> {
    Ok(())
}

/// Calls `work` with the number of each of `inputs`.
///
/// # Errors
/// `work`'s.
pub fn side_by_side<T, E: From<crate::Error>>(
    inputs: &[&Tensor],
    work: impl FnMut(usize) -> std::result::Result<T, E>,
) -> std::result::Result<Vec<T>, E> {
    (0..inputs.len()).map(work).collect()
}

/// Calls `work`.
pub fn unhurried<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// `None`: this build knows no GPU.
///
/// # Errors
/// Never.
pub fn cudnn_choices(_: &candle_core::Device) -> Result<Option<String>> {
    Ok(None)
}

/// False: this build knows no GPU.
///
/// # Errors
/// Never.
pub fn recall_cudnn_choices(_: &candle_core::Device, _: &str) -> Result<bool> {
    Ok(false)
}

/// What a GPU's kernels did; this build knows none.
#[must_use = "it does nothing by itself"]
pub struct Tape(());

impl Tape {
    /// Begins.
    pub fn start() -> Self {
        Self(())
    }

    /// Nothing: this build knows no GPU.
    pub fn use_weights(&self, _: &ConvWeights) {}

    /// [`crate::backward`].
    ///
    /// # Errors
    /// As there.
    pub fn backward(self, loss: &Tensor) -> Result<GradStore> {
        crate::backward(loss)
    }

    /// The same.
    ///
    /// # Errors
    /// As there.
    pub fn backward_as_made(self, loss: &Tensor) -> Result<StepGradients> {
        Ok(StepGradients(crate::backward(loss)?))
    }
}

/// Convolutions' weights beside their parameters; this build keeps none.
pub struct ConvWeights(());

impl ConvWeights {
    /// None.
    ///
    /// # Errors
    /// Never.
    pub fn new<'a>(_: impl IntoIterator<Item = &'a Tensor>, _: DType) -> Result<Self> {
        Ok(Self(()))
    }

    /// Nothing.
    ///
    /// # Errors
    /// Never.
    pub fn renew(&self) -> Result<()> {
        Ok(())
    }

    /// `None`.
    pub fn get(&self, _: &Tensor) -> Option<&Tensor> {
        None
    }
}

/// The gradients of a step.
pub struct StepGradients(GradStore);

impl StepGradients {
    /// That of `parameter`, if the loss reached it.
    pub fn get(&self, parameter: &Tensor) -> Option<&Tensor> {
        self.0.get(parameter)
    }
}

/// Batches on their way into a GPU's memory; this build knows none.
pub struct Uploads(Infallible);

impl Uploads {
    /// `None`.
    ///
    /// # Errors
    /// Never.
    pub fn new(_: &candle_core::Device) -> Result<Option<Self>> {
        Ok(None)
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn send(&mut self, _: &Tensor) -> Result<()> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn receive(&mut self, _: DType) -> Result<Tensor> {
        match self.0 {}
    }
}

/// Brings tensors of a GPU to the host; this build knows none.
pub struct Downloads(Infallible);

/// What such has begun.
pub struct Download(Infallible);

impl Downloads {
    /// `None`.
    ///
    /// # Errors
    /// Never.
    pub fn new(_: &candle_core::Device) -> Result<Option<Self>> {
        Ok(None)
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn begin(&self, _: &[&Tensor]) -> Result<Download> {
        match self.0 {}
    }
}

impl Download {
    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn values(&self) -> Result<Vec<&[f32]>> {
        match self.0 {}
    }
}

nothing! {
    conv2d(&Tensor, &Tensor, &Geometry) -> Tensor;
    conv2d_infer(&GpuForms, &Tensor, &Tensor, [Option<&Tensor>; 2], &Geometry, bool) -> Tensor;
    batch_norm_train(&Tensor, [&Tensor; 2], f64, Option<&Tensor>, bool) -> (Tensor, BatchStats);
    join_channels(&[&Tensor]) -> Tensor;
    join_samples(&[&Tensor]) -> Tensor;
    add(&Tensor, &Tensor) -> Tensor;
    move_running([&Var; 2], &BatchStats, f64) -> ();
    batch_norm_eval(&Tensor, [&Tensor; 4], f64, Option<&Tensor>, bool) -> Tensor;
    pool2d(&Tensor, Pool2dConfig, Reduction) -> Tensor;
    global_avg_pool2d(&Tensor, bool) -> Tensor;
    activate(&Tensor, Kind) -> Tensor;
    per_channel(&Tensor, &Tensor, PerChannel) -> Tensor;
    slice_channels(&Tensor, usize, usize) -> Tensor;
    shuffle_channels(&Tensor, usize) -> Tensor;
    attention_pool2d(&Tensor, &Tensor) -> Tensor;
    samples(&Tensor, usize, usize) -> Tensor;
    weighted_sum(&[(&Tensor, f64)]) -> Tensor;
    collect(&[&Tensor]) -> Tensor;
    discriminator_loss(&Tensor, &Tensor) -> Tensor;
    linear(&Tensor, &Tensor, Option<&Tensor>) -> Tensor;
    label_loss(&Tensor, &Tensor, Pairs<'_>) -> Tensor;
    soft_loss(&Tensor, &Tensor) -> Tensor;
    divergence(&Tensor, &Tensor, f64) -> Tensor;
    mean_square(&Tensor, Pairs<'_>, &Tensor) -> Tensor;
    interpolate(&Tensor, &Tensor, &Tensor) -> Tensor;
    sgd_step(&Var, &Tensor, &Var, SgdConfig) -> ();
    batch_images(&DeviceImages, &Tensor, (usize, usize), DType) -> Tensor;
    sgd_steps(&[ParameterUpdate<'_>], &Tensor, Option<&Tensor>, SgdConfig) -> ();
    judge(&[&Tensor], Option<&Tensor>) -> Tensor;
    count_hits(&Tensor, &Tensor) -> Tensor;
}
