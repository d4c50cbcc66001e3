//! The ops that tokens are made by: what candle sees of a network.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, TensorId, bail,
};

use super::inbox::Inbox;
use super::{Differentiable, collect, registry};
use crate::storage::{self, by_dtype};

/// A token's element and shape: of the type of what it stands for, as candle adds up tokens' gradients in it.
fn one(like: &CpuStorage) -> Result<(CpuStorage, Shape)> {
    by_dtype!(like.dtype(), T => Ok(storage::own(vec![T::default()], 1)))
}

/// The token of a tensor that no kernel made: a parameter, or the output of an op of candle's.
pub(super) struct Enter(Arc<Inbox>);

impl Enter {
    pub(super) fn token(x: &Tensor) -> Result<(Arc<Inbox>, Tensor)> {
        let inbox = Arc::new(Inbox::default());
        let token = x.apply_op1(Self(inbox.clone()))?;
        Ok((inbox, token))
    }
}

impl CustomOp1 for Enter {
    fn name(&self) -> &'static str {
        "mixskd-enter"
    }

    fn cpu_fwd(&self, x: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        one(x)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        match self.0.take() {
            Some(gradient) if x.is_variable() => Ok(collect::keep(x, gradient)),
            Some(gradient) => Ok(Some(gradient)),
            None if x.is_variable() => Ok(None),
            // candle insists on a gradient for what it has seen on its way.
            None => Ok(Some(x.zeros_like()?)),
        }
    }
}

/// Two tokens as one.
pub(super) struct Join;

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "mixskd-join"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        one(a)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(a.detach()), Some(b.detach())))
    }
}

/// The token of an op's output: going back, the op itself.
pub(super) struct Step {
    pub(super) op: Box<dyn Differentiable>,
    pub(super) inbox: Arc<Inbox>,
    /// Of every input, none where it wants no gradient.
    pub(super) targets: Vec<Option<Arc<Inbox>>>,
    /// The output, without graph.
    pub(super) output: Arc<OnceLock<Tensor>>,
}

impl CustomOp1 for Step {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, token: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        one(token)
    }

    fn bwd(&self, token: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        if let Some(dy) = self.inbox.take() {
            let Some(y) = self.output.get() else {
                bail!("{}: the output was never made", self.name());
            };
            let gradients = self.op.gradients(y, &dy)?;
            for (target, gradient) in self.targets.iter().zip(gradients) {
                if let (Some(target), Some(gradient)) = (target, gradient) {
                    target.deliver(gradient)?;
                }
            }
        }
        Ok(Some(token.detach()))
    }
}

/// From an output's token to the output.
pub(super) struct Expose {
    data: Mutex<Option<CpuStorage>>,
    shape: Shape,
    inbox: Arc<Inbox>,
    /// The output's, once it has one.
    pub(super) id: Arc<OnceLock<TensorId>>,
}

impl Expose {
    pub(super) fn new(data: CpuStorage, shape: Shape, inbox: Arc<Inbox>) -> Self {
        Self {
            data: Mutex::new(Some(data)),
            shape,
            inbox,
            id: Arc::default(),
        }
    }
}

impl CustomOp1 for Expose {
    fn name(&self) -> &'static str {
        "mixskd-expose"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        match data.take() {
            Some(data) => Ok((data, self.shape.clone())),
            None => bail!("{}: the output was taken already", self.name()),
        }
    }

    fn bwd(&self, token: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        self.inbox.deliver(dy.clone())?;
        Ok(Some(token.detach()))
    }
}

impl Drop for Expose {
    fn drop(&mut self) {
        if let Some(&id) = self.id.get() {
            registry::remove(id);
        }
    }
}
