//! The MixSKD objective: which terms there are, how they are weighted, and their sum.

mod config;
mod outputs;
mod presets;
mod sum;
mod terms;

pub use config::{DiscriminatorMode, ObjectiveConfig, Reads};
pub use outputs::MixSkdOutputs;
pub use presets::{ALL, Preset};
pub use sum::{LossParts, objective};
