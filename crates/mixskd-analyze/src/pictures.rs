//! Grad-CAM pictures of chosen test images.

use mixskd_data::Dataset;
use serde::Serialize;

use crate::analysis::Step;
use crate::grad_cam::ClassActivationMap;
use crate::picture::{enlarged, overlay, picture, png};
use crate::{AnalyzeConfig, Classifier, Error, Measure, Prediction, Result, prediction};

/// A PNG file of an analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PictureFile {
    /// Its path below the analysis' directory.
    pub file: String,
    /// Its bytes.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

/// One test image and where each network looks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// Index among the test images.
    pub index: usize,
    /// Where it comes from.
    pub origin: String,
    /// Name of its class.
    pub class: String,
    /// The image as the first network is given it, enlarged where it is small.
    pub input: PictureFile,
    /// What each network makes of it.
    pub views: Vec<View>,
}

/// What one network makes of an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// `A` or `B`.
    pub network: String,
    /// Name of the predicted class.
    pub predicted: String,
    /// Its softmax probability.
    pub confidence: f64,
    /// Softmax probability of the image's own class.
    pub probability: f64,
    /// Where the network sees the predicted class.
    pub for_predicted: PictureFile,
    /// Where it sees the image's own class, if that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_class: Option<PictureFile>,
}

/// Whether the images and the stage that are asked for exist.
pub(crate) fn check(
    networks: &[Classifier],
    dataset: &Dataset,
    config: &AnalyzeConfig,
) -> Result<()> {
    if !config.wants(Measure::GradCam) {
        return Ok(());
    }
    let len = dataset.test.len();
    if let Some(index) = config.images.iter().find(|&&index| index >= len) {
        let message = format!("there is no test image {index}: {} has {len}", dataset.name);
        let hint = format!("name images from 0 to {}", len.saturating_sub(1));
        return Err(Error::config("images", message, hint));
    }
    for network in networks {
        if config.cam_stage > network.stages() {
            let (stage, stages) = (config.cam_stage, network.stages());
            let message = format!("{} has no stage {stage}", network.name);
            let hint = format!("name one from 1 to {stages}, or none for the last");
            return Err(Error::config("cam_stage", message, hint));
        }
    }
    Ok(())
}

/// The images to show: those named, else those on which the loss is largest, largest first, the smaller index first among equals.
fn chosen(config: &AnalyzeConfig, predictions: &[Prediction]) -> Vec<usize> {
    if !config.images.is_empty() {
        return config.images.clone();
    }
    let worst = prediction::worst(predictions, config.worst);
    worst.iter().map(|p| p.index).collect()
}

pub(crate) fn pictures(
    networks: &[Classifier],
    names: &[&'static str],
    dataset: &Dataset,
    config: &AnalyzeConfig,
    predictions: &[Prediction],
    progress: &mut dyn FnMut(Step<'_>),
) -> Result<Vec<Picture>> {
    let indices = chosen(config, predictions);
    let mut pictures = Vec::with_capacity(indices.len());
    for (done, &index) in indices.iter().enumerate() {
        let label = dataset.test.label(index) as usize;
        let image = dataset.test.image(index)?;
        let mut input = None;
        let mut views = Vec::with_capacity(networks.len());
        for (network, name) in networks.iter().zip(names) {
            let tensor = network.pipeline()?.tensor(&image)?;
            let tensor = tensor.to_device(network.device())?;
            let shown = enlarged(&picture(&network.to_pixels(&tensor)?)?);
            let rows = network.rows(&tensor)?;
            let logits = rows.first().map_or(&[][..], Vec::as_slice);
            let seen = Prediction::new(index, label, logits, 1.0);
            let stage = match config.cam_stage {
                0 => network.stages().saturating_sub(1),
                stage => stage - 1,
            };
            let heat = |class: usize, of: &str| -> Result<PictureFile> {
                let heat = ClassActivationMap::grad_cam(network, &tensor, stage, class)?;
                Ok(PictureFile {
                    file: format!("grad-cam/{index:06}-{name}-{of}.png"),
                    bytes: png(&overlay(&shown, &heat))?,
                })
            };
            views.push(View {
                network: (*name).into(),
                predicted: dataset.classes[seen.predicted].clone(),
                confidence: seen.confidence(),
                probability: seen.log_likelihood.exp(),
                for_predicted: heat(seen.predicted, "predicted")?,
                for_class: if seen.predicted == label {
                    None
                } else {
                    Some(heat(label, "class")?)
                },
            });
            if input.is_none() {
                input = Some(PictureFile {
                    file: format!("grad-cam/{index:06}-input.png"),
                    bytes: png(&shown)?,
                });
            }
        }
        if let Some(input) = input {
            pictures.push(Picture {
                index,
                origin: dataset.test.origin(index),
                class: dataset.classes[label].clone(),
                input,
                views,
            });
        }
        progress(Step {
            network: "",
            what: "Grad-CAM",
            done: done + 1,
            total: indices.len(),
        });
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_images_come_first_unless_some_are_named() {
        let image = |index, own: f32| Prediction::new(index, 0, &[own, 0.0], 1.0);
        let predictions = [
            image(5, 1.0),
            image(3, -2.0),
            image(9, -1.0),
            image(1, -2.0),
        ];
        let mut config = AnalyzeConfig {
            worst: 3,
            ..AnalyzeConfig::default()
        };
        assert_eq!(chosen(&config, &predictions), [1, 3, 9]);
        config.images = vec![7, 2];
        assert_eq!(chosen(&config, &predictions), [7, 2]);
    }
}
