//! Steps on a GPU: one reading a step is all that the host waits for, and a step that is the same work every time is captured as a graph.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use mixskd_kernels::{
    ConvWeights, StepGraph, Tape, collect, count_hits, gpu_notices, judge, rehearse,
    set_cuda_branches,
};

use crate::gradients::Gradients;
use crate::method::{Method, StepOutput, TrainBatch};
use crate::metrics::StepReading;
use crate::optimizer::Sgd;
use crate::to_host::{OnHost, ToHost};
use crate::{Error, Result};

/// Steps taken before one is captured: kernels are loaded in the first, and in the second nothing new may come up.
pub(crate) const REHEARSALS: usize = 2;

/// Numbers of a reading, at most: loss, terms, hits, verdict.
const MOST_READINGS: usize = 64;

/// What a step on a GPU came to.
pub(crate) struct GpuOutcome {
    pub(crate) reading: StepReading,
    /// Whether loss, terms and every gradient are finite.
    pub(crate) finite: bool,
}

/// How a step's work is given to a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Launching {
    /// Each kernel by itself.
    Kernels,
    /// All at once as a CUDA graph, in turn, where the method allows it.
    Graph,
    /// As a CUDA graph in which branches run beside the backbone, and heads and terms beside each other.
    #[default]
    Branches,
}

impl Launching {
    /// Captured or not, with branches or in turn.
    pub fn new(graph: bool, branches: bool) -> Self {
        match (graph, branches) {
            (false, _) => Self::Kernels,
            (true, false) => Self::Graph,
            (true, true) => Self::Branches,
        }
    }
}

/// Takes steps, after a few of them by a captured graph where the method's work is always the same.
#[derive(Default)]
pub(crate) struct GpuStepper {
    state: State,
    /// What convolutions take, which every update brings up to date; none before the first step.
    weights: Option<Arc<ConvWeights>>,
    /// Something else may have changed the parameters since.
    are_stale: Cell<bool>,
    /// What is captured has branches beside the backbone.
    branches: bool,
    /// What the user should know, such as why nothing is captured any more; each once.
    notices: Vec<String>,
}

#[derive(Default)]
enum State {
    /// Launched kernel by kernel, for good.
    #[default]
    Direct,
    /// So many rehearsed.
    Rehearsing(usize),
    Captured(Box<Captured>),
}

/// Memory that the captured work reads and writes, and the work.
struct Captured {
    batch: TrainBatch,
    images: Var,
    labels: Var,
    draws: Vec<Var>,
    rate: Var,
    readings: Var,
    shape: Readings,
    /// Not 0 once something was not finite: then the update is left out, in every step that is launched before the host knows, too.
    broken: Var,
    /// The step that the memory was filled for ahead.
    filled: Option<Site>,
    to_host: ToHost,
    /// Readings of what has been launched and not been asked for, in order. Before the graph, which has to be there until they have come.
    launched: VecDeque<(Site, OnHost)>,
    /// None where nothing can be captured, as in tests on the processor: then the same work is launched anew.
    graph: Option<StepGraph>,
}

/// What the numbers of a reading are.
#[derive(Debug, Clone, Default, PartialEq)]
struct Readings {
    names: Vec<&'static str>,
    samples: usize,
}

impl GpuStepper {
    /// Takes steps on `device`; where they are captured, after the first few.
    pub(crate) fn new(device: &Device, launching: Launching) -> Result<Self> {
        let branches = launching == Launching::Branches;
        set_cuda_branches(device, branches)?;
        Ok(Self {
            branches,
            state: match launching {
                Launching::Kernels => State::Direct,
                Launching::Graph | Launching::Branches => State::Rehearsing(0),
            },
            weights: None,
            are_stale: Cell::default(),
            notices: Vec::new(),
        })
    }

    /// Parameters may have been changed by something else than steps.
    pub(crate) fn parameters_changed(&self) {
        self.are_stale.set(true);
    }

    /// Has what convolutions take up to date before anything is launched that reads it.
    fn renew(&mut self) -> Result<()> {
        if let (true, Some(weights)) = (self.are_stale.get(), &self.weights) {
            weights.renew()?;
        }
        self.are_stale.set(false);
        Ok(())
    }

    /// Has the GPU begin the step that [`Self::step`] will be asked for next, where it is captured and has not been begun; whether it is begun. What is done
    /// until then is done while the GPU works.
    pub(crate) fn begin(
        &mut self,
        method: &mut dyn Method,
        optimizer: &Sgd,
        batch: &TrainBatch,
        lr: f64,
    ) -> Result<bool> {
        self.renew()?;
        let (State::Captured(captured), Some(weights)) = (&mut self.state, &self.weights) else {
            return Ok(false);
        };
        let mut work = Work {
            method,
            optimizer,
            weights,
        };
        captured.begin(&mut work, batch, lr)?;
        Ok(true)
    }

