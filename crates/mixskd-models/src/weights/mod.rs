//! Weights files: safetensors under torchvision's names, with all that prediction needs in the metadata; weights of other
//! programs, and networks for other programs. The only file access of this crate.

mod export;
mod import;
mod metadata;
mod names;
mod pytorch;
mod read;
mod timm;
mod write;

pub use export::export_onnx;
pub use import::{ImportReport, StateDict};
pub use metadata::{Metadata, Resize};
pub use read::{build_from_file, load};
pub use timm::NETWORKS as TIMM_NETWORKS;
pub use write::{Draft, draft, save, save_timm};
