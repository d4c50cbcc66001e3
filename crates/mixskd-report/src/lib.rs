//! Reports of training runs: tables, TensorBoard's events, HTML pages.
//!
//! [`Recorder`] watches a run and writes `metrics.csv`, `predictions.csv`, TensorBoard event files, `run.json` and
//! `report.html` into its directory; [`write_page_of`] makes the page anew, or one of several runs; [`preview`] draws training images
//! as the network sees them.
//!
//! ```no_run
//! use mixskd_report::Recorder;
//! use mixskd_train::{RunDir, TrainConfig, Trainer};
//!
//! # fn main() -> mixskd_train::Result<()> {
//! let config = TrainConfig::default()
//!     .with("model.width=0.03125")?
//!     .with("run.batch=500")?
//!     .with("run.epochs=1")?;
//! let mut trainer = Trainer::new(&config)?;
//! let run = RunDir::create(&std::env::temp_dir().join("mixskd-recorded"), trainer.config())?;
//! let mut watcher = ();
//! let mut recorder = Recorder::new(&mut watcher, "a program of my own").with_pictures(&trainer);
//! trainer.run(&run, &mut recorder)?;
//! assert!(run.path().join("metrics.csv").is_file());
//! # std::fs::remove_dir_all(run.path()).ok();
//! # Ok(())
//! # }
//! ```

mod cells;
mod confusion;
mod csv;
mod curves;
mod error;
mod html;
mod page;
mod pictures;
mod predictions;
mod recorder;
mod run;
mod run_files;
mod session;
pub mod tensorboard;

pub use csv::cell;
pub use error::{Error, Result};
pub use mixskd_train::names::{METRICS_CSV, METRICS_JSONL, PREDICTIONS_CSV, REPORT_HTML, RUN_JSON};
pub use page::{page, write_page, write_page_of};
pub use pictures::preview;
pub use predictions::{Answer, Predictions};
pub use recorder::Recorder;
pub use run::Run;
pub use run_files::read_records;
pub use session::{Session, read_sessions};
