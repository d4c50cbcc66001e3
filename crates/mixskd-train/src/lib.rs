//! Training of image classifiers that teach themselves.
//!
//! ```
//! use mixskd_train::{RunDir, TrainConfig, Trainer};
//!
//! # fn main() -> mixskd_train::Result<()> {
//! let config = TrainConfig::default()
//!     .with("model.width=0.03125")?
//!     .with("run.batch=500")?
//!     .with("run.epochs=1")?;
//! let mut trainer = Trainer::new(&config)?;
//! let run = RunDir::create(&std::env::temp_dir().join("mixskd-example"), trainer.config())?;
//! let report = trainer.run(&run, &mut ())?;
//! # std::fs::remove_dir_all(&report.dir).ok();
//! println!("top-1 {:.1} %", 100.0 * report.top1);
//! # Ok(())
//! # }
//! ```

pub mod bench;
mod checkpoint;
pub mod compare;
pub mod config;
mod device;
mod error;
mod evaluate;
mod files;
mod init;
mod machine;
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
pub use init::{InitConfig, Start};
pub use machine::Machine;
pub use metrics::{EpochRecord, HeadScore};
pub use observer::{Observer, RunStart, StepEvent};
pub use optimizer::{OptimizerConfig, Sgd};
pub use plan::Plan;
pub use report::{Best, Report};
pub use run_dir::{RunDir, next_free};
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use trainer::Trainer;