    /// Forgets steps that have been begun and that nobody will ask for: the state that they lead to is given up for a checkpoint's.
    pub(crate) fn forget_begun(&mut self) -> Result<()> {
        if let State::Captured(captured) = &mut self.state {
            captured.launched.clear();
            captured.filled = None;
            captured.broken.set(&captured.broken.zeros_like()?)?;
        }
        Ok(())
    }

    /// Puts the batch after the one that was begun into its place, behind what the GPU is at.
    pub(crate) fn fill_ahead(&mut self, next: &TrainBatch, lr: f64) -> Result<()> {
        match &mut self.state {
            State::Captured(captured) => captured.fill_ahead(next, lr),
            _ => Ok(()),
        }
    }

    /// Whether the GPU has been given a step that nobody has asked for: the network is not that of the steps so far.
    pub(crate) fn is_ahead(&self) -> bool {
        matches!(&self.state, State::Captured(captured) if !captured.launched.is_empty())
    }

    /// Whether that graph has branches that run side by side.
    pub(crate) fn has_branches(&self) -> bool {
        matches!(&self.state, State::Captured(captured)
            if captured.graph.as_ref().is_some_and(StepGraph::has_branches))
    }

    /// Whether steps are launched as a graph.
    pub(crate) fn is_captured(&self) -> bool {
        matches!(&self.state, State::Captured(captured) if captured.graph.is_some())
    }

    /// Has something told with the next step.
    pub(crate) fn tell(&mut self, notice: String) {
        self.notices.push(notice);
    }

    /// What the user should know of the steps so far: why one could not be captured, that their bits do not repeat. Each once.
    pub(crate) fn take_notice(&mut self) -> Option<String> {
        self.notices.extend(gpu_notices());
        if self.notices.is_empty() {
            return None;
        }
        Some(self.notices.remove(0))
    }

    /// One step of `method`: loss, gradients, verdict, and where that is good the update at learning rate `lr`. `meanwhile` is called
    /// before the GPU is waited for.
    pub(crate) fn step(
        &mut self,
        method: &mut dyn Method,
        optimizer: &Sgd,
        batch: &TrainBatch,
        lr: f64,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<GpuOutcome> {
        let device = batch.images.device().clone();
        self.renew()?;
        let weights = if let Some(weights) = &self.weights {
            weights.clone()
        } else {
            let new = ConvWeights::new(optimizer.parameters(), batch.images.dtype())?;
            self.weights.insert(Arc::new(new)).clone()
        };
        let mut work = Work {
            method,
            optimizer,
            weights: &weights,
        };
        match &mut self.state {
            State::Direct => work.launch(batch, lr, meanwhile),
            State::Rehearsing(_) if !work.method.is_static() => {
                self.state = State::Direct;
                // What is not captured is done in turn, and needs nothing that lanes have.
                set_cuda_branches(&device, false)?;
                work.launch(batch, lr, meanwhile)
            }
            State::Rehearsing(done) if *done < REHEARSALS => {
                *done += 1;
                let rate = rate_of(lr, &device)?;
                let (readings, shape) = rehearse(&device, || work.all(batch, &rate, None))?;
                meanwhile();
                shape.outcome(&readings)
            }
            State::Rehearsing(_) => {
                let captured = Captured::new(&mut work, batch, lr, &device);
                let first = captured.and_then(|mut captured| {
                    // A graph may get its memory no sooner than with its first launch; where that is refused, nothing has been done.
                    captured.start(&mut work, site(batch, lr))?;
                    Ok(captured)
                });
                match first {
                    Ok(mut captured) => {
                        let outcome = captured.finish(site(batch, lr), meanwhile)?;
                        self.state = State::Captured(Box::new(captured));
                        Ok(outcome)
                    }
                    Err(error) if self.branches => {
                        self.notices.push(format!(
                            "the step could not be captured with branches beside the backbone and has none: {error}"
                        ));
                        self.branches = false;
                        self.state = State::Rehearsing(0);
                        set_cuda_branches(&device, false)?;
                        self.step(method, optimizer, batch, lr, meanwhile)
                    }
                    Err(error) => {
                        self.notices.push(format!(
                            "the step could not be captured or launched as a CUDA graph and is launched kernel by kernel: {error}"
                        ));
                        self.state = State::Direct;
                        work.launch(batch, lr, meanwhile)
                    }
                }
            }
            State::Captured(captured) => {
                captured.begin(&mut work, batch, lr)?;
                captured.finish(site(batch, lr), meanwhile)
            }
        }
    }
}

/// Epoch, step and learning rate.
type Site = (usize, usize, u64);

fn site(batch: &TrainBatch, lr: f64) -> Site {
    (batch.epoch, batch.step, lr.to_bits())
}

fn rate_of(lr: f64, device: &Device) -> Result<Tensor> {
    Ok(Tensor::new(&[lr as f32], device)?)
}

/// What a step needs beside its batch.
struct Work<'a> {
    method: &'a mut dyn Method,
    optimizer: &'a Sgd,
    weights: &'a ConvWeights,
}

