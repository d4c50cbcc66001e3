//! PS-KD: a network learns from what it said an epoch ago.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};
use mixskd_losses::soft_cross_entropy;
use mixskd_models::{Backbone, Mode};
use serde::{Deserialize, Serialize};

use super::config::{self, Settings};
use super::{Method, MethodInputs, MethodSpec, SettingsSpec, StepOutput, TrainBatch};
use crate::{Error, Result};

/// The table's row.
pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "ps-kd",
    summary: "labels softened by the network's own prediction of the epoch before, more and more",
    source: "Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, ICCV 2021",
    settings: SettingsSpec::of::<Progress>(),
    build: |inputs| Ok(Box::new(PsKd::new(inputs)?)),
    ..MethodSpec::PLAIN
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Progress {
    /// `α_T`, the share of the past prediction in the last epoch.
    last_share: f64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { last_share: 0.8 }
    }
}

impl Settings for Progress {
    fn validate(&self) -> Result<()> {
        config::within("last_share", self.last_share, 0.0, 1.0)
    }
}

/// Name of the table in a checkpoint.
const PREDICTIONS: &str = "predictions";

/// `−Σ_c t_c·log p_c(x)` with `t = (1−α_t)·onehot(y) + α_t·p'(x)`, p' the softmax the sample got when it was last seen (its label,
/// before), `α_t = α_T·(t+1)/epochs`, t the epoch from 0. The predictions are a table over the training set.
struct PsKd {
    backbone: Box<dyn Backbone>,
    settings: Progress,
    epochs: usize,
    classes: usize,
    /// `[sample, class]`, row by row; a row of zeros has not been seen.
    predictions: Vec<f32>,
    /// The rows that the last step has changed, as they were.
    before: Vec<(u32, Vec<f32>)>,
}

impl PsKd {
    fn new(inputs: &MethodInputs) -> Result<Self> {
        let classes = inputs.model.classes;
        Ok(Self {
            backbone: inputs.backbone()?,
            settings: inputs.settings()?,
            epochs: inputs.epochs,
            classes,
            predictions: vec![0.0; inputs.train_images * classes],
            before: Vec::new(),
        })
    }

    fn row(&self, index: u32) -> std::ops::Range<usize> {
        let first = index as usize * self.classes;
        first..first + self.classes
    }

    /// The soft targets of a batch, `[batch, class]`.
    fn targets(&self, batch: &TrainBatch) -> Result<Tensor> {
        let share = self.settings.last_share * (batch.epoch + 1) as f64 / self.epochs as f64;
        let mut targets = Vec::with_capacity(batch.indices.len() * self.classes);
        for (&index, label) in batch.indices.iter().zip(batch.labels.to_vec1::<u32>()?) {
            let past = &self.predictions[self.row(index)];
            let seen = past.iter().any(|&p| p > 0.0);
            targets.extend(past.iter().enumerate().map(|(class, &p)| {
                let own = f64::from(u8::from(class == label as usize));
                let past = if seen { f64::from(p) } else { own };
                ((1.0 - share) * own + share * past) as f32
            }));
        }
        let shape = (batch.indices.len(), self.classes);
        Ok(Tensor::from_vec(targets, shape, &Device::Cpu)?.to_device(batch.images.device())?)
    }
}

impl Method for PsKd {
    fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }

    fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
        let targets = self.targets(batch)?;
        let logits = self.backbone.forward(&batch.images, Mode::Train)?;
        let task = soft_cross_entropy(&logits, &targets)?;
        let said = candle_nn::ops::softmax(&logits.detach(), D::Minus1)?;
        let said = said.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        self.before.clear();
        for (&index, said) in batch.indices.iter().zip(said) {
            let row = self.row(index);
            let row = &mut self.predictions[row];
            self.before.push((index, row.to_vec()));
            row.copy_from_slice(&said);
        }
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }

    fn undo_step(&mut self) {
        // Backwards: an image may be there twice.
        while let Some((index, before)) = self.before.pop() {
            let row = self.row(index);
            self.predictions[row].copy_from_slice(&before);
        }
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let shape = (self.predictions.len() / self.classes, self.classes);
        let table = Tensor::from_slice(&self.predictions, shape, &Device::Cpu)?;
        Ok(BTreeMap::from([(PREDICTIONS.into(), table)]))
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let table = state
            .get(PREDICTIONS)
            .filter(|t| t.elem_count() == self.predictions.len());
        let Some(table) = table else {
            return Err(Error::Checkpoint {
                path: "the checkpoint".into(),
                message: "has no table of predictions for this training set".into(),
            });
        };
        self.predictions = table.flatten_all()?.to_vec1()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mixskd_models::{ModelConfig, ParamStore};

    use super::*;
    use crate::method::MethodConfig;

    #[test]
    fn targets_move_from_the_label_to_the_last_prediction() {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let model = ModelConfig {
            width: 0.03125,
            ..ModelConfig::new("cifar_resnet18", 2).unwrap()
        };
        let mut method = PsKd::new(&MethodInputs {
            config: &MethodConfig::new("ps-kd").unwrap(),
            objective: &mixskd_losses::ObjectiveConfig::default(),
            model: &model,
            store: &store,
            seed: 0,
            epochs: 4,
            train_images: 3,
            freeze_backbone: false,
        })
        .unwrap();
        method.predictions[4..6].copy_from_slice(&[0.25, 0.75]);
        let batch = |epoch| TrainBatch {
            images: Tensor::zeros((2, 1, 1, 3), DType::F32, &Device::Cpu).unwrap(),
            labels: Tensor::new(&[0u32, 1], &Device::Cpu).unwrap(),
            indices: vec![2, 1],
            epoch,
            step: 0,
            draws: vec![],
        };
        let targets = |epoch| {
            method
                .targets(&batch(epoch))
                .unwrap()
                .to_vec2::<f32>()
                .unwrap()
        };
        // α = 0.2 in the first of four epochs, 0.8 in the last; sample 1 has never been seen.
        let check = |epoch, expected: [f32; 2]| {
            let got = targets(epoch);
            let close = got[0]
                .iter()
                .zip(expected)
                .all(|(g, e)| (g - e).abs() < 1e-6);
            assert!(close && got[1] == [0.0, 1.0], "{got:?}");
        };
        check(0, [0.85, 0.15]);
        check(3, [0.4, 0.6]);
    }
}
