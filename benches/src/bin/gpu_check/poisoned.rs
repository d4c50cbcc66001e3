//! A step that is not finite while the next one is under way: it is told of as itself, and neither changes a parameter.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use mixskd_data::BatchNeeds;
use mixskd_kernels::cross_entropy;
use mixskd_models::{Backbone, Mode};
use mixskd_train::method::{DrawSite, Method, StepOutput, TrainBatch};
use mixskd_train::{Error, RunDir, TrainConfig, Trainer};

use crate::OnGpu;

/// The step that is poisoned, from 0: the first that is launched before the one before it is read. One more is launched before it is.
const STEP: usize = 3;

/// Cross-entropy times a number that is drawn, which is 1 but for one step.
struct Poisoned(Box<dyn Backbone>);

impl Method for Poisoned {
    fn backbone(&self) -> &dyn Backbone {
        self.0.as_ref()
    }

    fn draws(&self, site: &DrawSite) -> mixskd_train::Result<Vec<Tensor>> {
        let is_it = (site.epoch, site.step) == (0, STEP);
        let factor = if is_it { f32::NAN } else { 1.0 };
        Ok(vec![Tensor::new(factor, &Device::Cpu)?])
    }

    fn is_static(&self) -> bool {
        true
    }

    fn step(&mut self, batch: &TrainBatch) -> mixskd_train::Result<StepOutput> {
        let logits = self.0.forward(&batch.images, Mode::Train)?;
        let task = (cross_entropy(&logits, &batch.labels)? * &batch.draws[0])?;
        StepOutput::of(&[("task", 1.0, task)], &logits, &batch.labels)
    }
}

/// What a run was ended by, and its parameters then.
#[derive(PartialEq)]
pub(crate) struct Ended {
    epoch: usize,
    step: usize,
    parameters: BTreeMap<String, Vec<u32>>,
}

impl Ended {
    /// Whether it was ended by the step that was poisoned.
    pub(crate) fn is_by_its_step(&self) -> bool {
        (self.epoch, self.step) == (1, STEP + 1)
    }
}

/// A run with one poisoned step, in a new directory `out`.
pub(crate) fn run(config: &TrainConfig, out: &Path) -> Result<Ended> {
    let _on_gpu = OnGpu::new(&Device::Cpu);
    let mut trainer = Trainer::builder(config)
        .method("poisoned", BatchNeeds::Anchors, |inputs| {
            Ok(Box::new(Poisoned(inputs.backbone()?)))
        })
        .build()?;
    let run = RunDir::create(out, trainer.config())?;
    let (epoch, step) = match trainer.run(&run, &mut ()) {
        Err(Error::NotFinite { epoch, step, .. }) => (epoch, step),
        Err(error) => return Err(error.into()),
        Ok(_) => bail!("the run went on"),
    };
    let mut parameters = BTreeMap::new();
    for (name, value) in trainer.parameters().parameters() {
        let values = value.flatten_all()?.to_vec1::<f32>()?;
        parameters.insert(name, values.into_iter().map(f32::to_bits).collect());
    }
    Ok(Ended {
        epoch,
        step,
        parameters,
    })
}
