//! Training of image classifiers that teach themselves.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use mixskd_train::{RunDir, TrainConfig, Trainer};
//!
//! # fn main() -> mixskd_train::Result<()> {
//! let config = TrainConfig::default().with("method.name=mixskd")?.with("run.epochs=3")?;
//! let mut trainer = Trainer::new(&config)?;
//! let run = RunDir::create(Path::new("runs/mine"), trainer.config())?;
//! let report = trainer.run(&run, &mut ())?;
//! println!("top-1 {:.1} %", 100.0 * report.top1);
//! # Ok(())
//! # }
//! ```

mod checkpoint;
pub mod config;
mod device;
mod error;
mod evaluate;
mod files;
pub mod method;
mod metrics;
mod observer;
mod optimizer;
mod plan;
mod report;
mod run_dir;
mod schedule;
mod trainer;

pub use config::{NetworkConfig, RunConfig, TrainConfig};
pub use device::DeviceKind;
pub use error::{Error, Result};
pub use evaluate::evaluate;
pub use metrics::{EpochRecord, HeadScore};
pub use observer::{Observer, RunStart, StepEvent};
pub use optimizer::{OptimizerConfig, Sgd};
pub use plan::Plan;
pub use report::{Best, Report};
pub use run_dir::{RunDir, next_free};
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use trainer::Trainer;
