//! One step: the method's loss, its gradients, and at the end of a group of batches the optimiser's update.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};
use mixskd_kernels::{ConvWeights, Tape, has_gpu_kernels};
use mixskd_models::Mode;

use crate::average::Average;
use crate::config::OnNan;
use crate::feed::Batches;
use crate::gpu_step;
use crate::gradients::{Accumulator, Gradients, first_not_finite, sum_of_squares};
use crate::method::{Method, TrainBatch};
use crate::metrics::StepReading;
use crate::optimizer::Sgd;
use crate::trainer::Trainer;
use crate::{Error, OptimizerConfig, Result};

/// Everything that turns gradients into weights.
pub(crate) struct Updater {
    pub(crate) optimizer: Sgd,
    /// The moving average of the weights, where one is kept.
    pub(crate) average: Option<Average>,
    accumulator: Accumulator,
    accumulate: usize,
    clip_norm: f64,
}

impl Updater {
    pub(crate) fn new(config: &OptimizerConfig, optimizer: Sgd) -> Self {
        Self {
            optimizer,
            average: (config.ema_decay > 0.0).then(|| Average::new(config.ema_decay)),
            accumulator: Accumulator::default(),
            accumulate: config.accumulate,
            clip_norm: config.clip_norm,
        }
    }

    /// Whether an update is a function of one batch's gradients alone, with nothing for the host to look at in between.
    pub(crate) fn is_direct(&self) -> bool {
        self.accumulate == 1 && self.clip_norm == 0.0
    }

    /// Forgets gradients that are gathered for an update to come.
    pub(crate) fn forget_gathered(&mut self) {
        self.accumulator = Accumulator::default();
    }

    /// One step of the optimiser with the gradients gathered so far; nothing where there are none.
    fn update(&mut self, parameters: &[(String, Var)], lr: f64) -> Result<()> {
        let Some(gradients) = self.accumulator.take(self.clip_norm)? else {
            return Ok(());
        };
        self.optimizer.update(&gradients, lr)?;
        self.average(parameters)
    }

    /// Has the moving average follow an update, where there is one.
    fn average(&mut self, parameters: &[(String, Var)]) -> Result<()> {
        if let Some(average) = &mut self.average {
            average.update(parameters)?;
        }
        Ok(())
    }
}

/// What a step came to.
pub(crate) enum Outcome {
    Done(StepReading),
    /// Something was NaN or infinite, and nothing has changed.
    NotFinite(Broken),
}

impl StepReading {
    /// The first term that is not finite.
    pub(crate) fn broken(&self) -> Option<Broken> {
        self.not_finite().map(|(term, value)| Broken {
            term: term.into(),
            layer: None,
            value,
        })
    }
}

/// What was not finite.
pub(crate) struct Broken {
    pub(crate) term: String,
    pub(crate) layer: Option<String>,
    pub(crate) value: f64,
}

/// The first gradient in name order that is not finite.
pub(crate) fn broken_gradient(gradients: &Gradients) -> Result<Option<Broken>> {
    let found = first_not_finite(gradients)?;
    Ok(found.map(|(layer, value)| Broken {
        term: "gradient".into(),
        layer: Some(layer),
        value,
    }))
}

impl Broken {
    /// All gradients together.
    fn gradients(value: f64) -> Self {
        Self {
            term: "gradient".into(),
            layer: None,
            value,
        }
    }

    /// An update went astray.
    pub(crate) fn weights(name: String, value: f64) -> Self {
        Self {
            term: "weights".into(),
            layer: Some(name),
            value,
        }
    }
}

/// Losses and gradients of one batch, in a step that is not begun ahead; no gradients where a loss is not finite.
pub(crate) fn forth_and_back(
    method: &mut dyn Method,
    optimizer: &Sgd,
    batch: &TrainBatch,
    meanwhile: &mut dyn FnMut(),
) -> Result<(StepReading, Gradients)> {
    let tape = Tape::start();
    let weights = ConvWeights::new(optimizer.parameters(), batch.images.dtype())?;
    tape.use_weights(&weights);
    let output = method.step(batch)?;
    let back = |tape: Tape| Ok::<_, Error>(optimizer.gradients(&tape.backward(&output.loss)?));
    if has_gpu_kernels(batch.images.device()) {
        // All is read at once, which waits for the GPU once.
        let gradients = back(tape)?;
        let reading = gpu_step::read(&output, &gradients, meanwhile)?.reading;
        return Ok((reading, gradients));
    }
    let reading = StepReading::of(&output)?;
    let gradients = match reading.broken() {
        None => back(tape)?,
        Some(_) => Gradients::new(),
    };
    Ok((reading, gradients))
}

impl Trainer {
    /// The batch that was prepared ahead, or the next one.
    pub(crate) fn next(
        &self,
        ahead: &mut Option<Result<TrainBatch>>,
        batches: &mut Batches,
        epoch: usize,
    ) -> Result<Option<TrainBatch>> {
        let next = match ahead.take() {
            Some(next) => Some(next),
            None => (batches.next()).map(|batch| self.prepare(batch?, epoch)),
        };
        next.transpose()
    }

