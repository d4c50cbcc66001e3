//! Every measure of one or two networks in one pass over the images each.

use std::sync::Arc;

use candle_core::Tensor;
use mixskd_data::{Dataset, Samples};
use serde::Serialize;

use crate::calibration::Row;
use crate::fgsm::Fgsm;
use crate::mixed::MixedError;
use crate::order::{Selected, Split};
use crate::pictures::Picture;
use crate::prediction::{balanced, loss, top1, top5};
use crate::rescaling::{Rescaler, means};
use crate::{
    Agreement, AnalyzeConfig, Calibration, ClassScore, Classifier, Error, FgsmPoint, Measure,
    MixedPoint, Prediction, Rescaling, Result, per_class, pictures,
};

/// Version of the JSON document's layout.
const SCHEMA: u32 = 1;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Version of this document's layout, 1.
    pub schema: u32,
    /// Name of the data set.
    pub data: String,
    /// Its classes, in label order.
    pub classes: Vec<String>,
    /// Test images there are.
    pub test_images: usize,
    /// Test images that were analysed.
    pub images: usize,
    /// The settings.
    pub config: AnalyzeConfig,
    /// One or two networks.
    pub networks: Vec<NetworkAnalysis>,
    /// Two networks on the same images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// Where the networks look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<Picture>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkAnalysis {
    /// `A` or `B`.
    pub name: String,
    /// Its weights file.
    pub weights: String,
    /// Name of the network.
    pub model: String,
    /// Width multiplier.
    pub width: f64,
    /// Method it was trained by, where the file says so.
    pub method: Option<String>,
    /// Share of the images that is classified rightly.
    pub top1: f64,
    /// Share of the images whose class is among the five most probable.
    pub top5: f64,
    /// Mean over classes of the share of their images that is classified rightly; classes without an image are left out.
    pub balanced: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Every class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_class: Option<Vec<ClassScore>>,
    /// Error on mixed images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed: Option<Vec<MixedPoint>>,
    /// Accuracy under attack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fgsm: Option<Vec<FgsmPoint>>,
    /// Test-time mixup rescaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescaling: Option<Rescaling>,
}

/// How far an analysis has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// `A` or `B`.
    pub network: &'a str,
    /// What is being done.
    pub what: &'static str,
    /// Images done of it.
    pub done: usize,
    /// Images to do.
    pub total: usize,
}

/// Names of the networks.
const NAMES: [&str; 2] = ["A", "B"];

/// Analyses one or two networks on the test images of `dataset`, telling `progress` after each batch.
///
/// # Errors
/// When a setting is out of its range, weights and data do not fit, an image cannot be read, or logits are not finite.
pub fn analyze(
    networks: &[Classifier],
    dataset: &Dataset,
    config: &AnalyzeConfig,
    progress: &mut dyn FnMut(Step<'_>),
) -> Result<Analysis> {
    config.validate()?;
    if networks.is_empty() || networks.len() > NAMES.len() {
        let message = format!("takes one or two, got {}", networks.len());
        return Err(Error::config("weights", message, "compare two at a time"));
    }
    dataset.check()?;
    for network in networks {
        network.check_fit(dataset)?;
    }
    pictures::check(networks, dataset, config)?;
    let selected = Selected::draw(&dataset.test, config.limit, config.seed, Split::Test);
    let mut analysed = Vec::new();
    let mut predictions = Vec::new();
    for (network, name) in networks.iter().zip(NAMES) {
        let pass = Pass {
            network,
            name,
            dataset,
            selected: &selected,
            config,
        };
        let (analysis, predicted) = pass.run(progress)?;
        analysed.push(analysis);
        predictions.push(predicted);
    }
    let agreement = match predictions.as_slice() {
        [a, b] if config.wants(Measure::Agreement) => {
            Some(Agreement::new(a, b, dataset.classes.len()))
        }
        _ => None,
    };
    let pictures = match predictions.first() {
        Some(first) if config.wants(Measure::GradCam) => {
            pictures::pictures(networks, &NAMES, dataset, config, first, progress)?
        }
        _ => Vec::new(),
    };
    Ok(Analysis {
        schema: SCHEMA,
        data: dataset.name.clone(),
        classes: dataset.classes.clone(),
        test_images: dataset.test.len(),
        images: selected.len(),
        config: config.clone(),
        networks: analysed,
        agreement,
        pictures,
    })
}

/// One network over all images.
struct Pass<'a> {
    network: &'a Classifier,
    name: &'static str,
    dataset: &'a Dataset,
    selected: &'a Arc<Selected>,
    config: &'a AnalyzeConfig,
}

