//! Who is told how a run goes.

use std::path::Path;

use crate::{EpochRecord, Report};

/// What is known when a run begins.
#[derive(Debug)]
pub struct RunStart<'a> {
    /// The run directory.
    pub dir: &'a Path,
    /// First epoch to run, from 0; above 0 when resumed.
    pub first_epoch: usize,
    /// First step of that epoch, from 0; above 0 when resumed in its middle.
    pub first_step: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Steps of one epoch.
    pub steps: usize,
    /// Original images of one step.
    pub batch: usize,
    /// Side of the network's input in pixels.
    pub input: usize,
}

/// What is known after a step.
#[derive(Debug)]
pub struct StepEvent<'a> {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Step inside the epoch, from 0.
    pub step: usize,
    /// Running mean of the epoch's loss.
    pub loss: f64,
    /// The step's unweighted terms.
    pub terms: &'a [(&'static str, f64)],
    /// Original images per second so far in this epoch.
    pub samples_per_s: f64,
}

/// What the kept network says of one batch of test images, after an epoch.
#[derive(Debug)]
pub struct TestEvent<'a> {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Index of the first of them among the test images; batches come in order.
    pub first: usize,
    /// Class of each.
    pub labels: &'a [u32],
    /// The backbone's logits, `[batch, class]`, one image after another.
    pub logits: &'a [f32],
}

/// Watches a run. Every method has an empty default; `()` watches nothing.
pub trait Observer {
    /// The run begins.
    fn started(&mut self, _start: &RunStart) {}
    /// A step is done.
    fn step(&mut self, _event: &StepEvent) {}
    /// A batch of test images is scored. An evaluation may end before its last batch, when the run is told to stop; only those of an
    /// epoch that [`Self::epoch`] follows are whole.
    fn tested(&mut self, _event: &TestEvent) {}
    /// An epoch is done, its record and checkpoint written.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// The run is done.
    fn finished(&mut self, _report: &Report) {}
    /// Something a person should know.
    fn notice(&mut self, _text: &str) {}
}

impl Observer for () {}
