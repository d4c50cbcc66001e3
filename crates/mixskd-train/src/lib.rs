//! Training of image classifiers by self-distillation.
//!
//! A [`Trainer`] is made from a [`TrainConfig`], trains by one of the methods of [`method`], and writes into a [`RunDir`]. An
//! [`Observer`] is told of every step and epoch; a [`Control`] stops a run or asks for a checkpoint; [`Trainer::builder`] takes a data set
//! and a method of the caller's own; [`compare`] trains several methods over several seeds.
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

mod assemble;
mod average;
pub mod bench;
mod builder;
mod cadence;
mod checkpoint;
mod checkpoint_name;
pub mod compare;
pub mod config;
mod config_keys;
mod control;
mod device;
mod difference;
mod distribution;
mod error;
mod evaluate;
mod feed;
mod files;
mod gpu_step;
mod gradients;
mod init;
mod learner;
mod machine;
pub mod method;
mod metrics;
pub mod names;
mod numbering;
mod observer;
mod optimizer;
mod plan;
mod precision;
mod progress;
mod report;
mod run_dir;
mod schedule;
mod seen;
mod state;
mod step;
mod to_host;
mod trainer;
mod upcoming;
mod updater;
mod weights_file;

/// The version of candle that this crate's tensors are of.
pub use candle_core;

pub use builder::{OwnConfig, TrainerBuilder};
pub use cadence::CheckpointEvery;
pub use checkpoint::verify_checkpoint;
pub use config::{NetworkConfig, OnNan, RunConfig, TrainConfig};
pub use control::Control;
pub use device::DeviceKind;
pub use distribution::{DistributionConfig, Place};
pub use error::{Error, Result, shell_word};
pub use evaluate::evaluate;
pub use gpu_step::Launching;
pub use init::{InitConfig, Start};
pub use machine::{Machine, build};
pub use metrics::{EpochRecord, HeadScore};
pub use numbering::make_next_free;
pub use observer::{Observer, RunStart, StepEvent, TestEvent};
pub use optimizer::{OptimizerConfig, Sgd};
pub use plan::Plan;
pub use precision::Precision;
pub use report::{Best, Report};
pub use run_dir::RunDir;
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use seen::{Seen, Source};
pub use trainer::Trainer;
