//! The network in training with all that a step reads and changes of it.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use mixskd_kernels::{Tape, has_gpu_kernels};
use mixskd_models::{Mode, ParamStore, Strictness};

use crate::Result;
use crate::average::Average;
use crate::checkpoint::Checkpoint;
use crate::distribution::Group;
use crate::gpu_step::GpuStepper;
use crate::gradients::{first_not_finite, sum_of_squares};
use crate::method::{Method, TrainBatch};
use crate::metrics::StepReading;
use crate::step::{Broken, Outcome, broken_gradient, forth_and_back};
use crate::updater::Updater;

/// Parameters, method, optimiser, moving average, and a GPU's captured step. A checkpoint is taken up by [`Self::load`], after which nothing of what was begun
/// or gathered before counts any more.
pub(crate) struct Learner {
    store: ParamStore,
    method: Box<dyn Method>,
    updater: Updater,
    gpu: GpuStepper,
    device: Device,
    /// A step that is not finite may be left out: what it changes before that is known has to be kept.
    may_skip: bool,
}

impl Learner {
    pub(crate) fn new(
        store: ParamStore,
        method: Box<dyn Method>,
        updater: Updater,
        gpu: GpuStepper,
        device: Device,
        may_skip: bool,
    ) -> Self {
        Self {
            store,
            method,
            updater,
            gpu,
            device,
            may_skip,
        }
    }

    /// What a test may replace or look into.
    #[cfg(test)]
    pub(crate) fn parts(&mut self) -> (&mut Box<dyn Method>, &mut Updater) {
        (&mut self.method, &mut self.updater)
    }

    /// Every parameter and buffer by name.
    pub(crate) fn store(&self) -> &ParamStore {
        &self.store
    }

    pub(crate) fn method(&self) -> &dyn Method {
        self.method.as_ref()
    }

    /// Has the method remember `state` from now on, which is its own and that of other processes.
    pub(crate) fn remember(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.method.load_state(state)
    }

    /// The optimiser's tensors by name.
    pub(crate) fn velocities(&self) -> BTreeMap<String, Tensor> {
        self.updater.optimizer.state()
    }

    /// The moving averages by name; none where none are kept.
    pub(crate) fn averages(&self) -> BTreeMap<String, Tensor> {
        let average = self.updater.average.as_ref();
        average.map(Average::state).unwrap_or_default()
    }

