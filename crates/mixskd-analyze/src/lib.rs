//! Analysis of trained classifiers beyond accuracy.
//!
//! [`analyze`] takes one or two networks and a data set, and measures in one pass over the test images: calibration with temperature
//! scaling ([`Calibration`]), accuracy of every class ([`ClassScore`]), how sure two networks are where both are right or both
//! wrong ([`Agreement`]), error on mixed images against λ ([`MixedPoint`]), accuracy under the fast gradient sign method
//! ([`FgsmPoint`]), test-time mixup rescaling ([`Rescaling`]), and where a network looks ([`ClassActivationMap`], [`Picture`]). `docs/analysis.md` has
//! every definition with its source.
//!
//! Images are taken in an order that the seed draws, sums are added in that order in float64, and the kernels below do not
//! depend on the number of threads: neither does a result.
//!
//! ```
//! use candle_core::{DType, Device};
//! use mixskd_analyze::{AnalyzeConfig, Classifier, Measure, analyze};
//! use mixskd_data::DataConfig;
//! use mixskd_models::weights::Metadata;
//! use mixskd_models::{ModelConfig, ParamStore};
//!
//! # fn main() -> mixskd_analyze::Result<()> {
//! // An untrained network for the set that ships with the program; `Classifier::open` reads a weights file.
//! let dataset = DataConfig::default().open()?;
//! let model = ModelConfig {
//!     channels: 1,
//!     width: 0.03125,
//!     input: 28,
//!     ..ModelConfig::new("cifar_resnet18", dataset.classes.len())?
//! };
//! let store = ParamStore::new(0, DType::F32, &Device::Cpu);
//! let backbone = model.build(store.builder())?;
//! let network = Classifier::new("untrained", backbone, Metadata::new(model), &Device::Cpu)?;
//!
//! let config = AnalyzeConfig {
//!     measures: vec![Measure::Calibration, Measure::PerClass],
//!     limit: 50,
//!     ..AnalyzeConfig::default()
//! };
//! let analysis = analyze(&[network], &dataset, &config, &mut |_| ())?;
//! assert_eq!(analysis.images, 50);
//! assert!(analysis.networks[0].calibration.is_some());
//! # Ok(())
//! # }
//! ```

mod agreement;
mod analysis;
mod calibration;
mod classes;
mod classifier;
mod config;
mod error;
mod fgsm;
mod figures;
mod files;
mod grad_cam;
mod mixed;
mod order;
mod page;
mod picture;
mod pictures;
mod prediction;
mod rescaling;
mod softmax;
mod summary;
mod temperature;

/// The version of candle that this crate's tensors are of.
pub use candle_core;

pub use agreement::{Agreement, Common, LogProbabilities};
pub use analysis::{Analysis, NetworkAnalysis, Step, analyze};
pub use calibration::{Bin, Calibration, Reliability, Row, Scaling};
pub use classes::{ClassScore, Confused, Confusion, per_class};
pub use classifier::Classifier;
pub use config::{AnalyzeConfig, Measure};
pub use error::{Error, Result};
pub use fgsm::{FgsmPoint, fgsm};
pub use figures::Figure;
pub use files::{ANALYSIS_HTML, ANALYSIS_JSON};
pub use grad_cam::ClassActivationMap;
pub use mixed::MixedPoint;
pub use page::base64;
pub use picture::{enlarged, picture, png};
pub use pictures::{Picture, PictureFile, View};
pub use prediction::{Prediction, balanced, loss, predict, top1, top5, worst};
pub use rescaling::{Means, Rescaling, mean_theta};
pub use softmax::log_softmax;
pub use summary::summary;
pub use temperature::{Temperature, fit as fit_temperature};