impl Pass<'_> {
    fn run(
        &self,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<(NetworkAnalysis, Vec<Prediction>)> {
        let Self {
            network, config, ..
        } = self;
        let mut mixed = config
            .wants(Measure::Mixed)
            .then(|| MixedError::new(&config.lambdas));
        let mut fgsm = config
            .wants(Measure::Fgsm)
            .then(|| Fgsm::new(&config.epsilons));
        let mut rescaler = if config.wants(Measure::Rescaling) {
            Some(self.rescaler(progress)?)
        } else {
            None
        };
        let mut predictions = Vec::with_capacity(self.selected.len());
        let mut rows = Vec::new();
        let loader = self.selected.loader(network.pipeline()?, config.batch)?;
        for batch in loader.epoch(0) {
            let batch = batch?;
            let images = batch.images.to_device(network.device())?;
            let first = predictions.len();
            let logits = network.rows_of(&images, |row| {
                format!("test image {}", self.selected.original(first + row))
            })?;
            for (k, (logits, &label)) in logits.iter().zip(&batch.labels).enumerate() {
                let (index, label) = (self.selected.original(first + k), label as usize);
                predictions.push(Prediction::new(index, label, logits, 1.0));
                if config.wants(Measure::Calibration) {
                    let logits = logits.clone();
                    rows.push(Row {
                        index,
                        label,
                        logits,
                    });
                }
            }
            if let Some(mixed) = &mut mixed {
                mixed.add(network, &images, &batch.labels)?;
            }
            if let Some(fgsm) = &mut fgsm {
                fgsm.add(network, &images, &batch.labels, &logits)?;
            }
            if let Some(rescaler) = &mut rescaler {
                rescaler.add(network, &images, &batch.labels)?;
            }
            progress(Step {
                network: self.name,
                what: "test images",
                done: predictions.len(),
                total: self.selected.len(),
            });
        }
        let model = &network.metadata.model;
        let analysis = NetworkAnalysis {
            name: self.name.into(),
            weights: network.name.clone(),
            model: model.name.clone(),
            width: model.width,
            method: network.metadata.extra.get("method").cloned(),
            top1: top1(&predictions),
            top5: top5(&predictions),
            balanced: balanced(&predictions),
            loss: loss(&predictions),
            calibration: config
                .wants(Measure::Calibration)
                .then(|| Calibration::new(&rows, config)),
            per_class: config
                .wants(Measure::PerClass)
                .then(|| per_class(&predictions, &self.dataset.classes)),
            mixed: mixed.and_then(MixedError::finish),
            fgsm: fgsm.map(Fgsm::finish),
            rescaling: rescaler.map(|rescaler| rescaler.finish(&predictions, config.bins)),
        };
        Ok((analysis, predictions))
    }

    /// The means of the training images, first: what the rescaling shrinks toward.
    fn rescaler(&self, progress: &mut dyn FnMut(Step<'_>)) -> Result<Rescaler> {
        let Self {
            network, config, ..
        } = self;
        let train = &self.dataset.train;
        let drawn = Selected::draw(train, config.mean_images, config.seed, Split::Train);
        let loader = drawn.loader(network.pipeline()?, config.batch)?;
        let labels = (0..train.len()).map(|index| train.label(index));
        let mut done = 0;
        let mut means = means(&loader, labels, self.dataset.classes.len(), &mut |rows| {
            done += rows;
            progress(Step {
                network: self.name,
                what: "mean of training images",
                done,
                total: drawn.len(),
            });
        })?;
        means.image = Tensor::to_device(&means.image, network.device())?;
        Ok(Rescaler::new(config.alpha, means))
    }
}