    /// Has a GPU begin the step that comes next where it can, and prepares the batch after it while the GPU works: [`Self::step`] then finds it
    /// begun, and the GPU finds the next one in its place; with `go_on` it is launched, too, so that the GPU need not wait for the host to read
    /// the one before. Errors of that batch are told when its turn comes.
    pub(crate) fn begin(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        ahead: &mut Option<Result<TrainBatch>>,
        batches: &mut Batches,
        go_on: bool,
    ) -> Result<()> {
        // A step that may be left out needs what was before it.
        let may_begin = self.config.run.on_nan == OnNan::Stop;
        if !may_begin || !self.is_direct() {
            return Ok(());
        }
        let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
        if !self.gpu.begin(method, optimizer, batch, lr)? {
            return Ok(());
        }
        *ahead = (batches.next()).map(|next| self.prepare(next?, batch.epoch));
        if let Some(Ok(next)) = ahead {
            let step = next.step / self.place().world;
            let lr = self.schedule.lr(next.epoch, step);
            let mut given = self.gpu.fill_ahead(next, lr);
            // The moving average follows step by step.
            if go_on && given.is_ok() && self.updater.average.is_none() {
                let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
                given = self.gpu.begin(method, optimizer, next, lr).map(drop);
            }
            // The step that was begun is to be counted first.
            if let Err(error) = given {
                *ahead = Some(Err(error));
            }
        }
        Ok(())
    }

    /// Whether a step has nothing for the host to do in between.
    fn is_direct(&self) -> bool {
        self.group.is_alone() && self.updater.is_direct() && has_gpu_kernels(&self.device)
    }

    /// Forward and backward of one batch; with `update`, the optimiser's step with all gradients since the last. `meanwhile` is called
    /// once a GPU has been given its work and before it is waited for.
    pub(crate) fn step(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        update: bool,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Outcome> {
        let statistics = match self.config.run.on_nan {
            OnNan::Stop => None,
            OnNan::Skip => Some(self.statistics()?),
        };
        let direct = self.is_direct();
        let (reading, broken) = if direct {
            self.step_on_gpu(batch, lr, meanwhile)?
        } else {
            self.gather(batch, meanwhile)?
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
                self.updater.average(&self.store.parameters())?;
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
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(StepReading, Option<Broken>)> {
        let (method, optimizer) = (&mut *self.method, &self.updater.optimizer);
        let (mut reading, gradients) = forth_and_back(method, optimizer, batch, meanwhile)?;
        let mut broken = reading.broken();
        // From here on every process of the run does the same.
        broken = self.group.agree(&mut reading, broken, &gradients)?;
        if broken.is_none() {
            let mut gradients = gradients;
            self.group.average(&mut gradients, &self.store.buffers())?;
            broken = broken_gradient(&gradients)?;
            if broken.is_none() {
                self.updater.accumulator.add(gradients)?;
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
            self.gpu.forget_begun()?;
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
        for tensors in [self.store.tensors(), self.updater.optimizer.state()] {
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
    use crate::TrainConfig;
    use crate::checkpoint::Checkpoint;
    use crate::method::{MethodConfig, StepOutput};

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
        trainer.method = Box::new(Poisoned {
            inner: trainer.method,
            step: 1,
            poison,
        });
        trainer
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
            if let Outcome::NotFinite(what) = trainer.step(&batch, 0.1, true, &mut || ()).unwrap() {
                broken.push(format!("{} {}", what.term, what.layer.unwrap_or_default()));
            }
        }
        let tensors = trainer.store.tensors().into_values();
        let all = tensors.chain(trainer.updater.optimizer.state().into_values());
        let all = all.chain(trainer.method.state().unwrap().into_values());
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
                trainer.step(&batches[0], 0.1, false, &mut || ()).unwrap();
                let back = Checkpoint::from_bytes(&bytes, "memory".as_ref(), &Device::Cpu);
                trainer.take_up(back.unwrap()).unwrap();
            }
            trainer.step(&batches[1], 0.1, true, &mut || ()).unwrap();
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
            let before = trainer.statistics().unwrap();
            let found = trainer.locate(&batch).unwrap();
            let after = trainer.statistics().unwrap();
            for (name, tensor) in before {
                let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(values(&tensor), values(&after[&name]), "{name}");
            }
            // What is found changes nothing, so a step that is left out stays without a trace.
            let _ = trainer.step(&batch, 0.1, false, &mut || ()).unwrap();
            found
        }
        let set = |name: &'static str, value: f64| {
            move |trainer: &Trainer| {
                let tensors = trainer.store.parameters();
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

    #[test]
    fn accumulation_clipping_and_average_are_pytorchs() {
        let data = include_bytes!("../tests/golden/optimizer.safetensors");
        let file = candle_core::safetensors::load_buffer(data, &Device::Cpu).unwrap();
        let of = |prefix: &str| -> BTreeMap<String, Tensor> {
            let named = file.iter().filter_map(|(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
            });
            named.collect()
        };
        let parameters: Vec<_> = of("initial/")
            .into_iter()
            .map(|(name, tensor)| (name, candle_core::Var::from_tensor(&tensor).unwrap()))
            .collect();
        let config = OptimizerConfig {
            lr: 0.1,
            clip_norm: 0.75,
            accumulate: 2,
            ema_decay: 0.8,
            ..OptimizerConfig::default()
        };
        let mut updater = Updater::new(
            &config,
            config.build_with(parameters.clone(), |_| 1.0).unwrap(),
        );
        for batch in 0..6 {
            updater
                .accumulator
                .add(of(&format!("gradient{batch}/")))
                .unwrap();
            if batch % 2 == 1 {
                updater.update(&parameters, config.lr).unwrap();
            }
        }
        let check = |got: &Tensor, expected: &Tensor, what: &str| {
            let difference = (got - expected).unwrap().flatten_all().unwrap();
            for difference in difference.to_vec1::<f32>().unwrap() {
                assert!(difference.abs() < 1e-6, "{what}: {difference}");
            }
        };
        let average = updater.average.unwrap().state();
        for (name, parameter) in &parameters {
            check(parameter, &file[&format!("after/{name}")], name);
            check(&average[name], &file[&format!("average/{name}")], name);
        }
    }
}