    /// Goes to where `checkpoint` was written.
    pub(crate) fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.forget_begun()?;
        self.updater.forget_gathered();
        self.parameters_changed();
        self.store.load(&checkpoint.tensors, Strictness::Exact)?;
        self.updater.optimizer.load_state(&checkpoint.velocities)?;
        if let Some(average) = &mut self.updater.average {
            average.load_state(checkpoint.average.clone());
        }
        self.method.load_state(&checkpoint.method)
    }

    /// Parameters may have been changed by something else than steps.
    pub(crate) fn parameters_changed(&self) {
        self.gpu.parameters_changed();
    }

    /// Forgets steps that a GPU has begun and that nobody will ask for.
    pub(crate) fn forget_begun(&mut self) -> Result<()> {
        self.gpu.forget_begun()
    }

    /// Calls `work` with the moving average in the network, where there is one; afterwards the network has its own weights again, whatever came of it.
    pub(crate) fn with_average<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(average) = &self.updater.average else {
            return work();
        };
        let own = average.put_in(&self.store)?;
        let done = work();
        self.parameters_changed();
        Average::put_back(&own, &self.store)?;
        done
    }

    /// Whether a step has nothing for the host to do in between.
    fn is_direct(&self, group: &Group) -> bool {
        group.is_alone() && self.updater.is_direct() && has_gpu_kernels(&self.device)
    }

    /// Has a GPU begin a step before [`Self::step`] asks for it, where it can; whether it has.
    pub(crate) fn begin(&mut self, batch: &TrainBatch, lr: f64, group: &Group) -> Result<bool> {
        if self.may_skip || !self.is_direct(group) {
            return Ok(false);
        }
        let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
        self.gpu.begin(method, optimizer, batch, lr)
    }

    /// Puts the batch after the step that was begun into its place; with `launch` that one is begun, too, so that the GPU need not wait for the host to
    /// read the one before.
    pub(crate) fn fill_ahead(&mut self, next: &TrainBatch, lr: f64, launch: bool) -> Result<()> {
        self.gpu.fill_ahead(next, lr)?;
        // The moving average follows step by step.
        if launch && self.updater.average.is_none() {
            let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
            self.gpu.begin(method, optimizer, next, lr)?;
        }
        Ok(())
    }

    /// What the user should know of the steps so far, each once.
    pub(crate) fn take_notice(&mut self) -> Option<String> {
        self.gpu.take_notice()
    }

    /// Has something told with the next step.
    pub(crate) fn tell(&mut self, notice: String) {
        self.gpu.tell(notice);
    }

    /// What takes steps on a GPU.
    pub(crate) fn gpu(&self) -> &GpuStepper {
        &self.gpu
    }

    /// Forward and backward of one batch; with `update`, the optimiser's step with all gradients since the last. `meanwhile` is called
    /// once a GPU has been given its work and before it is waited for.
    pub(crate) fn step(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        update: bool,
        group: &Group,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Outcome> {
        let statistics = self.may_skip.then(|| self.statistics()).transpose()?;
        let direct = self.is_direct(group);
        let (reading, broken) = if direct {
            self.step_on_gpu(batch, lr, meanwhile)?
        } else {
            self.gather(batch, group, meanwhile)?
        };
        // Batch norms have seen the batch: a step that is left out leaves no trace there either.
        if let (Some(statistics), Some(_)) = (statistics, &broken) {
            for (name, var) in self.store.buffers() {
                if let Some(before) = statistics.get(&name) {
                    var.set(before)?;
                }
            }
        }
        if broken.is_some() {
            self.method.undo_step();
        }
        if direct {
            if broken.is_none() && self.updater.average.is_some() {
                self.updater.follow(&self.store.parameters())?;
            }
        } else if update {
            self.updater.update(&self.store.parameters(), lr)?;
        }
        Ok(match broken {
            None => Outcome::Done(reading),
            Some(broken) => Outcome::NotFinite(broken),
        })
    }

    /// Gradients of one batch, averaged over the processes of the run and kept for the update.
    fn gather(
        &mut self,
        batch: &TrainBatch,
        group: &Group,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(StepReading, Option<Broken>)> {
        let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
        let (mut reading, gradients) = forth_and_back(method, optimizer, batch, meanwhile)?;
        let mut broken = reading.broken();
        // From here on every process of the run does the same.
        broken = group.agree(&mut reading, broken, &gradients)?;
        if broken.is_none() {
            let mut gradients = gradients;
            group.average(&mut gradients, &self.store.buffers())?;
            broken = broken_gradient(&gradients)?;
            if broken.is_none() {
                self.updater.gather(gradients)?;
            }
        }
        Ok((reading, broken))
    }

    /// Forward, backward and update on a GPU, with nothing for the host to do in between.
    fn step_on_gpu(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(StepReading, Option<Broken>)> {
        let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
        let outcome = self.gpu.step(method, optimizer, batch, lr, meanwhile)?;
        let mut broken = None;
        if !outcome.finite {
            // Whatever has been launched ahead changes nothing and is nobody's.
            self.forget_begun()?;
            broken = outcome.reading.broken();
            if broken.is_none() {
                // Nothing was updated: once more, to see which it was.
                self.method.undo_step();
                let tape = Tape::start();
                let output = self.method.step(batch)?;
                let all = tape.backward(&output.loss)?;
                broken = broken_gradient(&self.updater.optimizer.gradients(&all))?;
            }
            // It was not found a second time.
            broken = broken.or_else(|| Some(Broken::gradients(f64::INFINITY)));
        }
        Ok((outcome.reading, broken))
    }

    /// A copy of the running statistics.
    fn statistics(&self) -> Result<BTreeMap<String, Tensor>> {
        let buffers = self.store.buffers();
        let copies = buffers
            .iter()
            .map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?)));
        copies.collect()
    }

    /// Where a loss that is not finite begins: the first parameter in name order that is not finite, the first stage of the
    /// backbone whose features of `batch` are not, or the first head whose logits are not. `None` where all of them are finite in evaluation
    /// mode: then it is the term itself that went astray.
    pub(crate) fn locate(&self, batch: &TrainBatch) -> Result<Option<String>> {
        if let Some((name, _)) = self.first_not_finite()? {
            // Running statistics that are not finite say what came to their layer in this very step.
            let layer = name.strip_suffix(".running_mean");
            let layer = layer.or_else(|| name.strip_suffix(".running_var"));
            return Ok(Some(layer.unwrap_or(&name).into()));
        }
        if !sum_of_squares(&batch.images)?.is_finite() {
            return Ok(Some("the images".into()));
        }
        let stages = self.method.backbone().stages(&batch.images, Mode::Eval)?;
        for (k, features) in stages.iter().enumerate() {
            if !sum_of_squares(&features.to_dtype(DType::F32)?)?.is_finite() {
                return Ok(Some(format!("stage {}", k + 1)));
            }
        }
        for (name, logits) in self.method.heads(&batch.images)? {
            if !sum_of_squares(&logits)?.is_finite() {
                return Ok(Some(format!("the logits of {name}")));
            }
        }
        Ok(None)
    }

    /// The first tensor of network or optimiser, in name order, that holds a value which is not finite.
    pub(crate) fn first_not_finite(&self) -> Result<Option<(String, f64)>> {
        for tensors in [self.store.tensors(), self.velocities()] {
            if let Some(found) = first_not_finite(&tensors)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use mixskd_models::Backbone;

    use super::*;
    use crate::config::OnNan;
    use crate::method::{MethodConfig, StepOutput};
    use crate::{TrainConfig, Trainer};

    /// A method whose loss or whose gradient is not finite in one step.
    struct Poisoned {
        inner: Box<dyn Method>,
        step: usize,
        poison: fn(&Tensor) -> candle_core::Result<Tensor>,
    }

    impl Method for Poisoned {
        fn backbone(&self) -> &dyn Backbone {
            self.inner.backbone()
        }

        fn step(&mut self, batch: &TrainBatch) -> Result<StepOutput> {
            let mut output = self.inner.step(batch)?;
            if batch.step == self.step {
                output.loss = (self.poison)(&output.loss)?;
            }
            Ok(output)
        }

        fn undo_step(&mut self) {
            self.inner.undo_step();
        }

        fn state(&self) -> Result<BTreeMap<String, Tensor>> {
            self.inner.state()
        }
    }

    fn trainer(poison: fn(&Tensor) -> candle_core::Result<Tensor>) -> Trainer {
        trainer_of("ce", poison)
    }

    fn trainer_of(name: &str, poison: fn(&Tensor) -> candle_core::Result<Tensor>) -> Trainer {
        let mut config = TrainConfig::default();
        config.model.width = 0.03125;
        config.method = MethodConfig::new(name).unwrap();
        config.run.batch = 16;
        config.run.prefetch = 1;
        config.run.on_nan = OnNan::Skip;
        let mut trainer = Trainer::new(&config).unwrap();
        trainer.learner.method = Box::new(Poisoned {
            inner: trainer.learner.method,
            step: 1,
            poison,
        });
        trainer
    }

    fn step(trainer: &mut Trainer, batch: &TrainBatch, update: bool) -> Result<Outcome> {
        let group = &trainer.group;
        let learner = &mut trainer.learner;
        learner.step(batch, 0.1, update, group, &mut || ())
    }

    /// Takes three steps, without those in `leave_out`; the names of what was broken, and the state after.
    fn run(mut trainer: Trainer, leave_out: &[usize]) -> (Vec<String>, Vec<Vec<f32>>) {
        let mut broken = Vec::new();
        let batches: Vec<_> = trainer.train_feed.epoch_from(0, 0, 3).collect();
        for batch in batches {
            let batch = trainer.prepare(batch.unwrap(), 0).unwrap();
            if leave_out.contains(&batch.step) {
                continue;
            }
            if let Outcome::NotFinite(what) = step(&mut trainer, &batch, true).unwrap() {
                broken.push(format!("{} {}", what.term, what.layer.unwrap_or_default()));
            }
        }
        let tensors = trainer.parameters().tensors().into_values();
        let all = tensors.chain(trainer.learner.velocities().into_values());
        let all = all.chain(trainer.method().state().unwrap().into_values());
        let values = |t: Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
        (broken, all.map(values).collect())
    }

    #[test]
    fn a_step_that_is_left_out_leaves_no_trace() {
        // PS-KD remembers what it said of each image.
        for method in ["ce", "ps-kd"] {
            let clean = run(trainer_of(method, |loss| loss.affine(1.0, 0.0)), &[1]);
            assert!(clean.0.is_empty());
            let loss = run(trainer_of(method, |loss| loss.affine(f64::NAN, 0.0)), &[]);
            assert_eq!(loss.0, ["loss "]);
            assert!(loss.1 == clean.1, "{method}");
            // The square root of nothing: 0 forward, infinite backward.
            let gradient = trainer_of(method, |loss| loss + (loss - loss)?.sqrt()?);
            let gradient = run(gradient, &[]);
            assert_eq!(gradient.0, ["gradient backbone.bn1.bias"]);
            assert!(gradient.1 == clean.1, "{method}");
        }
    }

    #[test]
    fn gradients_gathered_before_a_checkpoint_is_taken_up_are_forgotten() {
        let last = |gather_first: bool| {
            let mut trainer = trainer(|loss| loss.affine(1.0, 0.0));
            let beginning = trainer.checkpoint(BTreeMap::new()).unwrap();
            let bytes = beginning.to_bytes("memory".as_ref()).unwrap();
            let batches: Vec<_> = trainer.train_feed.epoch_from(0, 0, 2).collect();
            let batches: Vec<_> = (batches.into_iter())
                .map(|batch| trainer.prepare(batch.unwrap(), 0).unwrap())
                .collect();
            if gather_first {
                step(&mut trainer, &batches[0], false).unwrap();
                let back = Checkpoint::from_bytes(&bytes, "memory".as_ref(), &Device::Cpu);
                trainer.take_up(back.unwrap()).unwrap();
            }
            step(&mut trainer, &batches[1], true).unwrap();
            let after = trainer.checkpoint(BTreeMap::new()).unwrap();
            after.to_bytes("memory".as_ref()).unwrap()
        };
        assert!(last(true) == last(false));
    }

    #[test]
    fn where_a_loss_goes_astray_is_found() {
        fn at(spoil: impl Fn(&Trainer)) -> Option<String> {
            let mut trainer = trainer(|loss| loss.affine(1.0, 0.0));
            let batch = trainer
                .train_feed
                .epoch_from(0, 0, 1)
                .next()
                .unwrap()
                .unwrap();
            let batch = trainer.prepare(batch, 0).unwrap();
            spoil(&trainer);
            let before = trainer.learner.statistics().unwrap();
            let found = trainer.learner.locate(&batch).unwrap();
            let after = trainer.learner.statistics().unwrap();
            for (name, tensor) in before {
                let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values(&tensor), values(&after[&name]), "{name}");
            }
            // What is found changes nothing, so a step that is left out stays without a trace.
            let _ = step(&mut trainer, &batch, false).unwrap();
            found
        }
        let set = |name: &'static str, value: f64| {
            move |trainer: &Trainer| {
                let tensors = trainer.parameters().parameters();
                let (_, var) = tensors.iter().find(|(own, _)| own == name).unwrap();
                var.set(&var.affine(0.0, value).unwrap()).unwrap();
            }
        };
        assert_eq!(at(|_| ()), None);
        let nan = at(set("backbone.layer2.0.conv1.weight", f64::NAN));
        assert_eq!(nan.as_deref(), Some("backbone.layer2.0.conv1.weight"));
        // Finite weights whose products are not.
        let large = at(set("backbone.layer3.0.bn2.weight", 3e38));
        assert_eq!(large.as_deref(), Some("stage 3"));
        let head = at(set("backbone.fc.weight", 3e38));
        assert_eq!(head.as_deref(), Some("the logits of backbone"));
    }
}
