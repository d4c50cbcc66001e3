//! Staged image-classification networks over channels-last kernels, and the modules that MixSKD hangs on their stages:
//! alignment modules with their branches, the self-teacher, discriminators.
//!
//! A [`Backbone`] is `stages(x)` (K feature maps) and `head(map)` (logits). Its parameters carry torchvision's names, so the
//! file that [`weights::save`] writes loads in PyTorch with `strict=True`. Every network is a line of [`registry::ALL`].
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use mixskd_models::{Branches, Mode, ModelConfig, ParamStore, SelfTeacher};
//!
//! # fn main() -> mixskd_models::Result<()> {
//! let store = ParamStore::new(1, DType::F32, &Device::Cpu);
//! let config = ModelConfig { width: 0.0625, ..ModelConfig::new("cifar_resnet18", 10)? };
//! let backbone = config.build(store.builder().pp("backbone"))?;
//! let branches = Branches::new(backbone.as_ref(), 10, store.builder().pp("branches"))?;
//! let channels = backbone.stage_channels();
//! let teacher = SelfTeacher::new(
//!     channels.len(), channels[3], 10, store.builder().pp("self_teacher"),
//! )?;
//!
//! // Two images, channels last. All four outputs have features of one shape.
//! let images = Tensor::zeros((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
//! let outputs = branches.all_outputs(backbone.as_ref(), &images, Mode::Train)?;
//! let features: Vec<Tensor> = outputs.iter().map(|output| output.features.clone()).collect();
//! assert_eq!(features.len(), 4);
//! assert_eq!(teacher.forward(&features, Mode::Train)?.dims(), [2, 10]);
//!
//! // Only the backbone survives training.
//! println!("{} of {} parameters kept", store.count("backbone"), store.count(""));
//! # Ok(())
//! # }
//! ```

#![allow(
    clippy::needless_pass_by_value,
    reason = "a `VarBuilder` is passed by value everywhere in candle"
)]

mod backbone;
mod bifpn;
mod blocks;
mod branches;
mod config;
mod cost;
mod densenet;
mod discriminator;
mod efficientnet;
mod error;
mod frozen;
pub mod graph;
mod hcgnet;
pub mod layers;
mod mobilenet;
pub mod onnx;
mod preact_resnet;
pub mod registry;
mod resnet;
mod self_teacher;
mod shufflenet;
mod staged;
mod store;
mod vgg;
pub mod weights;
mod wide_resnet;

/// The version of candle that this crate's tensors are of, and of the builders that its networks are made from.
pub use {candle_core, candle_nn};

pub use backbone::{Alignment, Backbone, Mode};
pub use bifpn::BiFpn;
pub use branches::{Branch, Branches, HeadOutput};
pub use config::ModelConfig;
pub use cost::{Cost, StageShape};
pub use discriminator::{Discriminator, DiscriminatorHead};
pub use error::{Error, Result};
pub use frozen::Frozen;
pub use self_teacher::SelfTeacher;
pub use staged::{Plan, Staged};
pub use store::{LoadReport, Misfit, ParamStore, Strictness};