impl Work<'_> {
    /// A step launched kernel by kernel.
    fn launch(
        &mut self,
        batch: &TrainBatch,
        lr: f64,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<GpuOutcome> {
        let rate = rate_of(lr, batch.images.device())?;
        let (readings, shape) = self.all(batch, &rate, None)?;
        meanwhile();
        shape.outcome(&readings)
    }

    /// All that a GPU does in a step; nothing here waits for it. `broken` is [`judge`]'s.
    fn all(
        &mut self,
        batch: &TrainBatch,
        rate: &Tensor,
        broken: Option<&Tensor>,
    ) -> Result<(Tensor, Readings)> {
        let tape = Tape::start();
        tape.use_weights(self.weights);
        let output = self.method.step(batch)?;
        let gradients = tape.backward_as_made(&output.loss)?;
        let updates = self.optimizer.updates(&gradients, self.weights);
        let gradients: Vec<_> = updates.iter().map(|update| update.gradient).collect();
        let (readings, verdict, shape) = gather(&output, &gradients, broken)?;
        if !(self.optimizer).update_on_gpu(&updates, rate, Some(&verdict))? {
            return Err(no_kernel("the update"));
        }
        Ok((readings, shape))
    }
}

/// What a step came to whose gradients are wanted before any update.
pub(crate) fn read(
    output: &StepOutput,
    gradients: &Gradients,
    meanwhile: &mut dyn FnMut(),
) -> Result<GpuOutcome> {
    let (readings, _, shape) = gather(output, &gradients.values().collect::<Vec<_>>(), None)?;
    meanwhile();
    shape.outcome(&readings)
}

/// Loss, terms, hits and verdict as one tensor; the verdict; what the numbers are.
fn gather(
    output: &StepOutput,
    gradients: &[&Tensor],
    broken: Option<&Tensor>,
) -> Result<(Tensor, Tensor, Readings)> {
    let float = |t: &Tensor| Ok::<_, Error>(t.detach().to_dtype(DType::F32)?.reshape(1)?);
    let mut numbers = vec![float(&output.loss)?];
    for (_, term) in &output.parts {
        numbers.push(float(term)?);
    }
    let judged: Vec<&Tensor> = numbers.iter().chain(gradients.iter().copied()).collect();
    let verdict = judge(&judged, broken)?.ok_or_else(|| no_kernel("the verdict on a step"))?;
    let logits = output.logits.to_dtype(DType::F32)?;
    let hits = count_hits(&logits, &output.targets)?.ok_or_else(|| no_kernel("counting hits"))?;
    numbers.push(hits.reshape(1)?);
    numbers.push(verdict.clone());
    let shape = Readings {
        names: output.parts.iter().map(|(name, _)| *name).collect(),
        samples: output.targets.elem_count(),
    };
    let all = collect(&numbers.iter().collect::<Vec<_>>())?;
    let all = all.ok_or_else(|| no_kernel("so many readings"))?;
    Ok((all, verdict, shape))
}

fn no_kernel(what: &str) -> Error {
    Error::config("run.device", format!("the GPU has no kernel for {what}"))
}

impl Readings {
    /// Waits for the GPU and reads.
    fn outcome(&self, readings: &Tensor) -> Result<GpuOutcome> {
        self.outcome_of(&readings.to_vec1::<f32>()?)
    }

    fn outcome_of(&self, values: &[f32]) -> Result<GpuOutcome> {
        let reading = StepReading::from_values(values, &self.names, self.samples);
        match (reading, values.last()) {
            (Some(reading), Some(&verdict)) => Ok(GpuOutcome {
                reading,
                finite: verdict != 0.0,
            }),
            _ => Err(no_kernel("the readings of a step")),
        }
    }
}

