//! Convolutions' weights in the order and type that convolutions take, kept beside their parameters.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, TensorId};
use mixskd_cuda::Element;
use mixskd_cuda::update::{self, Turn};

use super::later;
use super::memory::{Gpu, address, element, failed, kernel_for};
use super::tape::Tape;

/// Convolutions' weights in the order of the maps, `[out, height · width, in]`, and in their type, beside the parameters that they are. A step that takes them
/// ([`Tape::use_weights`]) need not bring each there, and an update ([`crate::sgd_steps`]) brings both up to date at once.
///
/// What else changes a parameter has to be followed by [`Self::renew`].
pub struct ConvWeights {
    turned: HashMap<TensorId, Tensor>,
    all: Vec<(Arc<Gpu>, Tensor, Tensor)>,
}

impl ConvWeights {
    /// Those of `parameters` that are convolutions', for maps of type `dtype`. None without a GPU.
    ///
    /// # Errors
    /// When there is no memory for them or a launch fails.
    pub fn new<'a>(
        parameters: impl IntoIterator<Item = &'a Tensor>,
        dtype: DType,
    ) -> crate::Result<Self> {
        let mut weights = Self {
            turned: HashMap::new(),
            all: Vec::new(),
        };
        for parameter in parameters {
            let Ok((out, input, height, width)) = parameter.dims4() else {
                continue;
            };
            let taps = height * width;
            if element(dtype).is_none()
                || !parameter.is_contiguous()
                || (taps == 1 && dtype == DType::F32)
            {
                continue;
            }
            let Some((gpu, Element::F32)) = kernel_for(&[parameter], &[])? else {
                continue;
            };
            let turned = gpu.empty(dtype, (out, taps, input))?;
            weights.turned.insert(parameter.id(), turned.clone());
            weights.all.push((gpu, parameter.detach(), turned));
        }
        weights.renew()?;
        Ok(weights)
    }

    /// Brings all of them up to date with their parameters.
    ///
    /// # Errors
    /// When a launch fails.
    pub fn renew(&self) -> crate::Result<()> {
        for some in self.all.chunk_by(|a, b| Arc::ptr_eq(&a.0, &b.0)) {
            renew(
                &some[0].0,
                some.iter()
                    .map(|(_, parameter, turned)| (parameter, turned)),
            )?;
        }
        Ok(())
    }

    /// That of `parameter`, if it is a convolution's.
    pub fn get(&self, parameter: &Tensor) -> Option<&Tensor> {
        self.turned.get(&parameter.id())
    }
}

/// Brings weights up to date with their parameters, those of one type in as few launches as there is room for.
pub(super) fn renew<'a>(
    gpu: &Gpu,
    weights: impl Iterator<Item = (&'a Tensor, &'a Tensor)>,
) -> Result<()> {
    let mut turns = [(Element::F32, Vec::new()), (Element::Bf16, Vec::new())];
    for (parameter, turned) in weights {
        let kind = element(turned.dtype());
        let turn = turn(parameter, turned)?;
        let alike = turns.iter_mut().filter(|(of, _)| Some(*of) == kind);
        alike.for_each(|(_, turns)| turns.push(turn));
    }
    for (kind, turns) in turns.iter().filter(|(_, turns)| !turns.is_empty()) {
        // SAFETY: the arrays have the turns' sizes, and none is empty.
        unsafe { update::taps_first(gpu.engine(), *kind, turns) }.map_err(failed)?;
    }
    Ok(())
}

/// From a parameter, `[out, in, height, width]`, to its weight, `[out, height · width, in]`.
pub(super) fn turn(parameter: &Tensor, turned: &Tensor) -> Result<Turn> {
    let (out, taps, input) = turned.dims3()?;
    Ok(Turn {
        out,
        input,
        taps,
        from: address(parameter)?,
        to: address(turned)?,
    })
}

/// The gradients of a step, as [`Tape::backward_as_made`] gives them.
pub struct StepGradients {
    /// In convolutions' order.
    as_made: HashMap<TensorId, Tensor>,
    others: GradStore,
}

impl StepGradients {
    pub(super) fn new(as_made: HashMap<TensorId, Tensor>, others: GradStore) -> Self {
        Self { as_made, others }
    }

    /// That of `parameter`, if the loss reached it: of the parameter's shape, or as convolutions make it, of the shape and type of its
    /// [`ConvWeights`].
    pub fn get(&self, parameter: &Tensor) -> Option<&Tensor> {
        self.as_made
            .get(&parameter.id())
            .or_else(|| self.others.get(parameter))
    }
}

impl Tape {
    /// Has convolutions take `weights` instead of bringing each weight into their order. They are not to be changed as long as the tape is there.
    pub fn use_weights(&self, weights: &ConvWeights) {
        later::take(&weights.turned);
    }
}
