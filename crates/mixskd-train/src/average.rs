//! An exponential moving average of the weights.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use mixskd_models::{ParamStore, Strictness};

use crate::Result;

/// `ā ← d·ā + (1−d)·w` after every update, beginning with `ā = w` at the first: `torch.optim.swa_utils.AveragedModel` with
/// `get_ema_multi_avg_fn(d)`. Running statistics are not averaged, they are the network's own.
pub(crate) struct Average {
    decay: f64,
    /// By parameter name; empty before the first update.
    tensors: BTreeMap<String, Tensor>,
}

impl Average {
    pub(crate) fn new(decay: f64) -> Self {
        Self {
            decay,
            tensors: BTreeMap::new(),
        }
    }

    /// Takes in the parameters after an update.
    pub(crate) fn update(&mut self, parameters: &[(String, Var)]) -> Result<()> {
        for (name, parameter) in parameters {
            let now = parameter.as_detached_tensor();
            let next = match self.tensors.get(name) {
                None => now.copy()?,
                Some(average) => (average + (now.sub(average)? * (1.0 - self.decay))?)?,
            };
            self.tensors.insert(name.clone(), next);
        }
        Ok(())
    }

    /// Puts the average into the network; [`Self::put_back`] undoes it.
    pub(crate) fn put_in(&self, store: &ParamStore) -> Result<BTreeMap<String, Tensor>> {
        let mut own = store.snapshot()?;
        own.retain(|name, _| self.tensors.contains_key(name));
        store.load(&self.tensors, Strictness::Partial)?;
        Ok(own)
    }

    /// Gives the network its own weights again, bit for bit.
    pub(crate) fn put_back(own: &BTreeMap<String, Tensor>, store: &ParamStore) -> Result<()> {
        store.load(own, Strictness::Partial)?;
        Ok(())
    }

    /// The averages by parameter name, for a checkpoint.
    pub(crate) fn state(&self) -> BTreeMap<String, Tensor> {
        self.tensors.clone()
    }

    /// Takes averages back from a checkpoint.
    pub(crate) fn load_state(&mut self, state: BTreeMap<String, Tensor>) {
        self.tensors = state;
    }
}
