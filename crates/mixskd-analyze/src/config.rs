//! What is measured, and how finely.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One of the measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Expected calibration error, reliability diagram, temperature scaling.
    Calibration,
    /// Accuracy of every class.
    PerClass,
    /// Log-probability of what two networks predict where both are right or both are wrong.
    Agreement,
    /// Error on mixed images against λ.
    Mixed,
    /// Accuracy under the fast gradient sign method.
    Fgsm,
    /// Test-time mixup rescaling.
    Rescaling,
    /// Where a network looks.
    GradCam,
}

impl Measure {
    /// All of them, in the order they are told in.
    pub const ALL: [Self; 7] = [
        Self::Calibration,
        Self::PerClass,
        Self::Agreement,
        Self::Mixed,
        Self::Fgsm,
        Self::Rescaling,
        Self::GradCam,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calibration => "calibration",
            Self::PerClass => "per-class",
            Self::Agreement => "agreement",
            Self::Mixed => "mixed",
            Self::Fgsm => "fgsm",
            Self::Rescaling => "rescaling",
            Self::GradCam => "grad-cam",
        }
    }

    /// The measure of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }
}

/// Settings of an analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnalyzeConfig {
    /// What is measured.
    pub measures: Vec<Measure>,
    /// Images that go through a network at once. Results do not depend on it beyond rounding.
    pub batch: usize,
    /// At most so many test images, drawn by the seed; 0 takes all.
    pub limit: usize,
    /// Seed of the order of the images: of the split for the temperature, of who is mixed with whom, of what a limit takes.
    pub seed: u64,
    /// Equal-width bins of confidence between 0 and 1.
    pub bins: usize,
    /// Share of the images that the temperature is fitted on; it is judged on the others.
    pub fit_fraction: f64,
    /// λ of the mixes, each between 0 and 1.
    pub lambdas: Vec<f64>,
    /// Steps of the fast gradient sign method, in units of 1/255 of a pixel's range.
    pub epsilons: Vec<f64>,
    /// α of the Beta(α, α) that the rescaling undoes.
    pub alpha: f64,
    /// At most so many training images, drawn by the seed, make the mean image; 0 takes all.
    pub mean_images: usize,
    /// Test images to show, by index; empty takes those the first network has the largest loss on.
    pub images: Vec<usize>,
    /// How many images are shown where none are named.
    pub worst: usize,
    /// Stage whose feature map is shown, from 1; 0 stands for the last.
    pub cam_stage: usize,
}

impl Default for AnalyzeConfig {
    fn default() -> Self {
        Self {
            measures: Measure::ALL.to_vec(),
            batch: 100,
            limit: 0,
            seed: 0,
            bins: 15,
            fit_fraction: 0.5,
            lambdas: (0..=10).map(|k| f64::from(k) / 10.0).collect(),
            epsilons: vec![0.0, 0.5, 1.0, 2.0, 4.0, 8.0],
            alpha: 0.4,
            mean_images: 10_000,
            images: Vec::new(),
            worst: 8,
            cam_stage: 0,
        }
    }
}

impl AnalyzeConfig {
    /// Whether `measure` is asked for.
    pub fn wants(&self, measure: Measure) -> bool {
        self.measures.contains(&measure)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Names the first setting out of its range.
    pub fn validate(&self) -> Result<()> {
        let least = [("batch", self.batch), ("bins", self.bins)];
        if let Some((key, _)) = least.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(
                key,
                "must be at least 1, got 0",
                "leave it out for the default",
            ));
        }
        if self.bins > 10_000 {
            let message = format!("must be at most 10000, got {}", self.bins);
            return Err(Error::config("bins", message, "15 is usual"));
        }
        if !(self.fit_fraction > 0.0 && self.fit_fraction < 1.0) {
            let message = format!("must be between 0 and 1, got {}", self.fit_fraction);
            return Err(Error::config(
                "fit_fraction",
                message,
                "0.5 fits on one half and judges on the other",
            ));
        }
        if !(self.alpha > 0.0 && self.alpha <= 1e6) {
            let message = format!("must be above 0 and at most 1000000, got {}", self.alpha);
            return Err(Error::config("alpha", message, "0.4 is MixSKD's on CIFAR"));
        }
        let lists = [
            ("lambdas", &self.lambdas, 1.0, "such as 0,0.25,0.5,0.75,1"),
            ("epsilons", &self.epsilons, 255.0, "such as 0,1,2,4,8"),
        ];
        for (key, values, most, hint) in lists {
            if let Some(value) = values.iter().find(|v| !(0.0..=most).contains(*v)) {
                let message = format!("must be from 0 to {most}, got {value}");
                return Err(Error::config(key, message, hint));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_known_by_the_names_they_are_written_with() {
        for measure in Measure::ALL {
            assert_eq!(Measure::named(measure.name()), Some(measure));
            assert_eq!(serde_json::to_value(measure).unwrap(), measure.name());
        }
        assert_eq!(Measure::named("ece"), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let check = |key: &str, change: fn(&mut AnalyzeConfig)| {
            let mut config = AnalyzeConfig::default();
            change(&mut config);
            let text = config.validate().unwrap_err().to_string();
            assert!(text.starts_with(key) && text.contains("hint: "), "{text}");
        };
        assert!(AnalyzeConfig::default().validate().is_ok());
        check("bins", |c| c.bins = 0);
        check("bins", |c| c.bins = 1_000_000);
        check("batch", |c| c.batch = 0);
        check("fit_fraction", |c| c.fit_fraction = 1.0);
        check("fit_fraction", |c| c.fit_fraction = f64::NAN);
        check("alpha", |c| c.alpha = 0.0);
        check("lambdas", |c| c.lambdas = vec![0.0, 1.1]);
        check("epsilons", |c| c.epsilons = vec![f64::NAN]);
    }
}
