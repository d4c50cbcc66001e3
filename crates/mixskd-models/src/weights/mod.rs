//! Weights files: safetensors under torchvision's names, with all that prediction needs in the metadata. The only file
//! access of this crate.

mod metadata;
mod read;
mod write;

pub use metadata::{Metadata, Resize};
pub use read::{build_from_file, load};
pub use write::save;