impl Captured {
    /// Memory like `batch`'s, filled with it, and the work captured.
    fn new(work: &mut Work, batch: &TrainBatch, lr: f64, device: &Device) -> Result<Self> {
        // Copies: a variable takes over the memory it is made of.
        let own = |t: &Tensor| Ok::<_, Error>(Var::from_tensor(&t.copy()?)?);
        let (images, labels) = (own(&batch.images)?, own(&batch.labels)?);
        let draws = batch.draws.iter().map(own).collect::<Result<Vec<_>>>()?;
        let rate = own(&rate_of(lr, device)?)?;
        let fixed = TrainBatch {
            images: images.as_detached_tensor(),
            labels: labels.as_detached_tensor(),
            draws: draws.iter().map(Var::as_detached_tensor).collect(),
            indices: batch.indices.clone(),
            epoch: batch.epoch,
            step: batch.step,
        };
        let rate_now = rate.as_detached_tensor();
        let readings = Var::zeros(MOST_READINGS, DType::F32, device)?;
        let broken = Var::zeros(1, DType::F32, device)?;
        let broken_now = broken.as_detached_tensor();
        let mut shape = Readings::default();
        let graph = StepGraph::capture(device, || {
            let (numbers, own) = work.all(&fixed, &rate_now, Some(&broken_now))?;
            if numbers.elem_count() > MOST_READINGS {
                return Err(no_kernel("so many terms"));
            }
            // What was allocated in a capture is not to outlive it.
            readings.as_detached_tensor().slice_set(&numbers, 0, 0)?;
            shape = own;
            Ok(())
        })?;
        Ok(Self {
            batch: fixed,
            images,
            labels,
            draws,
            rate,
            readings,
            shape,
            broken,
            filled: None,
            to_host: ToHost::new(device)?,
            launched: VecDeque::new(),
            graph,
        })
    }

    fn fill_ahead(&mut self, next: &TrainBatch, lr: f64) -> Result<()> {
        self.filled = None;
        self.fill(next, lr)?;
        self.filled = Some(site(next, lr));
        Ok(())
    }

    fn fill(&mut self, batch: &TrainBatch, lr: f64) -> Result<()> {
        // What was filled ahead serves once.
        if self.filled.take() == Some(site(batch, lr)) {
            return Ok(());
        }
        self.images.set(&batch.images)?;
        self.labels.set(&batch.labels)?;
        for (own, new) in self.draws.iter().zip(&batch.draws) {
            own.set(new)?;
        }
        self.rate.set(&rate_of(lr, self.rate.device())?)?;
        self.batch.indices.clone_from(&batch.indices);
        (self.batch.epoch, self.batch.step) = (batch.epoch, batch.step);
        Ok(())
    }

    /// Has the GPU begin the step of `batch`, unless it has.
    fn begin(&mut self, work: &mut Work, batch: &TrainBatch, lr: f64) -> Result<()> {
        let own = site(batch, lr);
        if self.launched.iter().any(|(launched, _)| *launched == own) {
            return Ok(());
        }
        self.fill(batch, lr)?;
        self.start(work, own)
    }

    /// Has the GPU begin, and its readings sent behind it; without a graph all is done now.
    fn start(&mut self, work: &mut Work, own: Site) -> Result<()> {
        // Loss, hits and verdict beside the terms.
        let count = self.shape.names.len() + 3;
        let coming = if let Some(graph) = &self.graph {
            graph.launch()?;
            let readings = self.readings.narrow(0, 0, count)?;
            self.to_host.begin(&[&readings])?
        } else {
            let (rate, broken) = (&self.rate, &self.broken);
            let (rate, broken) = (rate.as_detached_tensor(), broken.as_detached_tensor());
            let (readings, shape) = work.all(&self.batch, &rate, Some(&broken))?;
            self.shape = shape;
            self.to_host.begin(&[&readings])?
        };
        self.launched.push_back((own, coming));
        Ok(())
    }

    /// What the first step that was begun came to, which is the one at `own`.
    fn finish(&mut self, own: Site, meanwhile: &mut dyn FnMut()) -> Result<GpuOutcome> {
        meanwhile();
        let coming = match self.launched.pop_front() {
            Some((site, coming)) if site == own => coming,
            _ => {
                let message = "a step was not begun in its turn";
                return Err(Error::Internal(message.into()));
            }
        };
        let outcome = self.shape.outcome_of(&coming.values()?.concat())?;
        if !outcome.finite {
            // Whoever goes on has seen it.
            self.broken.set(&self.broken.zeros_like()?)?;
        }
        Ok(outcome)
    }
}
