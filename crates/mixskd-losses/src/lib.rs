//! Losses of self-knowledge distillation from mixed images, as pure functions of candle tensors.
//!
//! Each loss is one function in one file: it takes the network's outputs, returns a scalar, and its gradient comes from
//! candle's `backward()`. [`objective()`] is the weighted sum that MixSKD (Yang et al., ECCV 2022, arXiv 2208.05768)
//! minimises, its weights an [`ObjectiveConfig`], its named settings the table [`objective::ALL`]. No loss touches a file,
//! clock, thread or random generator. f32 and f64 are computed as they come, half precision in f32.
//!
//! The losses on tensors of one's own:
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use mixskd_losses::{cross_entropy, interpolate, kl_divergence, mix_cross_entropy};
//!
//! let dev = Device::Cpu;
//! // Two images of classes 0 and 2, each the other's partner; λ = 0.7.
//! let labels = Tensor::new(&[0u32, 2], &dev)?;
//! let partner = Tensor::new(&[1u32, 0], &dev)?;
//! let lambda = Tensor::new(&[0.7f32, 0.7], &dev)?;
//! // What a network made of the originals and of their mixes.
//! let original = Var::new(&[[2f32, 0.1, -1.0], [0.3, 0.0, 1.5]], &dev)?;
//! let mixed = Var::new(&[[1f32, 0.2, 0.4], [0.5, -0.1, 0.9]], &dev)?;
//!
//! let partner_labels = labels.index_select(&partner, 0)?;
//! let task = (cross_entropy(&original, &labels)?
//!     + mix_cross_entropy(&mixed, &labels, &partner_labels, &lambda)?)?;
//! // The mixes learn from the interpolated logits of the originals, a teacher no gradient flows to.
//! let teacher = interpolate(&original, &partner, &lambda)?;
//! let loss = (task + kl_divergence(&mixed, &teacher, 3.0)?)?;
//! let grads = loss.backward()?;
//! assert_eq!(grads.get(&mixed).map(|g| g.dims().to_vec()), Some(vec![2, 3]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
mod check;
mod cross_entropy;
mod discriminator_loss;
mod ensemble;
mod entropy;
mod error;
mod feature_mse;
mod focal_loss;
mod gradient_reversal;
mod kl_divergence;
mod label_smoothing;
mod log_softmax;
mod mix_cross_entropy;
mod mmd;
mod mutual_kl;
pub mod objective;
mod precision;
mod soft_cross_entropy;
mod virtual_softmax;
mod virtual_teacher;

/// The version of candle that this crate's tensors are of.
pub use candle_core;

pub use attention::{attention_distance, attention_distillation};
pub use cross_entropy::cross_entropy;
pub use discriminator_loss::discriminator_loss;
pub use ensemble::{ensemble_targets, kl_from_targets};
pub use entropy::entropy;
pub use error::{Error, Result};
pub use feature_mse::feature_mse;
pub use focal_loss::focal_loss;
pub use gradient_reversal::gradient_reversal;
pub use kl_divergence::{kl_divergence, kl_divergence_attached};
pub use label_smoothing::label_smoothing;
pub use mix_cross_entropy::mix_cross_entropy;
#[doc(no_inline)]
pub use mixskd_kernels::interpolate;
pub use mmd::{kernel_mmd, scalar_mean_difference};
pub use mutual_kl::mutual_kl;
pub use objective::{DiscriminatorMode, LossParts, MixSkdOutputs, ObjectiveConfig, objective};
pub use soft_cross_entropy::soft_cross_entropy;
pub use virtual_softmax::virtual_softmax;
pub use virtual_teacher::virtual_teacher;
