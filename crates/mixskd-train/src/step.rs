//! Losses and gradients of one step, and what is said of it.

use mixskd_kernels::{ConvWeights, Tape, has_gpu_kernels};

use crate::gpu_step;
use crate::gradients::{Gradients, first_not_finite};
use crate::method::{Method, TrainBatch};
use crate::metrics::StepReading;
use crate::optimizer::Sgd;
use crate::{Error, Result};

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
    pub(crate) fn gradients(value: f64) -> Self {
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
